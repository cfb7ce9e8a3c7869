"""One-shot all-reduce: every rank sends its whole input to every other, and each adds all of them up by itself.

One step of latency and n - 1 times the traffic: for the smallest sizes.
"""

from __future__ import annotations

from ..topology import Topology, route
from .program import OUTPUT, SCALED_INPUT, Channel, Connection, Program, Step, slot
from .split import split_wide_steps


def lower_one_shot(topology: Topology, *, shares: int = 1, slots: int = 2, chunk_bytes: int = 1 << 19) -> Program:
    """The all-reduce of one exchange, in ``shares`` channels a rank.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to another.
    """
    n = topology.nranks
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(n)]
    for share in range(shares):
        number: dict[tuple[int, int], int] = {}
        for a in range(n):
            for b in range(n):
                if a != b:
                    number[a, b] = len(connections)
                    connections.append(Connection(a, b, route(topology, a, b), slots))
        for rank in range(n):
            leaves = tuple(number[rank, other] for other in range(n) if other != rank)
            arrives = tuple(number[other, rank] for other in range(n) if other != rank)
            # In the order of ranks everywhere, so that all get the same bits.
            inputs = tuple(SCALED_INPUT if other == rank else slot(number[other, rank]) for other in range(n))
            send = Step("copy", share, (SCALED_INPUT,), tuple(map(slot, leaves)), wait=leaves, signal=leaves)
            add = Step("reduce" if n > 1 else "copy", share, inputs, (OUTPUT,), wait=arrives, signal=arrives, postscaled=True)
            channels[rank].append(Channel((send, add) if n > 1 else (add,)))
    program = Program(
        algorithm="one-shot", collective="allreduce", topology=topology, nshards=1, weights=(1,) * shares,
        connections=tuple(connections), ranks=tuple(map(tuple, channels)), chunk_bytes=chunk_bytes,
    )  # fmt: skip
    return split_wide_steps(program)
