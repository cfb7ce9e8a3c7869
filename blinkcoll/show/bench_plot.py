"""Bench results as a figure: bandwidth by size against the bounds, and below it how much faster than each baseline."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log2
from pathlib import Path
from typing import Any

from ..errors import SimulationError
from .bench_result import BenchResult
from .numbers import size_text

#: What can be written, by the file's ending.
FORMATS = ("pdf", "png", "svg")
#: Okabe and Ito's colours, which colour-blind readers tell apart; markers and dashes tell them apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999999", "#44AA99", "#332288", "#AA4499")
_MARKERS = "sD^vP<>Xhp*"
_OURS = "#000000"
#: Inches of a column, of the figure's height beside the legend, and of a line of that, which has room for three names a column.
_WIDTH, _HEIGHT, _LINE, _IN_A_LINE = 3.5, 3.8, 0.16, 3
#: Bounds closer than this part of the axis have their labels on either side of the two lines.
_CLOSE = 0.09


def check_plot(path: str) -> None:
    """Raise :class:`SimulationError` where no figure could be written there; before minutes are spent on what it would show."""
    if Path(path).suffix[1:] not in FORMATS:
        raise SimulationError(f"plot {path}: its name has to end in one of {', '.join('.' + name for name in FORMATS)}")
    if not Path(path).absolute().parent.is_dir():
        raise SimulationError(f"plot {path}: there is no directory {Path(path).absolute().parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SimulationError("plots need matplotlib: pip install 'blinkcoll[report]'") from error


def write_plot(results: Sequence[BenchResult], path: str) -> None:
    """A column a collective; the format by the name's ending, which :func:`check_plot` has accepted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style: Any = {
        "font.size": 8, "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
        "grid.color": "0.92", "grid.linewidth": 0.6, "pdf.fonttype": 42, "svg.hashsalt": "blinkcoll",
    }  # fmt: skip
    with plt.rc_context(style):
        ncols = len(results)
        nlines = -(-(1 + len(results[0].peers)) // (_IN_A_LINE * ncols))
        figsize = (_WIDTH * ncols, _HEIGHT + _LINE * nlines)
        figure, axes = plt.subplots(2, ncols, figsize=figsize, sharex="col", squeeze=False, height_ratios=[2, 1], layout="constrained")
        for column, result in enumerate(results):
            _bandwidth(axes[0][column], result)
            _faster(axes[1][column], result)
        axes[0][0].set_ylabel("algorithm bandwidth (GB/s)")
        axes[1][0].set_ylabel("blinkcoll's\nspeed-up over")
        figure.align_ylabels()
        handles = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        order = ["blinkcoll", *(peer for peer in results[0].peers if peer in handles)]
        figure.legend([handles[name] for name in order], order, loc="outside lower center", ncols=_IN_A_LINE * ncols, frameon=False, fontsize=7)
        topology = results[0].plan.topology
        gpus = ",".join(str(d.index if d.index is not None else d.name) for d in topology.devices)
        figure.suptitle(f"{topology.name}, GPUs {gpus} (simulated)", fontsize=9)
        figure.savefig(path, dpi=300)
        plt.close(figure)


def _bandwidth(axis: Any, result: BenchResult) -> None:
    bounds = {result.model_of(row.ours): float(row.ours.bound) for row in result.rows}
    bounds.setdefault("+".join(result.plan.links), float(result.plan.bound))
    top = max(*bounds.values(), *(row.ours.algbw for row in result.rows)) * 1.1
    above = float("inf")
    for name, bound in sorted(bounds.items(), key=lambda entry: -entry[1]):
        axis.axhline(bound, color="0.45", linestyle="--", linewidth=0.9, zorder=1)
        side = -1 if above - bound < _CLOSE * top else 1
        axis.annotate(  # at the left, where no curve has risen yet
            f"bound, {name}: {bound:.4g} GB/s", (0.01, bound), xycoords=("axes fraction", "data"), xytext=(0, 1.5 * side), textcoords="offset points",
            va="bottom" if side == 1 else "top", color="0.35", fontsize=7,
        )  # fmt: skip
        above = bound
    for i, peer in reversed(list(enumerate(result.peers))):
        points = [(row.nbytes, t.algbw) for row in result.rows if (t := row.peers[i]) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), label=peer, **_style(i))
    axis.plot([row.nbytes for row in result.rows], [row.ours.algbw for row in result.rows], color=_OURS, marker="o", markersize=2.8, linewidth=1.6, label="blinkcoll")
    axis.set_title(result.plan.collective, fontsize=9)
    axis.set_xscale("log", base=2)
    axis.set_ylim(0, top)


def _faster(axis: Any, result: BenchResult) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.axhline(1.0, color="0.3", linewidth=0.8)
    least, most = 1.0, 1.0
    for i, _ in enumerate(result.peers):
        points = [(row.nbytes, ratio) for ratio, row in result.ratios(i)]
        if points:
            least, most = min(least, *(ratio for _, ratio in points)), max(most, *(ratio for _, ratio in points))
            axis.plot(*zip(*points, strict=True), **_style(i))
    axis.set_yscale("log", base=2)
    axis.set_ylim(min(0.9, least / 1.05), max(2.2, most * 1.15))
    powers = range(floor(log2(min(0.9, least))) + 1, floor(log2(max(2.2, most * 1.15))) + 1)
    axis.set_yticks([2.0**power for power in powers if power % (1 + len(powers) // 6) == 0])
    axis.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}×"))
    axis.yaxis.set_minor_locator(NullLocator())
    sizes = [row.nbytes for row in result.rows]
    ticks = sizes[:: max(1, (len(sizes) + 4) // 5)]
    axis.set_xticks(ticks, [size_text(tick) for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("size")


def _style(i: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)], "markersize": 2.8, "linewidth": 1.0,
        "linestyle": ("-", (0, (4, 1)), (0, (2, 1)))[i % 3],
    }  # fmt: skip
