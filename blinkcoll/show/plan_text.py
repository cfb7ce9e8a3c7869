"""A plan in words: its rate, the proof of the bound, the trees drawn as text, and what they ask of each link."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from itertools import pairwise
from typing import Any

from ..packing import Plan, Tree
from ..topology import Path
from .numbers import gb_s

Hop = tuple["int | str", "int | str"]


def plan_text(plan: Plan) -> str:
    """Everything about a plan that fits a screen."""
    topology = plan.topology
    ranks = ", ".join(f"{rank} {d.name}" for rank, d in enumerate(topology.devices))
    if topology.relays:
        ranks += "; relays " + ", ".join(d.name for d in topology.relays)
    root = "" if plan.root is None else f" from rank {plan.root}" if plan.collective in ("broadcast", "scatter") else f" to rank {plan.root}"
    verdict = "optimal" if plan.optimal else f"{float(plan.rate / plan.bound) * 100:.1f} % of the bound"
    lines = [
        f"{plan.collective}{root} on {topology.name}, ranks {ranks}",
        f"rate {gb_s(plan.rate)} GB/s, {verdict}: {plan.certificate.describe(topology)}",
        f"links {'+'.join(plan.links)}: bound {gb_s(plan.bound)} GB/s; all links together: bound {gb_s(plan.bound_all)} GB/s",
    ]
    for i, tree in enumerate(plan.trees):
        lines += ["", f"tree {i}: rate {gb_s(tree.rate)} GB/s, {float(tree.weight) * 100:.1f} % of the data", *_draw(tree)]
    if plan.flows:
        lines += ["", *(f"{_path(f.path)}  rate {gb_s(f.rate)} GB/s" for f in plan.flows)]
    lines += ["", "link use (GB/s):", *_link_lines(plan)]
    return "\n".join(lines)


def _draw(tree: Tree) -> list[str]:
    """The tree from its root; what lies between parent and child in brackets."""
    children: dict[int | str, list[Path]] = defaultdict(list)
    for path in tree.down if tree.down is not None else [tuple(reversed(p)) for p in tree.up or ()]:
        children[path[0]].append(path)
    lines = [f"  {tree.root}"]

    def below(vertex: int | str, indent: str) -> None:
        for i, path in enumerate(sorted(children[vertex], key=str)):
            last = i + 1 == len(children[vertex])
            via = f" (over {', '.join(map(str, path[1:-1]))})" if len(path) > 2 else ""
            lines.append(f"{indent}{'└' if last else '├'}─ {path[-1]}{via}")
            below(path[-1], indent + ("   " if last else "│  "))

    below(tree.root, "  ")
    return lines


def _load(plan: Plan) -> dict[Hop, Fraction]:
    """What the plan sends over each directed pair of vertices, GB/s."""
    load: dict[Hop, Fraction] = defaultdict(Fraction)
    carried = [(t.rate, p) for t in plan.trees for p in (*(t.up or ()), *(t.down or ()))]
    for rate, path in [*carried, *((f.rate, f.path) for f in plan.flows)]:
        for hop in pairwise(path):
            load[hop] += rate
    return load


def _link_lines(plan: Plan) -> list[str]:
    load = _load(plan)
    capacity = plan.topology.restrict(plan.links).capacities()
    lines = []
    for a, b in sorted(capacity, key=str):
        if str(a) > str(b) and (b, a) in capacity:
            continue
        ways = [(a, b), (b, a)] if (b, a) in capacity else [(a, b)]
        used = "  ".join(f"{_path(way)} {gb_s(load[way])} of {gb_s(capacity[way])} ({float(load[way] / capacity[way]) * 100:.0f} %)" for way in ways)
        lines.append(f"  {used}")
    return lines


def _path(path: Path) -> str:
    return "→".join(map(str, path))


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan for machines; rates are GB/s as exact ``"p/q"``."""
    return {
        "schema": 1,
        "topology": {"name": plan.topology.name, "gpus": [d.index for d in plan.topology.devices], "relays": [d.index for d in plan.topology.relays], "fingerprint": plan.topology.fingerprint},
        "collective": plan.collective,
        "root": plan.root,
        "method": plan.method,
        "links": list(plan.links),
        "rate": str(plan.rate),
        "bound": str(plan.bound),
        "bound_all": str(plan.bound_all),
        "optimal": plan.optimal,
        "proof": plan.certificate.describe(plan.topology),
        "trees": [
            {"root": t.root, "rate": str(t.rate), "weight": str(t.weight), "up": _paths(t.up), "down": _paths(t.down)} for t in plan.trees
        ],
        "flows": [{"src": f.src, "dst": f.dst, "rate": str(f.rate), "path": list(f.path)} for f in plan.flows],
    }


def _paths(paths: tuple[Path, ...] | None) -> list[list[int | str]] | None:
    return None if paths is None else [list(path) for path in paths]
