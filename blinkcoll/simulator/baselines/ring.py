"""A ring in rank order, as baidu-allreduce (2017) ran it: no search, whatever the links are; and rings' other forms.

Each ring runs in two channels, each with half of the data: a ring's next step depends on what its neighbour has just
sent, and while one half waits for that the other uses the link, as NCCL's slices do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ...errors import SimulationError
from ...schedules.program import INPUT, OUTPUT, Channel, Connection, Operand, Program, Step, slot
from ...schedules.rings import lower_rings
from ...topology import Topology, route

#: Channels a ring.
COPIES = 2
#: What the programs are called.
ALGORITHM = "baidu-ring"


def rank_order_ring(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The ring all-reduce, or the broadcast along the chain root, root + 1 ... (mod n), in rank order.

    Raises
    ------
    SimulationError
        For another collective, or a broadcast without a root.
    TopologyError
        Where nothing leads from a rank to the next.
    """
    del nbytes  # the same at every size
    return _rank_order(topology, collective, root)


@lru_cache(maxsize=64)
def _rank_order(topology: Topology, collective: str, root: int | None) -> Program:
    order = list(range(topology.nranks))
    if collective == "allreduce":
        return lower_rings(topology, [order] * COPIES, algorithm=ALGORITHM)
    if collective != "broadcast":
        raise SimulationError(f"{ALGORITHM} has no {collective}")
    if root is None or not 0 <= root < topology.nranks:
        raise SimulationError(f"a broadcast needs a root among ranks 0..{topology.nranks - 1}, got {root}")
    return chain_broadcasts(topology, [order[root:] + order[:root]] * COPIES, ALGORITHM)


def chain_broadcasts(topology: Topology, orders: Sequence[Sequence[int]], algorithm: str, *, slots: int = 4) -> Program:
    """Pipelined broadcasts of an equal share along each of ``orders``, from its first rank through all others.

    Raises
    ------
    SimulationError
        Where the orders do not start at one rank.
    """
    if len({order[0] for order in orders}) != 1:
        raise SimulationError(f"the chains of a broadcast start at its root, these at {sorted({order[0] for order in orders})}")
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(topology.nranks)]
    for share, order in enumerate(orders):
        arrives: tuple[int, ...] = ()
        for position, rank in enumerate(order):
            leaves: tuple[int, ...] = ()
            if position + 1 < len(order):
                leaves = (len(connections),)
                connections.append(Connection(rank, order[position + 1], route(topology, rank, order[position + 1]), slots))
            srcs: tuple[Operand, ...] = tuple(map(slot, arrives)) or (INPUT,)
            syncs = (*arrives, *leaves)
            channels[rank].append(Channel((Step("copy", share, srcs, (OUTPUT, *map(slot, leaves)), wait=syncs, signal=syncs),)))
            arrives = leaves
    return Program(
        algorithm=algorithm,
        collective="broadcast",
        root=orders[0][0],
        topology=topology,
        nshards=1,
        weights=(1,) * len(orders),
        connections=tuple(connections),
        ranks=tuple(map(tuple, channels)),
    )


def store_directly(program: Program) -> Program:
    """A ring all-reduce or all-gather whose all-gather hops store into the next rank's output, as NCCL's do between peers.

    A rank then has nothing left to do for what it only receives. That is allowed even where output and input are the same
    buffer: a complete shard reaches a rank only after that rank's own part went into it. Hops that already lead through
    other memory than a slot stay as they are.
    """
    n = program.nranks
    first = n - 1 if program.collective == "allgather" else 0  # the hop that a channel's first step is

    def complete(hop: int, step: Step) -> Step:
        """Steps from hop n - 1 on carry complete shards; those from hop n on received them."""
        arrived = hop >= n and all(o.connection is not None for o in step.srcs)
        srcs = (OUTPUT,) if arrived else step.srcs
        dsts = tuple(
            o if o.connection is None else Operand("output", rank=program.connections[o.connection].dst)
            for o in step.dsts
            if not (arrived and o == OUTPUT)
        )
        return replace(step, srcs=srcs, dsts=dsts) if dsts else replace(step, op="nop", srcs=(), dsts=())

    if program.collective not in ("allreduce", "allgather") or program.nshards != n:
        raise SimulationError(f"{program.algorithm}: only a ring all-reduce or all-gather has all-gather hops, this is {program.collective} in {program.nshards} shards")
    return replace(
        program,
        ranks=tuple(
            tuple(
                Channel(tuple(step if hop < n - 1 else complete(hop, step) for hop, step in enumerate(channel.steps, first)))
                for channel in channels
            )
            for channels in program.ranks
        ),
    )
