"""A plan in the words of NCCL's own INFO log, followed by reasons, which NCCL's log never gives.

Lines that start with ``NCCL INFO`` follow the formats of ``ncclTopoPrint``, ``ncclTopoPrintGraph`` (src/graph/topo.cc,
search.cc) and ``ncclBuildRings`` (rings.cc), with device names for bus ids; lines that start with ``#`` are blinkcoll's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from .compute import Graph
from .system import Edge, Node
from .versions import NVLS, PATTERN_NAMES, RING

if TYPE_CHECKING:
    from .plan import NcclPlan

#: Sizes that the tuner's choice is shown for.
SIZES = tuple(1 << power for power in range(10, 31, 2))
#: How far a cycle through all GPUs is looked for before saying nothing about it.
_MAX_CYCLE_GPUS = 12


def info_log(plan: NcclPlan) -> str:
    """Channels, paths and rings of ``plan`` as NCCL's log shows them, and why they are so."""
    return "\n".join([*_log(plan), *(f"# {line}" for line in _reasons(plan))])


# -- as NCCL prints it --------------------------------------------------------------------------------------------------


def _log(plan: NcclPlan) -> Iterator[str]:
    yield f"# NCCL {plan.version.release} on {plan.topology.name}: its search rebuilt, its log imitated; no NCCL ran"
    for line in _system_lines(plan) if plan.version.name != "2.4" else ():
        yield f"NCCL INFO {line}"
    for graph in (plan.ring, plan.tree, plan.nvls) if plan.version.name != "2.4" else ():
        for line in _graph_lines(plan, graph):
            yield f"NCCL INFO {line}"
    for line in _channel_lines(plan):
        yield f"NCCL INFO {line}"


def _system_lines(plan: NcclPlan) -> Iterator[str]:
    system, paths = plan.system, plan.paths
    for cpu in system.nodes["CPU"]:
        yield from _tree_lines(f"CPU/{cpu.name} ({system.cpu})", cpu, None, 0)
    for here in system.gpus:
        ways = "".join(
            f"GPU/{there.name} ({len(paths[here, there].edges)}/{paths[here, there].gb_s:.1f}/{paths.type_name(here, there)}) "
            for there in system.gpus
        )
        yield f"GPU/{here.name} :{ways}".rstrip()


def _tree_lines(title: str, node: Node, parent: Node | None, indent: int) -> Iterator[str]:
    yield f"{' ' * indent}{title}"
    for edge in node.edges:
        if edge.kind == "PCI" and edge.to is parent:
            continue
        head = f"+ {edge.kind}[{edge.gb_s:2.1f}] - "
        if edge.kind == "PCI":
            name = f"{edge.to.kind}/{edge.to.name}" + (f" ({edge.to.rank})" if edge.to.kind == "GPU" else "")
            yield from _tree_lines(f"{head}{name}", edge.to, node, indent + 2)
        else:
            yield f"{' ' * (indent + 2)}{head}{edge.to.kind}/{edge.to.name}"


def _graph_lines(plan: NcclPlan, graph: Graph | None) -> Iterator[str]:
    if graph is None:
        return
    yield (
        f"Pattern {graph.pattern}, crossNic 0, nChannels {graph.nchannels}, bw {float(graph.gb_s):f}/{float(graph.inter_gb_s):f}, "
        f"type {graph.path_type}/PIX, sameChannels {int(graph.same_channels)}"
    )
    for c, channel in enumerate(graph.channels):
        yield f"{c:2d} :" + "".join(f" GPU/{plan.topology.devices[rank].name}" for rank in channel)


def _channel_lines(plan: NcclPlan) -> Iterator[str]:
    width = len(str(plan.topology.nranks - 1))
    for c in range(plan.nchannels_run):
        ring = plan.rings[c % plan.common_channels]
        first = ring.index(0)
        yield f"Channel {c:02d}/{plan.nchannels_run:02d} :" + "".join(f" {r:{width}d}" for r in ring[first:] + ring[:first])
    if plan.tree is None:
        yield "Trees disabled"
        return
    for rank in range(plan.topology.nranks):
        line = ""
        for c in range(plan.nchannels_run):
            chain = (-1, *plan.trees[c % plan.common_channels], -1)
            at = chain.index(rank)
            line += f" [{c}] {chain[at + 1]}/-1/-1->{rank}->{chain[at - 1]}"
        yield f"rank {rank} Trees{line}"


# -- why ----------------------------------------------------------------------------------------------------------------


def _reasons(plan: NcclPlan) -> Iterator[str]:
    yield f"ring: {_amount(plan.ring)}{'; each once more, half the data each' if plan.nchannels_run > plan.nchannels else ''}"
    yield from _hop_reasons(plan, plan.ring)
    if plan.ring.fallback:
        yield "no ring was found, so NCCL takes the ranks in order over whatever lies between them"
    elif plan.path_type not in ("LOC", "NVL", "NVB"):
        yield from _off_nvlink(plan)
    yield from _usage(plan)
    if plan.tree is None:
        yield "tree: none on one node in this version"
    else:
        yield f"tree: {_amount(plan.tree)}, chains from the first GPU named"
        yield from _hop_reasons(plan, plan.tree)
    if plan.nvls is not None:
        yield f"NVLS: {plan.nvls.nchannels} heads, {float(plan.nvls.gb_s):g} GB/s each from the switch"
    yield from _tuner(plan)
    for text in plan.assumptions:
        yield f"assumed: {text}"


def _amount(graph: Graph) -> str:
    name = PATTERN_NAMES[graph.pattern]
    return f"{graph.nchannels} channel{'s' if graph.nchannels != 1 else ''} of {float(graph.gb_s):g} GB/s over {graph.path_type} ({name})"


def _hops(plan: NcclPlan, graph: Graph) -> dict[tuple[int, int], int]:
    """Every hop from rank to rank and how many channels take it."""
    counts: dict[tuple[int, int], int] = {}
    if graph.pattern == NVLS:
        return counts
    for channel in graph.channels:
        closed = (*channel, channel[0]) if graph.pattern == RING and len(channel) > 1 else channel
        for hop in pairwise(closed):
            counts[hop] = counts.get(hop, 0) + 1
    return counts


def _gpu(plan: NcclPlan, rank: int) -> Node:
    return next(gpu for gpu in plan.system.gpus if gpu.rank == rank)


def _hop_reasons(plan: NcclPlan, graph: Graph) -> Iterator[str]:
    """A line for every hop that is not one NVLink (or the switch)."""
    for (a, b), count in sorted(_hops(plan, graph).items()):
        here, there = _gpu(plan, a), _gpu(plan, b)
        kind = plan.paths.type_name(here, there)
        if kind in ("LOC", "NVL"):
            continue
        times = f" in {count} channels" if count > 1 else ""
        way = plan.paths[here, there]
        if kind == "NVB":
            # GPU - its device - the device crossed - the other's device - GPU.
            crossed = way.edges[1].to.name
            yield f"{here.name} -> {there.name}{times}: no NVLink between them, crosses {crossed} (a lane of {here.name}-{crossed} and of {crossed}-{there.name})"
            continue
        through = [edge.to.name for edge in way.edges if edge.to.kind in ("PCI", "CPU", "NVS")]
        narrowest = min(way.edges, key=lambda edge: edge.gb_s)
        memory = " through host memory" if (here, there) in plan.paths.through_memory else " as PCIe peers"
        yield (
            f"{here.name} -> {there.name}{times}: {kind}, by {', '.join(dict.fromkeys(through))}{memory}; "
            f"narrowest {narrowest.kind} {narrowest.gb_s:g} GB/s"
        )


def _off_nvlink(plan: NcclPlan) -> Iterator[str]:
    """Why the ring is not all NVLink."""
    joined = _nvlink_peers(plan)
    gpus = [gpu.name for gpu in plan.system.gpus]
    alone = [name for name in gpus if not joined[name]]
    if len(alone) == len(gpus):
        yield "PCIe, because no NVLink joins these GPUs"
        return
    if alone:
        yield f"PCIe, because {', '.join(alone)} ha{'s' if len(alone) == 1 else 've'} no NVLink to the others"
    elif len(gpus) <= _MAX_CYCLE_GPUS and not _has_cycle(gpus, joined):
        yield "PCIe, because the NVLinks among these GPUs have no cycle through all of them"
    if not plan.version.nvb:
        yield f"NCCL {plan.version.release} never crosses a GPU; from 2.8.3 on it would"


def _nvlink_peers(plan: NcclPlan) -> dict[str, set[str]]:
    """Per GPU the GPUs that one NVLink (or the switch) reaches."""
    gpus = plan.system.gpus
    return {a.name: {b.name for b in gpus if a is not b and plan.paths.type_name(a, b) == "NVL"} for a in gpus}


def _has_cycle(gpus: list[str], joined: dict[str, set[str]]) -> bool:
    """Whether a cycle through all GPUs exists (depth first)."""

    def extend(here: str, left: frozenset[str]) -> bool:
        if not left:
            return gpus[0] in joined[here]
        return any(extend(there, left - {there}) for there in sorted(joined[here] & left))

    return extend(gpus[0], frozenset(gpus[1:]))


def _usage(plan: NcclPlan) -> Iterator[str]:
    """How much of the NVLinks the rings use, and which they leave idle."""
    carried: dict[Edge, float] = {}
    for (a, b), count in _hops(plan, plan.ring).items():
        for edge in plan.paths[_gpu(plan, a), _gpu(plan, b)].edges:
            if edge.kind == "NVL":
                carried[edge] = carried.get(edge, 0.0) + count * float(plan.ring.gb_s)
    links = [(node, edge) for kind in ("DEV", "GPU") for node in plan.system.nodes.get(kind, ()) for edge in node.edges if edge.kind == "NVL"]
    total = sum(edge.gb_s for _, edge in links)
    if not total:
        return
    used = sum(carried.get(edge, 0.0) for _, edge in links)
    yield f"NVLink in use by rings: {used:g} of the {total:g} GB/s that leave these GPUs ({100 * used / total:.0f} %)"
    idle = [f"{node.name}->{edge.to.name}" for node, edge in links if edge not in carried]
    if idle:
        yield f"not used at all: {', '.join(idle)}"


def _tuner(plan: NcclPlan) -> Iterator[str]:
    """The tuner's choices for an all-reduce, sizes with the same choice together."""
    before = ""
    for nbytes in SIZES:
        choice = plan.choose(nbytes)
        now = f"{choice.algorithm} {choice.protocol}, {choice.nchannels} channel{'s' if choice.nchannels != 1 else ''}"
        if now != before:
            yield f"all-reduce from {_size(nbytes)}: {now}"
        before = now


def _size(nbytes: int) -> str:
    for unit, name in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if nbytes >= unit:
            return f"{nbytes // unit}{name}"
    return str(nbytes)
