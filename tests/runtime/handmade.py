"""Programs that no lowering makes: `after` with and without lag, several shares, peers' memory, signals
without data, one slot, a rank without channels."""

from __future__ import annotations

import blinkcoll as bc
from blinkcoll.schedules import INPUT, OUTPUT, SCRATCH, After, Channel, Connection, Operand, Program, Step, slot


def _topology(n: int):
    return bc.load_topology("dgx1-v100").subset(range(n))


def _connect(a: int, b: int) -> Connection:
    return Connection(a, b, (a, b), 1)


def split_root(lag: int | None = None) -> Program:
    """Rank 0 gathers into scratch in one channel and answers from another, ordered by `after` only."""
    held_back = () if lag is None else (After(1, 0, lag),)
    reduce = Step("reduce", 0, (INPUT, slot(0)), (SCRATCH,), wait=(0,), signal=(0,), after=held_back)
    answer = Step("copy", 0, (SCRATCH,), (OUTPUT, slot(1)), wait=(1,), signal=(1,), after=(After(0, 0),))
    send = Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,))
    receive = Step("copy", 0, (slot(1),), (OUTPUT,), wait=(1,), signal=(1,))
    ranks = ((Channel((reduce,)), Channel((answer,))), (Channel((send,)), Channel((receive,))))
    return Program("split root", "allreduce", _topology(2), 1, (1,), (_connect(1, 0), _connect(0, 1)), ranks)


def one_shot() -> Program:
    """Each rank tells the other that its input is ready, adds both inputs where they lie, and tells when it is done."""
    connections = tuple(_connect(a, b) for a, b in ((0, 1), (1, 0), (0, 1), (1, 0)))

    def channel(rank: int) -> Channel:
        tell, hear, done, peer_done = (0, 1, 2, 3) if rank == 0 else (1, 0, 3, 2)
        inputs = tuple(INPUT if r == rank else Operand("input", rank=r) for r in range(2))
        return Channel((
            Step("nop", 0, wait=(tell,), signal=(tell,)),
            Step("reduce", 0, inputs, (SCRATCH,), wait=(hear, done), signal=(hear, done)),
            Step("copy", 0, (SCRATCH,), (OUTPUT,), wait=(peer_done,), signal=(peer_done,)),
        ))  # fmt: skip

    return Program("one-shot", "allreduce", _topology(2), 1, (1,), connections, ((channel(0),), (channel(1),)))


def several_shares() -> Program:
    """Three shares of unequal weight, so their channels end at different times; one slot."""
    connections: list[Connection] = []
    channels: dict[str, list[Step]] = {name: [] for name in ("root", "up1", "up2", "down1", "down2")}

    def step(name: str, share: int, srcs, dsts, syncs, after=()) -> None:
        op = "copy" if len(srcs) == 1 else "reduce"
        channels[name].append(Step(op, share, srcs, dsts, wait=syncs, signal=syncs, after=after))

    for share in range(3):
        a, b, c, d = range(len(connections), len(connections) + 4)
        connections += [_connect(1, 0), _connect(2, 0), _connect(0, 1), _connect(0, 2)]
        step("root", share, (INPUT, slot(a), slot(b)), (OUTPUT, slot(c), slot(d)), (a, b, c, d))
        step("up1", share, (INPUT,), (slot(a),), (a,))
        step("up2", share, (INPUT,), (slot(b),), (b,))
        step("down1", share, (slot(c),), (OUTPUT,), (c,), after=(After(share, 0, 1),))
        step("down2", share, (slot(d),), (OUTPUT,), (d,))
    made = {name: tuple(Channel((step,)) for step in steps) for name, steps in channels.items()}
    ranks = (made["root"], (*made["up1"], *made["down1"]), (*made["up2"], *made["down2"]))
    return Program("several shares", "allreduce", _topology(3), 1, (5, 1, 2), tuple(connections), ranks)


def idle_rank() -> Program:
    """Rank 0 reads rank 1's input where it lies; rank 1 runs nothing."""
    add = Step("reduce", 0, (INPUT, Operand("input", rank=1)), (OUTPUT,))
    return Program("idle rank", "reduce", _topology(2), 1, (1,), (), ((Channel((add,)),), ()), root=0)


def relay() -> Program:
    """Data goes through peers' scratch; connections only signal, and `after` takes the news to another channel."""
    first = Step("copy", 0, (INPUT,), (OUTPUT, Operand("scratch", rank=1)), wait=(0,), signal=(0,))
    pass_on = Step("copy", 0, (SCRATCH,), (OUTPUT, Operand("scratch", rank=2)), wait=(1,), signal=(1,), after=(After(0, 0),))
    keep = Step("copy", 0, (SCRATCH,), (OUTPUT,), after=(After(0, 0),))
    hear = [Channel((Step("nop", 0, wait=(c,), signal=(c,)),)) for c in (0, 1)]
    ranks = ((Channel((first,)),), (hear[0], Channel((pass_on,))), (hear[1], Channel((keep,))))
    return Program("relay", "broadcast", _topology(3), 1, (1,), (_connect(0, 1), _connect(1, 2)), ranks, root=0)


HANDMADE = {
    "split root": split_root(),
    "split root, held back": split_root(lag=2),
    "one-shot": one_shot(),
    "several shares": several_shares(),
    "idle rank": idle_rank(),
    "relay": relay(),
}
