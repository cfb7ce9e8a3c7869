"""Two-shot all-reduce: every rank adds up one shard of everybody's input and sends the sum to everybody.

Two steps of latency and a ring's traffic, where every pair has a link or a switch between them.
"""

from __future__ import annotations

from ..topology import Topology, route
from .program import OUTPUT, SCALED_INPUT, Channel, Connection, Program, Step, slot
from .split import split_wide_steps


def lower_two_shot(topology: Topology, *, shares: int = 1, slots: int = 2, chunk_bytes: int = 1 << 19, staged: bool = False) -> Program:
    """The all-reduce of two exchanges, in ``shares`` channels a rank.

    ``staged``: in three channels a share, one for each of giving, adding and taking, the last one first. A thread that takes turns
    among its channels then has chunks under way while it adds up others.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to another.
    """
    n = topology.nranks
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(n)]
    for share in range(shares):
        number: dict[tuple[int, int, int], int] = {}  # phase, from, to
        for phase in range(2):
            for a in range(n):
                for b in range(n):
                    if a != b:
                        number[phase, a, b] = len(connections)
                        connections.append(Connection(a, b, route(topology, a, b), slots))
        for rank in range(n):
            stages = _stages(rank, n, share, number)
            channels[rank] += [Channel(stage) for stage in reversed(stages) if stage] if staged else [Channel(sum(stages, ()))]
    program = Program(
        algorithm="two-shot", collective="allreduce", topology=topology, nshards=n, weights=(1,) * shares,
        connections=tuple(connections), ranks=tuple(map(tuple, channels)), chunk_bytes=chunk_bytes,
    )  # fmt: skip
    return split_wide_steps(program)


def _stages(rank: int, n: int, share: int, number: dict[tuple[int, int, int], int]) -> list[tuple[Step, ...]]:
    """Others' shards to who adds them up, this rank's added up and given to all, others' sums from who has them."""
    others = [(rank + i) % n for i in range(1, n)]
    giving, taking = [], []
    for other in others:
        leaves = number[0, rank, other]
        giving.append(Step("copy", share, (SCALED_INPUT,), (slot(leaves),), wait=(leaves,), signal=(leaves,), shard=other))
    inputs = tuple(SCALED_INPUT if other == rank else slot(number[0, other, rank]) for other in range(n))
    out = tuple(number[1, rank, other] for other in others)
    touched = (*(number[0, other, rank] for other in others), *out)
    op = "reduce" if n > 1 else "copy"
    adding = Step(op, share, inputs, (OUTPUT, *map(slot, out)), wait=touched, signal=touched, shard=rank, postscaled=True)
    for other in reversed(others):
        arrives = number[1, other, rank]
        taking.append(Step("copy", share, (slot(arrives),), (OUTPUT,), wait=(arrives,), signal=(arrives,), shard=other))
    return [tuple(giving), (adding,), tuple(taking)]
