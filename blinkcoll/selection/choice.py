"""``bc.select``: the predicted-fastest program for a size, with its reasons."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import PackingError
from ..packing import Plan
from ..packing.collectives import canonical, check_root
from ..schedules import Program
from ..topology import Topology
from .budget import default_channels
from .candidates import Request
from .table import Table, table_for


@dataclass(frozen=True)
class Selection:
    """The program chosen for a size.

    Parameters
    ----------
    collective, nbytes
        What was asked for.
    algorithm
        The candidate's name, with its protocol where that is not the simple one.
    program
        Verified, with the chunk size for ``nbytes``.
    plan
        The plan it was lowered from; None where a classic family was chosen.
    time_us
        Simulated time of ``nbytes``, µs.
    """

    collective: str
    nbytes: int
    algorithm: str
    program: Program
    plan: Plan | None
    time_us: float
    _table: Table = field(repr=False, compare=False)
    _chosen: int = field(repr=False, compare=False)

    def explain(self) -> str:
        """The candidates by their simulated times (or what they take at least), and why this one."""
        contest = self._table.contest
        best = contest.winner(self.nbytes)
        lines, rows = [], []
        for i in contest.allowed:
            candidate = contest.candidates[i]
            floor = contest.floor_us(i, self.nbytes)
            skipped = floor > contest.time_us(best, self.nbytes) and i != self._chosen
            time = floor if skipped else contest.time_us(i, self.nbytes)
            rows.append((time, i, skipped, candidate))
        chosen = contest.candidates[self._chosen]
        kind = "a plan of blinkcoll's" if chosen.plan is not None else "a classic family"
        lines.append(f"{self.collective} of {self.nbytes} bytes, {contest.request.topology.nranks} ranks: {chosen.name}, {kind}, {self.time_us:.2f} us (simulated)")
        for time, i, skipped, candidate in sorted(rows, key=lambda row: (row[0], row[1])):
            mark = "*" if i == self._chosen else " "
            plan = candidate.plan
            planned = f"planned {float(plan.rate):.2f} of {float(plan.bound):.2f} GB/s" if plan is not None else "classic"
            took = f"at least {time:.2f} us by links, channels or depth: not simulated" if skipped else f"{time:.2f} us"
            lines.append(f"{mark} {candidate.name:<28} {candidate.draft.program.nchannels:>3} channels  {planned:<32} {took}")
        lines += [f"  no {reason}" for reason in contest.refused]
        if best != self._chosen:
            lines.append(
                f"The table has thresholds between powers of two; at this very size {contest.candidates[best].name} would take "
                f"{contest.time_us(best, self.nbytes):.2f} us."
            )
        return "\n".join(lines)


def select(topology: Topology, collective: str, nbytes: int, *, root: int | None = None, max_channels: int | None = None) -> Selection:
    """The predicted-fastest program for a size, among blinkcoll's plans and the classic families.

    Parameters
    ----------
    topology
        The machine, or the part of it that a job got; rank i is ``topology.devices[i]``.
    collective
        One of the eight; underscored forms are accepted.
    nbytes
        The collective's size as nccl-tests counts it.
    root
        A rank, for broadcast, reduce, gather and scatter.
    max_channels
        The most channels (thread blocks on a GPU) that any rank may run; 32 where it is None, and over switches that add
        (NVLink SHARP) as many as NCCL takes there: 48 on Hopper, 72 on Blackwell.

    Raises
    ------
    PackingError
        Where no candidate fits, or the arguments are wrong.

    Notes
    -----
    Everything read is the same on all ranks, so all choose alike. The choice comes from a table of size thresholds, which is
    computed as sizes ask for it and kept: the first call for a topology takes tenths of a second, later ones microseconds
    to milliseconds. Times are simulated, at planning rates.

    Examples
    --------
    >>> import blinkcoll as bc
    >>> bc.select(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce", 64 << 20).plan.rate
    Fraction(20, 1)
    """
    name = canonical(collective)
    rank = check_root(name, root, topology.nranks)
    if max_channels is None:
        max_channels = default_channels(topology)
    if nbytes < 0 or max_channels < 1:
        raise PackingError(f"expected nbytes >= 0 and max_channels >= 1, got {nbytes} and {max_channels}")
    table = table_for(Request(topology, name, rank, max_channels))
    i = table.choose(nbytes)
    contest = table.contest
    candidate = contest.candidates[i]
    program = candidate.program.with_chunk_bytes(contest.chunk_bytes(i, nbytes))
    return Selection(name, nbytes, candidate.name, program, candidate.plan, contest.time_us(i, nbytes), table, i)
