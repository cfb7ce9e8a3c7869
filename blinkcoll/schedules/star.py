"""Stars: one rank hands to, or gathers from, all others at once; one hop, for the smallest sizes.

A barrier over a star takes two hops, which is what counts where ranks share cores: each is waited for once.
"""

from __future__ import annotations

from ..errors import ScheduleError
from ..topology import Topology, route
from .program import INPUT, OUTPUT, SCALED_INPUT, Channel, Connection, Program, Step, slot
from .split import split_wide_steps


def lower_star(topology: Topology, collective: str, root: int | None = None, *, slots: int = 2, chunk_bytes: int = 1 << 13) -> Program:
    """The broadcast, reduce or barrier (then round rank 0) in one channel a rank.

    Raises
    ------
    ScheduleError
        Where it is another collective.
    TopologyError
        Where nothing leads from a rank to another.
    """
    if collective not in ("broadcast", "reduce", "barrier"):
        raise ScheduleError(f"no star for {collective}; known: broadcast, reduce, barrier")
    n, hub = topology.nranks, root or 0
    others = [rank for rank in range(n) if rank != hub]
    connections: list[Connection] = []

    def joined(pairs: list[tuple[int, int]]) -> tuple[int, ...]:
        first = len(connections)
        connections.extend(Connection(a, b, route(topology, a, b), slots) for a, b in pairs)
        return tuple(range(first, len(connections)))

    steps: list[list[Step]] = [[] for _ in range(n)]
    if collective in ("reduce", "barrier"):
        arrive = joined([(other, hub) for other in others])
        at = dict(zip(others, arrive, strict=True))
        for other in others:
            steps[other].append(_send(collective, at[other]))
        inputs = tuple(SCALED_INPUT if rank == hub else slot(at[rank]) for rank in range(n))
        if collective == "barrier":
            steps[hub].append(Step("nop", 0, wait=arrive, signal=arrive))
        else:
            steps[hub].append(Step("reduce" if n > 1 else "copy", 0, inputs, (OUTPUT,), wait=arrive, signal=arrive, postscaled=True))
    if collective in ("broadcast", "barrier"):
        leave = joined([(hub, other) for other in others])
        carried = collective == "broadcast"
        steps[hub].append(Step("copy" if carried else "nop", 0, (INPUT,) * carried, (*map(slot, leave), OUTPUT) if carried else (), wait=leave, signal=leave))
        for other, c in zip(others, leave, strict=True):
            steps[other].append(Step("copy" if carried else "nop", 0, (slot(c),) * carried, (OUTPUT,) * carried, wait=(c,), signal=(c,)))
    program = Program(
        algorithm="star", collective=collective, topology=topology, nshards=1, weights=(1,), connections=tuple(connections),
        ranks=tuple((Channel(tuple(of_rank)),) for of_rank in steps), root=root, chunk_bytes=chunk_bytes,
    )  # fmt: skip
    return split_wide_steps(program)


def _send(collective: str, c: int) -> Step:
    carried = collective == "reduce"
    return Step("copy" if carried else "nop", 0, (SCALED_INPUT,) * carried, (slot(c),) * carried, wait=(c,), signal=(c,))
