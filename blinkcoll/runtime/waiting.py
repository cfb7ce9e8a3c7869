"""How the ranks of a group wait for each other: found out once, and the same on all ranks."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from .. import _core
from .bootstrap import Group

_LOG = logging.getLogger("blinkcoll")
_DOING = "finding out how to wait for each other"


@dataclass(frozen=True)
class Waiting:
    """What a wait depends on.

    Parameters
    ----------
    fenced
        A rank that goes to sleep can fence all others (membarrier(2), ``csrc/host/fences.h``), and that takes microseconds. If not, each
        counter that is raised costs its writer a fence.
    crowded
        There are more ranks than cores that they may run on: who waits then lets others run sooner.
    """

    fenced: bool
    crowded: bool


def agree_on_waiting(group: Group, timeout_s: float) -> Waiting:
    """Join the fences, and count the cores that any of the ranks may use: each may be bound to one of its own."""
    mine: dict[str, Any] = {"fences": _core.join_fences(), "cores": _own_cores()}
    if group.world_size == 1:
        return Waiting(mine["fences"], False)
    if group.rank != 0:
        group.answer(mine)
        return Waiting(**group.hear(_DOING, timeout_s)[0]["waiting"])
    all_of_them = [mine, *group.answers(_DOING, timeout_s).values()]
    cores = {core for one in all_of_them for core in one["cores"]}
    joined = all(one["fences"] for one in all_of_them)
    fenced = joined and _core.fences_are_prompt()  # on this host; the others stand still meanwhile
    if joined and not fenced:
        _LOG.info("blinkcoll: membarrier(2) is slow here, or how slow cannot be measured; counters that are raised cost their writers a fence")
    told = {"fenced": fenced, "crowded": group.world_size > len(cores)}
    group.tell_all({"waiting": told})
    return Waiting(**told)


def _own_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
