"""The plans of all three versions side by side, as the tables of ``docs/baselines.md`` have them.

``python -m blinkcoll.simulator.baselines.nccl.table`` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ....topology import Topology, load_topology, unique_subsets
from .plan import NcclPlan, search
from .versions import VERSIONS

#: The size that the tuner's choice is shown for.
NBYTES = 256 << 20
#: Whole machines shown beside the classes of the DGX-1s.
MACHINES = ("dgx1-p100", "dgx1-v100", "dgx2", "dgx-a100", "hgx-h100", "hgx-b200")
DGX1 = ("dgx1-v100", "dgx1-p100")


def class_table(layout: str) -> str:
    """One line for each connected class of three to eight GPUs of a layout, in Markdown."""
    whole = load_topology(layout)
    return subsets_table([topology for k in range(3, whole.nranks + 1) for topology in unique_subsets(whole, k)])


def subsets_table(subsets: Sequence[Topology]) -> str:
    """A header, and one line for each of some sets of GPUs."""
    return _table("GPUs", [(",".join(str(d.index) for d in t.devices), t) for t in subsets], tuple(VERSIONS))


def machine_table() -> str:
    """One line for each whole machine, version 2.30 only, in Markdown."""
    return _table("machine", [(name, load_topology(name)) for name in MACHINES], ("2.30",))


def _table(first: str, rows: list[tuple[str, Topology]], versions: tuple[str, ...]) -> str:
    head = [first]
    for version in versions:
        head += [f"{version}: channels x GB/s", "path", "ring", "tree", f"{NBYTES >> 20} MB"]
    lines = [head, ["---"] * len(head)]
    for name, topology in rows:
        line = [name]
        for version in versions:
            line += _cells(search(topology, version))
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(plan: NcclPlan) -> list[str]:
    choice = plan.choose(NBYTES)
    tree = "-" if plan.tree_busbw is None else _short(plan.tree_busbw)
    return [
        f"{plan.nchannels} x {_short(plan.gb_s_per_channel)}", plan.path_type, _short(plan.ring_busbw), tree,
        f"{choice.algorithm} {choice.protocol}",
    ]  # fmt: skip


def _short(gb_s: Fraction) -> str:
    return f"{float(gb_s):.1f}".removesuffix(".0")


def main() -> None:
    """Print every table."""
    print(machine_table())
    for layout in DGX1:
        print(f"\n{layout}\n\n{class_table(layout)}")


if __name__ == "__main__":
    main()
