"""Bench results as a figure: bandwidth by size against the bound, and below it how much faster than each baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import SimulationError
from .bench_result import BenchResult
from .numbers import size_text

#: Okabe and Ito's colours, which colour-blind readers tell apart; markers tell them apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000", "#999999", "#882255")
_MARKERS = "osD^vP<>Xh*"
_OURS = "#000000"


def write_plot(results: Sequence[BenchResult], path: str) -> None:
    """A column a collective; the format by the name's ending (pdf, png, svg).

    Raises
    ------
    SimulationError
        Where matplotlib is not installed, or cannot write such a file.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise SimulationError("plots need matplotlib: pip install 'blinkcoll[report]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style: Any = {"font.size": 8, "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}
    with plt.rc_context(style):
        ncols = len(results)
        figure, axes = plt.subplots(
            2, ncols, figsize=(3.6 * ncols, 4.0), sharex="col", squeeze=False, height_ratios=[2, 1], layout="constrained"
        )
        for column, result in enumerate(results):
            _bandwidth(axes[0][column], result)
            _faster(axes[1][column], result)
            if column == 0:
                axes[0][column].set_ylabel("algbw, GB/s")
                axes[1][column].set_ylabel("times as fast\nas baseline")
        topology = results[0].plan.topology
        gpus = ",".join(str(d.index if d.index is not None else d.name) for d in topology.devices)
        figure.suptitle(f"{topology.name}, GPUs {gpus}: simulated", fontsize=9)
        try:
            figure.savefig(path, dpi=200)
        except ValueError as error:  # an ending that it does not know
            raise SimulationError(f"plot {path}: {error}") from error
        finally:
            plt.close(figure)


def _bandwidth(axis: Any, result: BenchResult) -> None:
    sizes = [row.nbytes for row in result.rows]
    axis.axhline(float(result.plan.bound), color="0.5", linestyle="--", linewidth=0.9, zorder=1)
    axis.annotate(
        f"bound {float(result.plan.bound):.4g}", (0.02, float(result.plan.bound)), xycoords=("axes fraction", "data"),
        xytext=(0, -2), textcoords="offset points", va="top", color="0.35",
    )  # fmt: skip
    for i, peer in reversed(list(enumerate(result.peers))):
        points = [(row.nbytes, t.algbw) for row in result.rows if (t := row.peers[i]) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), color=_colour(i), marker=_MARKERS[i % len(_MARKERS)], markersize=2.5, linewidth=1.0, label=peer)
    axis.plot(sizes, [row.ours.algbw for row in result.rows], color=_OURS, marker="o", markersize=2.5, linewidth=1.6, label="blinkcoll")
    axis.set_title(result.plan.collective, fontsize=9)
    axis.set_xscale("log", base=2)
    axis.set_ylim(0, max(float(result.plan.bound), *(row.ours.algbw for row in result.rows)) * 1.06)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0.0, 0.9))


def _faster(axis: Any, result: BenchResult) -> None:
    axis.axhline(1.0, color="0.5", linewidth=0.8)
    top = 1.0
    for i, _ in enumerate(result.peers):
        points = [(row.nbytes, ratio) for ratio, row in result.ratios(i)]
        if points:
            top = max(top, *(ratio for _, ratio in points))
            axis.plot(*zip(*points, strict=True), color=_colour(i), marker=_MARKERS[i % len(_MARKERS)], markersize=2.5, linewidth=1.0)
    axis.set_ylim(0, top * 1.1)
    sizes = [row.nbytes for row in result.rows]
    ticks = sizes[:: max(1, (len(sizes) + 4) // 5)]
    axis.set_xticks(ticks, [size_text(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("size")


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]
