"""The partitions of a three-phase plan as text: trees inside each server, and who meets whom between them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ..packing import Partition, Plan
from ..topology import Path
from .numbers import gb_s


def partition_lines(plan: Plan) -> list[str]:
    """Each partition: its rate, the exchange's ways by the NICs they take, and a line a server with the tree."""
    lines: list[str] = []
    for i, partition in enumerate(plan.partitions):
        lines += ["", f"partition {i}: rate {gb_s(partition.rate)} GB/s, {float(partition.weight) * 100:.1f} % of the data, hub rank {partition.hub}"]
        lines += [f"  across  {'→'.join(map(str, path))}" for path in partition.exchange]
        for root in partition.roots:
            lines.append(f"  server {plan.topology.devices[root].server}  root {root}{_inside(plan, partition, root)}")
    return lines


def _inside(plan: Plan, partition: Partition, root: int) -> str:
    """The server's tree in one line: ``2(1 0(3))`` is 2 with the children 1 and 0, and 3 below 0."""
    server = plan.topology.devices[root].server
    end = plan.root if plan.root is not None and plan.topology.devices[plan.root].server == server else root
    trees = {
        name: _nested(end, [p for p in paths if plan.topology.devices[int(p[0])].server == server])
        for name, paths in (("up", tuple(p[::-1] for p in partition.up or ())), ("down", partition.down or ()))
        if paths
    }
    if len(set(trees.values())) == 1:
        return f"  {' and '.join(trees)} {next(iter(trees.values()))}"
    return "".join(f"  {name} {text}" for name, text in trees.items())


def _nested(root: int, paths: list[Path]) -> str:
    children: dict[int | str, list[int | str]] = defaultdict(list)
    for path in paths:
        children[path[0]].append(path[-1])

    def below(vertex: int | str) -> str:
        listed = " ".join(below(child) for child in sorted(children[vertex], key=str))
        return f"{vertex}({listed})" if listed else str(vertex)

    return below(root)


def partitions_json(plan: Plan) -> list[dict[str, Any]]:
    """Partitions for machines; rates are GB/s as exact ``"p/q"``."""

    def listed(paths: tuple[Path, ...] | None) -> list[list[int | str]] | None:
        return None if paths is None else [list(path) for path in paths]

    return [
        {
            "rate": str(p.rate), "weight": str(p.weight), "roots": list(p.roots), "hub": p.hub,
            "up": listed(p.up), "down": listed(p.down), "exchange": listed(p.exchange),
        }
        for p in plan.partitions
    ]  # fmt: skip
