"""A plan in words: its rate, the proof of the bound, the trees drawn as text, and what they ask of each link."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ..packing import Plan, Tree
from ..packing.certificates import SWITCH_MODEL
from ..packing.weights import link_load, tree_depth
from ..topology import Path
from .numbers import count, gb_s
from .partition_text import partition_lines, partitions_json


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
    if plan.certificate.model == SWITCH_MODEL:
        lines.append(f"bounds are for {SWITCH_MODEL}; trees over forwarding switches have their own: --method exact")
    if plan.stages:
        lines.append("stages: " + "; ".join(f"{stage.name} {count(stage.trees, 'tree')}, {gb_s(stage.rate)} GB/s" for stage in plan.stages))
    if plan.trees:
        lines.append(_tree_line(plan))
    for i, tree in enumerate(plan.trees):
        inside = "" if tree.switch is None else f", added and copied in {tree.switch}"
        lines += ["", f"tree {i}: rate {gb_s(tree.rate)} GB/s, {float(tree.weight) * 100:.1f} % of the data, depth {tree_depth(tree)}{inside}", *_draw(tree)]
    lines += partition_lines(plan)
    if plan.flows:
        lines += ["", *(f"{_path(f.path)}  rate {gb_s(f.rate)} GB/s" for f in plan.flows)]
    lines += ["", "link use (GB/s):", *_link_lines(plan)]
    return "\n".join(lines)


def _tree_line(plan: Plan) -> str:
    """How many trees, how deep, and how many there have to be."""
    proof, ntrees = plan.tree_bound_proof, len(plan.trees)
    if ntrees == proof.count:
        least = "no plan of this rate has fewer"
    else:
        least = f"at least {proof.count} proven necessary, gap {ntrees - proof.count}"
    return f"{count(ntrees, 'tree')}, depth {plan.depth}; {least} ({proof.reason}: {proof.words})"


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


def _link_lines(plan: Plan) -> list[str]:
    load = link_load(plan)
    capacity = plan.topology.restrict(plan.links).capacities()
    lines = []
    for a, b in sorted(capacity, key=str):
        if str(a) > str(b) and (b, a) in capacity:
            continue
        ways = [(a, b), (b, a)] if (b, a) in capacity else [(a, b)]
        used = "  ".join(f"{_path(way)} {gb_s(load.get(way, Fraction(0)))} of {gb_s(capacity[way])} ({float(load.get(way, Fraction(0)) / capacity[way]) * 100:.0f} %)" for way in ways)
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
        "model": plan.certificate.model,
        "proof": plan.certificate.describe(plan.topology),
        "stages": [{"name": stage.name, "trees": stage.trees, "rate": str(stage.rate)} for stage in plan.stages],
        "tree_bound": None if not plan.trees else {"count": plan.tree_bound, "gap": len(plan.trees) - plan.tree_bound, "reason": plan.tree_bound_proof.reason, "proof": plan.tree_bound_proof.words},
        "depth": plan.depth,
        "trees": [
            {"root": t.root, "rate": str(t.rate), "weight": str(t.weight), "up": _paths(t.up), "down": _paths(t.down)}
            | ({} if t.switch is None else {"switch": t.switch})
            for t in plan.trees
        ],
        "partitions": partitions_json(plan),
        "flows": [{"src": f.src, "dst": f.dst, "rate": str(f.rate), "path": list(f.path)} for f in plan.flows],
    }


def _paths(paths: tuple[Path, ...] | None) -> list[list[int | str]] | None:
    return None if paths is None else [list(path) for path in paths]


def pareto_text(plans: Sequence[Plan]) -> str:
    """The trade-offs as a table."""
    first = plans[0]
    lines = [
        f"# {first.collective} on {first.topology.name}, links {'+'.join(first.links)}, bound {gb_s(first.bound)} GB/s; the best found, none proven but the bound and 'at least'",
        f"# {'rate GB/s':>18} {'of bound':>9} {'trees':>6} {'at least':>9} {'depth':>6}",
    ]
    lines += [f"  {gb_s(p.rate):>18} {float(p.rate / p.bound):>9.1%} {len(p.trees):>6} {p.tree_bound:>9} {p.depth:>6}" for p in plans]
    return "\n".join(lines)
