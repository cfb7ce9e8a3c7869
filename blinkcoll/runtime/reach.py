"""Whether the ranks of a group can read and write each other's memory, found out by doing it.

``process_vm_readv`` and ``process_vm_writev`` may be refused by Yama (``/proc/sys/kernel/yama/ptrace_scope``), a seccomp filter
(one of them alone, too) or a container's capabilities, and mean nothing where process numbers are not shared. So each rank
shows the others where 16 random bytes lie; they see whether they find them, and write the same ones there.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
from collections import deque
from typing import Any

from .. import _core
from .bootstrap import Group

_LOG = logging.getLogger("blinkcoll")
_BYTES = 16
#: What this process has shown lately. Kept: a rank that is late may still write there.
_SHOWN: deque[Any] = deque(maxlen=4096)
_DOING = "finding out whether ranks can read and write each other's memory"


def processes_within_reach(group: Group, timeout_s: float) -> list[int] | None:
    """Every rank's process as this one numbers it (0: this process itself), or None where some rank cannot read or write another's memory.

    The same answer on all ranks. Rank 0 says no, too, where ``BLINKCOLL_DIRECT`` is 0 in its environment.
    """
    shown = ctypes.create_string_buffer(secrets.token_bytes(_BYTES), _BYTES)
    _SHOWN.append(shown)
    mine = {"process": os.getpid(), "numbers": _namespace(), "address": ctypes.addressof(shown), "bytes": shown.raw.hex()}
    places = _exchange(group, mine, timeout_s)
    if places is None:
        return None
    processes = [0 if (p["process"], p["numbers"]) == (mine["process"], mine["numbers"]) else int(p["process"]) for p in places]
    complaints = [f"rank {group.rank} cannot {why[0]} rank {rank}'s memory: {why[1]}" for rank, why in enumerate(map(_try, processes, places)) if why]
    return processes if _all_agree(group, complaints, timeout_s) else None


def _exchange(group: Group, mine: dict[str, Any], timeout_s: float) -> list[dict[str, Any]] | None:
    """Every rank's place; None where rank 0 does not want to know."""
    if group.rank == 0:
        wanted = os.environ.get("BLINKCOLL_DIRECT", "1") != "0"
        told = group.answers(_DOING, timeout_s)
        places = [mine, *(told[rank] for rank in range(1, group.world_size))] if wanted else None
        group.tell_all({"places": places})
        return places
    group.answer(mine)
    heard: list[dict[str, Any]] | None = group.hear(_DOING, timeout_s)[0]["places"]
    return heard


def _all_agree(group: Group, complaints: list[str], timeout_s: float) -> bool:
    if group.rank != 0:
        group.answer({"complaints": complaints})
        return bool(group.hear(_DOING, timeout_s)[0]["direct"])
    for answer in group.answers(_DOING, timeout_s).values():
        complaints += answer["complaints"]
    group.tell_all({"direct": not complaints})
    if complaints:
        more = f" (and {len(complaints) - 1} more such)" if len(complaints) > 1 else ""
        _LOG.warning("blinkcoll: %s%s; large messages are copied twice, through shared slots", complaints[0], more)
    return not complaints


def _try(process: int, place: dict[str, Any]) -> tuple[str, str] | None:
    """What cannot be done, and why."""
    if process == 0:
        return None
    doing = "read"
    try:
        found = _core.read_memory(process, place["address"], _BYTES)
        if found.hex() != place["bytes"]:
            return doing, f"process {process} is another one here (process numbers are not shared)"
        doing = "write"
        _core.write_memory(process, place["address"], found)
    except (OSError, RuntimeError) as error:
        return doing, str(error)
    return None


def _namespace() -> str:
    """Of process numbers."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"
