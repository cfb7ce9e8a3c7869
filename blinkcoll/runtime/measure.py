"""One rank's part of a measured run: results checked against numpy, then timed as nccl-tests does.

nccl-tests (its ``src/common.cu``): some calls to warm up, a barrier, then so many calls in a row; a rank's time is theirs over
their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schedules.contract import REDUCING
from .knownanswers import Array, Case, as_argument, count_wrong, expected_output, held, make_input

if TYPE_CHECKING:
    from ..communicator import Communicator
    from .store import Store

#: What outputs hold before a call.
_JUNK = 0xA5
#: The communicator's method of a collective.
METHODS = {
    "allreduce": "all_reduce", "reduce": "reduce", "broadcast": "broadcast", "allgather": "all_gather", "reducescatter": "reduce_scatter",
    "gather": "gather", "scatter": "scatter", "alltoall": "all_to_all",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What one rank found: µs a call, and how many elements of its output were wrong."""

    time_us: float
    wrong: int


def placements(collective: str) -> tuple[bool, ...]:
    """Whether a collective is measured in place, for each way that the communicator has of calling it."""
    return (True,) if collective == "broadcast" else (False, True)


def describe_job(cases: Sequence[Case], warmups: int, iterations: int, timeout_s: float) -> dict[str, Any]:
    """What :func:`run_job` is told."""
    return {"cases": [asdict(case) for case in cases], "warmups": warmups, "iterations": iterations, "timeout_s": timeout_s}


def run_job(rank: int, nranks: int, store: Store, job: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """A rank's process of a measured run: rank 0 says what it runs on, every rank what it found, case by case."""
    from ..communicator import Communicator

    with Communicator(rank, nranks, store, timeout_s=job["timeout_s"]) as comm:
        host = comm._host
        if rank == 0:
            say({"topology": {"name": host.topology.name, "fingerprint": host.topology.fingerprint}, "direct": host.direct})
        for number, described in enumerate(job["cases"]):
            case = Case(**described)
            for in_place in placements(case.collective):
                found = measure(comm, case, in_place, job["warmups"], job["iterations"])
                program = host.program(host.calls.last)
                say({"case": number, "in_place": in_place, "algorithm": program.algorithm, "program": program.hash} | asdict(found))


def measure(comm: Communicator, case: Case, in_place: bool, warmups: int, iterations: int) -> Measured:
    """Check and time one case on this rank; all ranks call it together.

    Parameters
    ----------
    comm
        The ranks.
    case
        What is called. ``count`` is positive, and a multiple of the world size where a collective has a shard a rank.
    in_place
        Without an output of its own.
    warmups, iterations
        Calls before the clock starts, and while it runs.

    Returns
    -------
    Measured
        This rank's time and its own wrong elements.
    """
    call, fill, got = _prepare(comm, case, in_place)
    fill()
    call()
    wrong = count_wrong(got, expected_output(case, comm.rank, comm.world_size))
    fill()
    for _ in range(warmups):
        call()
    comm.barrier()
    began = time.perf_counter_ns()
    for _ in range(iterations):
        call()
    return Measured((time.perf_counter_ns() - began) / iterations / 1e3, wrong)


def _prepare(comm: Communicator, case: Case, in_place: bool) -> tuple[Callable[[], object], Callable[[], None], Array]:
    """The call, what puts its input in place (and something else where its output goes), and its output."""
    rank, n = comm.rank, comm.world_size
    source, target = held(case, "input", rank, n), held(case, "output", rank, n)
    parts = [part for part in (source, target) if part.stop > part.start]
    options: dict[str, Any] = {"op": case.op} if case.collective in REDUCING else {}
    if in_place or len(parts) < 2:
        begin = min(part.start for part in parts)
        memory = np.empty(max(part.stop for part in parts) - begin, case.storage)
        given, got = (memory[max(part.start - begin, 0) : max(part.stop - begin, 0)] for part in (source, target))
    else:
        given, got = (np.empty(part.stop - part.start, case.storage) for part in parts)
        memory = given
        options["out"] = as_argument(got, case.dtype)
    array = as_argument(memory, case.dtype)
    arguments = () if case.root is None else (case.root,)
    method = getattr(comm, METHODS[case.collective])

    def fill() -> None:
        got.view(np.uint8)[:] = _JUNK
        given[:] = make_input(case, rank, n)

    return lambda: method(array, *arguments, **options), fill, got
