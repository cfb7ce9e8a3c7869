"""What a simulation returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..cost.factors import algbw_gb_s, busbw_gb_s


@dataclass(frozen=True)
class StepRecord:
    """One step that a channel ran. Times in µs from the call.

    ``ready_us``: its channel was free; ``start_us``: its waits had come true and its synchronisation was paid;
    ``end_us``: its data was stored. ``cause`` says what it waited for last: ``start``, ``channel`` (its own step
    before), ``arrival``, ``credit`` or ``after``; ``cause_index`` is that step's place in the trace, or None.
    """

    rank: int
    channel: int
    step: int
    iteration: int
    ready_us: float
    start_us: float
    end_us: float
    nbytes: int
    cause: str
    cause_index: int | None


@dataclass(frozen=True)
class SimulationResult:
    """The simulated run of a program.

    Parameters
    ----------
    time_us
        From the call to its completion, for one call alone.
    period_us
        What each of many calls takes that follow one another on a stream, which is what nccl-tests prints: a rank that is
        done begins the next call while others still wait for this one's data.
    link_bytes
        Bytes on the wire per directed pair of vertices that the program uses (ranks as ints, switches by name).
    link_utilisation
        Those bytes over what the link could have carried in that time.
    nsteps
        Chunk-steps run.
    trace
        Every step run, in order of their ends, where a trace was asked for.
    """

    collective: str
    nranks: int
    nbytes: int
    chunk_bytes: int
    time_us: float
    period_us: float
    link_bytes: dict[tuple[int | str, int | str], float] = field(repr=False)
    link_utilisation: dict[tuple[int | str, int | str], float] = field(repr=False)
    nsteps: int
    trace: tuple[StepRecord, ...] | None = field(default=None, repr=False)

    def back_to_back(self) -> SimulationResult:
        """The same with ``period_us`` as its time: a call among many, as nccl-tests measures."""
        used = {hop: part * self.time_us / self.period_us for hop, part in self.link_utilisation.items()} if self.period_us > 0 else self.link_utilisation
        return replace(self, time_us=self.period_us, link_utilisation=used)

    @property
    def algbw(self) -> float:
        """Size over time, GB/s."""
        return algbw_gb_s(self.nbytes, self.time_us)

    @property
    def busbw(self) -> float:
        """Algbw times the collective's factor, GB/s."""
        return busbw_gb_s(self.collective, self.nranks, self.nbytes, self.time_us)
