"""NCCL's rings and chains as programs: what its plan would have every rank execute.

Every channel that NCCL runs carries an equal share. All-reduces go round rings or up and down chains, all-gathers and
reduce-scatters round rings, broadcasts and reduces along the rings cut open at the root (src/device/all_reduce.h,
all_gather.h, reduce_scatter.h, broadcast.h and reduce.h of NCCL 2.30.7).

Where a hop crosses a GPU (NVB), NCCL puts the receiver's buffer into the crossed GPU's memory (``p2pSendSetup`` and
``p2pRecvSetup`` in src/transport/p2p.cc): the sender writes it over one NVLink and the receiver reads it over the other.
So do these programs, in the crossed GPU's scratch. With the LL protocol data and flag are one store and the IR's separate
signal would cost a hop too much; there the crossed GPU copies from one connection to the next, which takes it a channel
that NCCL does not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from ....errors import SimulationError
from ....packing.collectives import canonical, check_root
from ....schedules.program import INPUT, OUTPUT, Channel, Connection, Operand, Program, Step, slot
from ....schedules.rings import lower_rings
from ....topology import Topology, route
from ...rotation import Rotation, folded_rings, rotation_of
from ..ring import chain_broadcasts, store_directly
from . import p2p, servers
from .nvls import nvls_program
from .plan import NcclPlan, search

#: What there are programs for: what NCCL has a tuner for, and what nccl-tests composes of sends and receives.
COLLECTIVES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", *p2p.COLLECTIVES)
_SLOTS = 4

Chains = Sequence[Sequence[int]]


def nccl_program(
    topology: Topology, collective: str, root: int | None, nbytes: int, *, version: str = "2.30", algorithm: str | None = None
) -> Program:
    """What NCCL runs for a collective of ``nbytes``.

    Parameters
    ----------
    root
        The root's rank, for broadcast, reduce, gather and scatter.
    nbytes
        As nccl-tests counts: the total of all shards for all-gather, reduce-scatter, gather and scatter.
    version
        As for :func:`search`.
    algorithm
        ``"ring"``, ``"tree"`` or ``"nvls"`` to leave the tuner no other, as ``NCCL_ALGO`` does.

    Raises
    ------
    SimulationError
        For a collective without a program, or an algorithm that the version does not have for it.
    TopologyError
        Where NCCL cannot be searched for, or nothing leads from a rank to the next.
    """
    collective = canonical(collective)
    if collective not in COLLECTIVES:
        raise SimulationError(f"NCCL's {collective} has no program; there are {', '.join(COLLECTIVES)}")
    root = check_root(collective, root, topology.nranks)
    if len({device.server for device in topology.devices}) > 1:
        return _across_servers(topology, collective, root, nbytes, version, algorithm)
    plan = _plan(topology, version)
    if collective in p2p.COLLECTIVES:
        return _sent(plan, collective, root, nbytes, algorithm)
    choice = plan.tuner.choose(nbytes, collective, only=algorithm)
    return program_of_choice(topology, collective, root, version, choice.algorithm, choice.protocol, choice.nchannels)


@lru_cache(maxsize=256)
def program_of_choice(topology: Topology, collective: str, root: int | None, version: str, algorithm: str, protocol: str, nchannels: int) -> Program:
    """The program of one choice that a tuner could make: "ring" or "tree", a protocol, and how many channels; many sizes share one."""
    plan = _plan(topology, version)
    name = f"nccl-{plan.version.name}-{algorithm}"
    if algorithm == "nvls":
        return nvls_program(plan, collective, nchannels, name)
    channels = plan.trees if algorithm == "tree" else plan.rings
    orders = [channels[c % plan.common_channels] for c in range(nchannels)]
    program = ring_or_chain_program(topology, collective, root, orders, algorithm=algorithm, protocol=protocol, name=name, direct=False)
    across = cross_by_copy if protocol == "LL" else cross_through_memory
    program = across(program, crossed_connections(program, plan.crossings))
    return store_directly(program) if _stores_directly(program, algorithm, protocol) else program


def ring_or_chain_program(
    topology: Topology, collective: str, root: int | None, orders: Chains, *, algorithm: str, protocol: str, name: str, direct: bool = True
) -> Program:
    """An equal share around each of ``orders`` ("ring"), or up and down each as a chain ("tree")."""
    if algorithm == "tree":
        program = _chain_allreduces(topology, orders, name)
    elif root is None:
        program = lower_rings(topology, orders, collective=collective, algorithm=name, slots=_SLOTS)
    else:
        opened = [(*order[order.index(root) :], *order[: order.index(root)]) for order in orders]
        if collective == "broadcast":
            program = chain_broadcasts(topology, opened, name, slots=_SLOTS)
        else:
            program = _chain_reduces(topology, [(*order[1:], order[0]) for order in opened], name)
    program = replace(program, connections=tuple(replace(c, protocol=protocol) for c in program.connections))
    return store_directly(program) if direct and _stores_directly(program, algorithm, protocol) else program


def _stores_directly(program: Program, algorithm: str, protocol: str) -> bool:
    """Between peers, NCCL's simple protocol stores what is complete straight into the output."""
    return protocol == "simple" and algorithm == "ring" and program.collective in ("allreduce", "allgather") and program.nranks > 1


def _across_servers(topology: Topology, collective: str, root: int | None, nbytes: int, version: str, algorithm: str | None) -> Program:
    """The same on several servers; see ``servers.py``."""
    if version not in ("2.30", "2.30.7"):
        raise SimulationError(f"NCCL {version} is rebuilt for one server; 2.30 has programs for several")
    servers.check_domains(topology)
    if collective not in p2p.COLLECTIVES:
        servers.check_ranks(topology.nranks, collective, algorithm)
    elif algorithm is not None:
        raise SimulationError(f"NCCL's {collective} is sends and receives, none by {algorithm}")
    elif collective == "alltoall" and topology.nranks > p2p.MOST_RANKS:
        raise SimulationError(
            f"NCCL's alltoall among {topology.nranks} ranks has no program of the whole, at most {p2p.MOST_RANKS} ranks; on equal servers "
            "without ways over a third GPU's NVLinks run_baseline (blinkcoll simulate --algorithm nccl) simulates one for all"
        )
    plan = servers.plan_servers(topology)
    if collective in p2p.COLLECTIVES:
        nchannels = p2p.channels_per_peer(topology.nranks, [1.0])
        protocol = "LL" if nbytes // topology.nranks <= p2p.LL_THRESHOLD else "simple"
        return p2p.p2p_program(
            topology, collective, root, protocol=protocol, nchannels=nchannels, crossed=plan.crossings, algorithm="nccl-2.30-p2p"
        )
    chosen, protocol = plan.choose(collective, nbytes, algorithm)
    return _built_across(topology, collective, root, chosen, protocol, plan.nchannels(chosen, protocol, nbytes))


def program_across_servers(topology: Topology, collective: str, root: int | None, algorithm: str) -> Program:
    """What NCCL 2.30 runs across servers, by "ring" or "tree", in all of its channels and by the simple protocol.

    Raises
    ------
    SimulationError
        Where NVLink joins the servers, one has no NIC, or the program would take minutes to make or simulate.
    """
    return _built_across(topology, collective, root, algorithm, "simple", 2 * len(servers.plan_servers(topology).rings))


def folded_program(topology: Topology, collective: str, nbytes: int) -> Program | None:
    """What one server does of NCCL 2.30's program on a large cluster of equal servers, for all of them (``rotation.py``).

    None where the cluster is none such or has at most 64 ranks, where a root makes servers unequal, and where the tuner takes trees.
    """
    collective = canonical(collective)
    if topology.nranks <= p2p.MOST_RANKS or collective not in ("allreduce", "allgather", "reducescatter", "alltoall"):
        return None
    rotation = _rotation(topology)
    if rotation is None:
        return None
    plan = servers.plan_servers(topology)
    if collective == "alltoall":
        if plan.crossings:
            return None
        return _folded_alltoall(topology, "LL" if nbytes // topology.nranks <= p2p.LL_THRESHOLD else "simple")
    chosen, protocol = plan.choose(collective, nbytes)
    return None if chosen == "tree" else _folded_rings(topology, collective, protocol, plan.nchannels(chosen, protocol, nbytes))


@lru_cache(maxsize=16)
def _rotation(topology: Topology) -> Rotation | None:
    return rotation_of(topology)


@lru_cache(maxsize=4)
def _folded_alltoall(topology: Topology, protocol: str) -> Program:
    rotation = _rotation(topology)
    assert rotation is not None
    return p2p.folded_alltoall(rotation, protocol=protocol, algorithm="nccl-2.30-p2p")


@lru_cache(maxsize=16)
def _folded_rings(topology: Topology, collective: str, protocol: str, nchannels: int) -> Program | None:
    plan, rotation = servers.plan_servers(topology), _rotation(topology)
    assert rotation is not None
    program = folded_rings(rotation, collective, (plan.rings * 2)[:nchannels], algorithm="nccl-2.30-ring", protocol=protocol, slots=_SLOTS)
    if program is None:
        return None
    networks = {switch.name for switch in topology.switches if switch.kind == "network"}
    crossed = crossed_connections(program, plan.crossings)
    return cross_by_copy(program, {i: middle for i, middle in crossed.items() if networks.isdisjoint(program.connections[i].path)})


@lru_cache(maxsize=16)
def _built_across(topology: Topology, collective: str, root: int | None, algorithm: str, protocol: str, nchannels: int) -> Program:
    plan = servers.plan_servers(topology)
    name = f"nccl-2.30-{algorithm}"
    servers.check_size(topology.nranks, collective, algorithm, nchannels)
    if algorithm == "tree":
        program = servers.with_protocol(servers.trees_across(plan, nchannels, name), protocol)
    else:
        program = ring_or_chain_program(topology, collective, root, (plan.rings * 2)[:nchannels], algorithm=algorithm, protocol=protocol, name=name, direct=False)
    return cross_by_copy(program, crossed_connections(program, plan.crossings))


def _sent(plan: NcclPlan, collective: str, root: int | None, nbytes: int, algorithm: str | None) -> Program:
    """A collective of sends and receives; NCCL has these since 2.7."""
    if algorithm is not None or plan.version.name == "2.4":
        raise SimulationError(f"NCCL {plan.version.release} has no {algorithm or 'sends and receives'} for {collective}")
    return _sent_by(plan.topology, collective, root, plan.version.name, "LL" if nbytes // plan.topology.nranks <= p2p.LL_THRESHOLD else "simple")


@lru_cache(maxsize=64)
def _sent_by(topology: Topology, collective: str, root: int | None, version: str, protocol: str) -> Program:
    plan = _plan(topology, version)
    by_rank = sorted(plan.system.gpus, key=lambda gpu: gpu.rank)
    lane = plan.version.lane_gb_s(plan.system.compute_capability)
    ways = [(by_rank[src], by_rank[dst]) for src, dst in p2p.pairs_of("alltoall", None, topology.nranks)]
    lanes = [plan.paths[way].gb_s / lane if plan.paths.type_name(*way) in ("NVL", "NVB") else 0.0 for way in ways]
    nchannels = p2p.channels_per_peer(topology.nranks, lanes)
    return p2p.p2p_program(
        topology, collective, root, protocol=protocol, nchannels=nchannels, crossed=plan.crossings, algorithm=f"nccl-{plan.version.name}-p2p"
    )


@lru_cache(maxsize=64)
def _plan(topology: Topology, version: str) -> NcclPlan:
    return search(topology, version)


# -- chains -------------------------------------------------------------------------------------------------------------


def _connect(topology: Topology, src: int, dst: int, connections: list[Connection]) -> int:
    connections.append(Connection(src, dst, route(topology, src, dst), _SLOTS))
    return len(connections) - 1


def _chain_reduces(topology: Topology, orders: Chains, algorithm: str) -> Program:
    """Pipelined reduces of an equal share along each order, to its last rank."""
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(topology.nranks)]
    for share, order in enumerate(orders):
        arrives: tuple[int, ...] = ()
        for position, rank in enumerate(order):
            leaves = (_connect(topology, rank, order[position + 1], connections),) if position + 1 < len(order) else ()
            channels[rank].append(_pass_on(share, (INPUT, *map(slot, arrives)), tuple(map(slot, leaves)) or (OUTPUT,), (*arrives, *leaves)))
            arrives = leaves
    return _program(topology, "reduce", orders[0][-1], len(orders), connections, channels, algorithm)


def _chain_allreduces(topology: Topology, orders: Chains, algorithm: str) -> Program:
    """Up each chain to its first rank and down again, an equal share each (NCCL's trees on one server)."""
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(topology.nranks)]
    for share, order in enumerate(orders):
        above: tuple[int, int] | None = None  # connections to and from the rank above
        for position, rank in enumerate(order):
            below = None
            if position + 1 < len(order):
                there = order[position + 1]
                below = (_connect(topology, there, rank, connections), _connect(topology, rank, there, connections))
            up = (INPUT, slot(below[0])) if below else (INPUT,)
            down = (OUTPUT, slot(below[1])) if below else (OUTPUT,)
            if above is None:
                channels[rank].append(_pass_on(share, up, down, below or ()))
            else:
                channels[rank].append(_pass_on(share, up, (slot(above[0]),), (*(below[:1] if below else ()), above[0])))
                channels[rank].append(_pass_on(share, (slot(above[1]),), down, (above[1], *(below[1:] if below else ()))))
            above = below
    return _program(topology, "allreduce", None, len(orders), connections, channels, algorithm)


def _pass_on(share: int, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], syncs: tuple[int, ...]) -> Channel:
    return Channel((Step("copy" if len(srcs) == 1 else "reduce", share, srcs, dsts, wait=syncs, signal=syncs),))


def _program(
    topology: Topology, collective: str, root: int | None, nshares: int, connections: list[Connection],
    channels: list[list[Channel]], algorithm: str,
) -> Program:  # fmt: skip
    return Program(
        algorithm=algorithm,
        collective=collective,
        root=root,
        topology=topology,
        nshards=1,
        weights=(1,) * nshares,
        connections=tuple(connections),
        ranks=tuple(map(tuple, channels)),
    )


# -- crossing GPUs ------------------------------------------------------------------------------------------------------


def crossed_connections(program: Program, crossings: Mapping[tuple[int, int], int]) -> dict[int, int]:
    """The rank that each connection crosses, for those that cross one."""
    pairs = [(connection.src, connection.dst) for connection in program.connections]
    return {i: crossings[pair] for i, pair in enumerate(pairs) if pair in crossings}


def cross_through_memory(program: Program, crossed: Mapping[int, int]) -> Program:
    """``program`` with the data of connection i, for each ``i: rank`` of ``crossed``, in that rank's scratch.

    The connection stays as the pair's signal and credit. Every chunk of the buffer has its own place in the scratch; one
    place may serve several hops of a ring, because the chunk itself passes them one after the other.
    """
    ranks = [list(channels) for channels in program.ranks]
    for i, middle in crossed.items():
        connection, there = program.connections[i], Operand("scratch", rank=middle)
        ranks[connection.src] = [_moved(channel, slot(i), there) for channel in ranks[connection.src]]
        ranks[connection.dst] = [_moved(channel, slot(i), there) for channel in ranks[connection.dst]]
    return replace(program, ranks=tuple(map(tuple, ranks)))


def cross_by_copy(program: Program, crossed: Mapping[int, int]) -> Program:
    """``program`` with connection i, for each ``i: rank`` of ``crossed``, ending at that rank, which copies on.

    It copies what arrives to a second connection, in the order in which the sender sends.
    """
    connections = list(program.connections)
    ranks = [list(channels) for channels in program.ranks]
    for i, middle in crossed.items():
        whole, second = connections[i], len(connections)
        connections[i] = replace(whole, dst=middle, path=(whole.src, middle))
        connections.append(replace(whole, src=middle, path=(middle, whole.dst)))
        ranks[whole.dst] = [_renamed(channel, i, second) for channel in ranks[whole.dst]]
        sent = [step for channel in ranks[whole.src] for step in channel.steps if i in step.signal]
        both = (i, second)
        copies = (Step("copy", s.share, (slot(i),), (slot(second),), wait=both, signal=both, shard=s.shard) for s in sent)
        ranks[middle].append(Channel(tuple(copies)))
    return replace(program, connections=tuple(connections), ranks=tuple(map(tuple, ranks)))


def _moved(channel: Channel, before: Operand, after: Operand) -> Channel:
    """The channel with operand ``after`` in the place of ``before``."""

    def operands(many: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(after if o == before else o for o in many)

    return Channel(tuple(replace(s, srcs=operands(s.srcs), dsts=operands(s.dsts)) for s in channel.steps))


def _renamed(channel: Channel, before: int, after: int) -> Channel:
    """The channel with connection ``before`` called ``after``."""
    moved = _moved(channel, slot(before), slot(after))

    def names(many: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(after if c == before else c for c in many)

    return Channel(tuple(replace(s, wait=names(s.wait), signal=names(s.signal)) for s in moved.steps))
