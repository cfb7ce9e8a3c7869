"""How many trees the optimum takes on every kind of allocation of the two DGX-1s, as ``docs/trees.md`` has it.

``python -m blinkcoll.packing.table`` prints it: a few minutes. ``exact`` is the default plan, ``few`` that of ``minimise="trees"``, ``blink``
that of the paper's pipeline asked for the same rate (``threshold=0``), or where its candidates do not reach that, for 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..errors import PackingError
from ..topology import Topology, load_topology, unique_subsets
from .make import make_plan
from .plan import Plan

DGX1 = ("dgx1-v100", "dgx1-p100")
COLLECTIVES = ("broadcast", "allreduce")


@dataclass(frozen=True)
class Row:
    """One kind of allocation and one collective (broadcast: from rank 0)."""

    gpus: str
    exact: Plan
    few: Plan
    blink: Plan

    @property
    def gap(self) -> int:
        """Trees of the few beyond the proven lower bound."""
        return len(self.few.trees) - self.few.tree_bound

    def cells(self) -> list[str]:
        """As a line of the table."""
        blink = _kind(self.blink)
        if self.blink.rate != self.exact.rate:
            blink += f" at {float(self.blink.rate / self.exact.rate):.1%}"
        return [self.gpus, f"{_units(self.exact)}", _kind(self.exact), _kind(self.few), blink, f"{self.few.tree_bound} ({self.few.tree_bound_proof.reason})", str(self.gap)]


def rows(layout: str, collective: str, budget_s: float = 2.0) -> Iterator[Row]:
    """A row for each connected class of three to eight GPUs."""
    whole = load_topology(layout)
    for topology in (t for k in range(3, whole.nranks + 1) for t in unique_subsets(whole, k)):
        root = 0 if collective == "broadcast" else None
        exact = make_plan(topology, collective, root)
        few = make_plan(topology, collective, root, minimise="trees", budget_s=budget_s)
        yield Row(",".join(str(d.index) for d in topology.devices), exact, few, _blink(topology, collective, root, budget_s))


def _blink(topology: Topology, collective: str, root: int | None, budget_s: float) -> Plan:
    try:
        return make_plan(topology, collective, root, method="blink", threshold=0, budget_s=budget_s)
    except PackingError:
        return make_plan(topology, collective, root, method="blink", budget_s=budget_s)


def _kind(plan: Plan) -> str:
    return f"{len(plan.trees)}, {plan.depth}"


def _units(plan: Plan) -> Fraction:
    """The rate in lanes."""
    return plan.rate / min(link.capacity / (link.lanes or 1) for link in plan.topology.links if link.kind == "NVLINK")


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Print every table, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of search a plan")
    budget_s = parser.parse_args().budget
    for layout in DGX1:
        for collective in COLLECTIVES:
            head = ["GPUs", "rate, lanes", "exact: trees, depth", "few: trees, depth", "blink: trees, depth", "at least", "gap of few"]
            found = list(rows(layout, collective, budget_s))
            print(f"\n### {layout}, {collective}\n\n{_markdown([head, ['---'] * len(head), *(row.cells() for row in found)])}\n")
            equal = sum(row.blink.rate == row.exact.rate for row in found)
            print(
                f"{len(found)} classes: trees in all {sum(len(r.exact.trees) for r in found)} exact, {sum(len(r.few.trees) for r in found)} few, "
                f"{sum(len(r.blink.trees) for r in found)} blink (at equal rate in {equal}); few proven fewest in {sum(not r.gap for r in found)}, largest gap {max(r.gap for r in found)}.",
                flush=True,
            )


if __name__ == "__main__":
    main()
