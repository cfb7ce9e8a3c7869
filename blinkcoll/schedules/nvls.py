"""Plans over switches that copy and add (NVLink SHARP) to programs: every head reads and writes its shards of all ranks.

*Staged* (what any caller can use): ranks copy their inputs into scratch that all of them have registered with one
multicast object; a shard's head has the switch add it up and stores the sum to everybody's scratch, at the same place;
everybody copies it to the output. Three kinds of channel a share, so that the three overlap: "in", "head" and "out".

*Registered*: input and output themselves are registered, and nothing is copied. One channel a share: a rank says that
its buffers are there (they are its caller's before), heads read inputs and write outputs, and the rank waits until all
heads are done. In place is right in both: a place is read and then written by one step of one rank. The switch reads
inputs as they are, so a registered program cannot scale them (averages, pre-multiplied sums): it carries no marks.

No rank may touch a place before its head's signal says so, and no head before all ranks' do: connections that carry
signals only, one each way between every head and every other rank. Scratch is as large as the data, a place for every
chunk, where NCCL reuses a few slots.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from math import ceil, gcd, lcm

from ..errors import ScheduleError
from ..packing.plan import Plan
from ..topology import Topology
from .contract import REDUCING, SHARDED
from .program import INPUT, OUTPUT, SCALED_INPUT, SCRATCH, After, Channel, Connection, Operand, Program, Step, multicast
from .trees import CHANNEL_GB_S, MAX_CHANNELS

#: Heads of unequal rates get shards in proportion; more than this many are not cut.
MOST_SHARDS = 256


def lower_nvls(
    plan: Plan, *, registered: bool = False, slots: int = 4, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S,
    chunk_bytes: int = 1 << 19,
) -> Program:  # fmt: skip
    """The program of a plan by ``method="nvls"``.

    Parameters
    ----------
    registered
        Whether callers have registered input and output with a multicast object of all ranks.

    Raises
    ------
    ScheduleError
        Where the plan's trees use no switch, ``max_channels`` has no room for a share, or the heads' rates are in no
        proportion that few shards can have.
    """
    if not plan.trees or any(tree.switch is None for tree in plan.trees):
        raise ScheduleError(f"a plan for {plan.collective} by method {plan.method!r} uses no switch that copies or adds")
    owners = _owners(plan)
    switch = plan.trees[0].switch
    assert switch is not None
    per_share = lower_groups(plan.topology, plan.collective, plan.root, owners, switch, 1, registered=registered).nchannels
    if max_channels < per_share:
        raise ScheduleError(f"a share over a switch runs {per_share} channels a rank, max_channels is {max_channels}")
    # A head's channel has its own shards' part of the data (twice, in and out); the others' copy all of it.
    busiest = 2 * plan.rate * max(map(owners.count, owners)) / len(owners) if registered else plan.rate
    nshares = min(max_channels // per_share, max(1, ceil(busiest / channel_gb_s)))
    program = lower_groups(plan.topology, plan.collective, plan.root, owners, switch, nshares, registered=registered, slots=slots)
    return program.with_chunk_bytes(chunk_bytes)


def lower_groups(
    topology: Topology, collective: str, root: int | None, owners: Sequence[int], switch: str, nshares: int, *,
    registered: bool = False, slots: int = 4, algorithm: str = "nvls",
) -> Program:  # fmt: skip
    """The program in which shard i of a collective is added, or copied to all ranks, for rank ``owners[i]``.

    Parameters
    ----------
    owners
        The shards' heads; a head's shards are neighbours.
    switch
        What the signals between the ranks cross.
    nshares
        Equal parts of every shard, each with channels of its own: one a rank if ``registered``, else up to three.
    """
    builder = _Builder(topology.nranks, collective, list(owners), switch, slots)
    for share in range(nshares):
        builder.add(share, registered)
    return Program(
        algorithm=f"{algorithm}-registered" if registered else algorithm,
        collective=collective,
        root=root,
        topology=topology,
        nshards=len(owners),
        weights=(1,) * nshares,
        connections=tuple(builder.connections),
        ranks=tuple(map(tuple, builder.channels)),
    )


def _owners(plan: Plan) -> list[int]:
    """The head of every shard: the rank whose it is, the root, or each head as often as its rate says."""
    n = plan.topology.nranks
    if plan.collective in SHARDED:
        return list(range(n))
    rates: dict[int, Fraction] = defaultdict(Fraction)
    for tree in plan.trees:
        rates[tree.root] += tree.rate
    scale = lcm(*(rate.denominator for rate in rates.values()))
    whole = {head: int(rate * scale) for head, rate in sorted(rates.items())}
    common = gcd(*whole.values())
    if sum(whole.values()) // common > MOST_SHARDS:
        raise ScheduleError(f"heads at rates {', '.join(str(rates[h]) for h in whole)} need {sum(whole.values()) // common} equal shards, at most {MOST_SHARDS} are cut")
    return [head for head, times in whole.items() for _ in range(times // common)]


class _Builder:
    """Connections and channels as shares are added."""

    def __init__(self, nranks: int, collective: str, owners: list[int], switch: str, slots: int) -> None:
        self.n, self.owners, self.switch, self.slots = nranks, owners, switch, slots
        self.heads = sorted(set(owners))
        self.reduces, self.spreads = collective in REDUCING, collective not in ("reduce", "reducescatter")
        self.connections: list[Connection] = []
        self.channels: list[list[Channel]] = [[] for _ in range(self.n)]

    def add(self, share: int, registered: bool) -> None:
        """A share: what every rank does for it."""
        ready = self._signals(towards=True)
        done = self._signals(towards=False)
        for rank in range(self.n):
            if registered:
                self.channels[rank].append(Channel(self._registered(rank, share, ready, done)))
            else:
                self._staged(rank, share, ready, done)

    def _signals(self, towards: bool) -> dict[tuple[int, int], int]:
        """(head, other rank) to a connection over the switch that carries signals only, towards the head or from it."""
        made = {}
        for head in self.heads:
            for rank in range(self.n):
                if rank != head:
                    made[head, rank] = len(self.connections)
                    src, dst = (rank, head) if towards else (head, rank)
                    self.connections.append(Connection(src, dst, (src, self.switch, dst), self.slots))
        return made

    def _registered(self, rank: int, share: int, ready: dict[tuple[int, int], int], done: dict[tuple[int, int], int]) -> tuple[Step, ...]:
        tells = tuple(ready[head, rank] for head in self.heads if head != rank)
        hears = tuple(done[head, rank] for head in self.heads if head != rank)
        steps = [Step("nop", share, wait=tells, signal=tells)] if tells else []
        src, dst = (multicast("input") if self.reduces else INPUT), (multicast("output") if self.spreads else OUTPUT)
        steps += self._head_steps(rank, share, src, (dst,), ready, done, ())
        if hears:
            steps.append(Step("nop", share, wait=hears, signal=hears))
        return tuple(steps)

    def _staged(self, rank: int, share: int, ready: dict[tuple[int, int], int], done: dict[tuple[int, int], int]) -> None:
        comes = self._in_steps(rank, share, ready)
        channel = len(self.channels[rank])
        if comes:
            self.channels[rank].append(Channel(comes))
        if rank in self.heads:
            own = tuple((After(channel, i),) for i in range(len(comes))) if self.reduces else ()
            src, dsts = (multicast("scratch") if self.reduces else INPUT), ((OUTPUT, multicast("scratch")) if self.spreads else (OUTPUT,))
            self.channels[rank].append(Channel(tuple(self._head_steps(rank, share, src, dsts, ready, done, own))))
        leaves = self._out_steps(rank, share, done)
        if leaves:
            self.channels[rank].append(Channel(leaves))

    def _in_steps(self, rank: int, share: int, ready: dict[tuple[int, int], int]) -> tuple[Step, ...]:
        """A rank's part into scratch, or only word that its scratch is free."""
        if not self.reduces:
            tells = tuple(ready[head, rank] for head in self.heads if head != rank)
            return (Step("nop", share, wait=tells, signal=tells),) if tells else ()
        steps = []
        for shard, head in enumerate(self.owners):
            tells = (ready[head, rank],) if head != rank else ()
            steps.append(
                Step("copy", share, (SCALED_INPUT,), (SCRATCH,), shard=shard, wait=self._at_first(shard, head, tells), signal=self._at_last(shard, head, tells))
            )
        return tuple(steps)

    def _head_steps(
        self, rank: int, share: int, src: Operand, dsts: tuple[Operand, ...], ready: dict[tuple[int, int], int], done: dict[tuple[int, int], int],
        own: tuple[tuple[After, ...], ...],
    ) -> list[Step]:  # fmt: skip
        """The shards of a head, each from all ranks or to all ranks; the first waits for the others, the last tells them."""
        if rank not in self.heads:
            return []
        others = [other for other in range(self.n) if other != rank]
        touched = (*(ready[rank, other] for other in others), *(done[rank, other] for other in others))
        steps = []
        scaled = self.reduces and src.region == "scratch"
        for shard, head in enumerate(self.owners):
            if head == rank:
                steps.append(
                    Step(
                        "reduce" if self.reduces else "copy", share, (src,), dsts, shard=shard, postscaled=scaled, after=own[shard] if own else (),
                        wait=self._at_first(shard, head, touched), signal=self._at_last(shard, head, touched),
                    )
                )  # fmt: skip
        return steps

    def _out_steps(self, rank: int, share: int, done: dict[tuple[int, int], int]) -> tuple[Step, ...]:
        """What heads have stored into this rank's scratch, to its output; or only word that they are done with it."""
        if not self.spreads:
            hears = tuple(done[head, rank] for head in self.heads if head != rank)
            return (Step("nop", share, wait=hears, signal=hears),) if hears else ()
        steps = []
        for shard, head in enumerate(self.owners):
            if head != rank:
                hears = (done[head, rank],)
                steps.append(
                    Step("copy", share, (SCRATCH,), (OUTPUT,), shard=shard, wait=self._at_first(shard, head, hears), signal=self._at_last(shard, head, hears))
                )
        return tuple(steps)

    def _at_first(self, shard: int, head: int, names: tuple[int, ...]) -> tuple[int, ...]:
        """``names`` at a head's first shard only."""
        return names if shard == self.owners.index(head) else ()

    def _at_last(self, shard: int, head: int, names: tuple[int, ...]) -> tuple[int, ...]:
        """``names`` at a head's last shard only: its shards are neighbours."""
        return names if shard + 1 == len(self.owners) or self.owners[shard + 1] != head else ()
