"""algbw and busbw as nccl-tests defines them (its doc/PERFORMANCE.md): the one place with these factors.

The size is a rank's buffer for all-reduce, broadcast, reduce and all-to-all, and the total of all n shards for
all-gather (output), reduce-scatter (input), gather and scatter (at the root). nccl-tests has no all-to-all of unequal pieces:
its size is all n x n pieces together, and its factor the one by which equal pieces have all-to-all's busbw.
"""

from __future__ import annotations

from fractions import Fraction

from ..errors import SimulationError


def busbw_factor(collective: str, nranks: int) -> Fraction:
    """What algbw is multiplied by to give busbw.

    Raises
    ------
    SimulationError
        Where there is no such collective.

    Examples
    --------
    >>> busbw_factor("allreduce", 4)
    Fraction(3, 2)
    """
    if collective == "allreduce":
        return Fraction(2 * (nranks - 1), nranks)
    if collective == "alltoallv":
        return Fraction(nranks - 1, nranks**2)
    if collective in ("broadcast", "reduce"):
        return Fraction(1)
    if collective in ("allgather", "reducescatter", "gather", "scatter", "alltoall"):
        return Fraction(nranks - 1, nranks)
    raise SimulationError(f"no collective is called {collective!r}")


def algbw_gb_s(nbytes: int, time_us: float) -> float:
    """Size over time, in GB/s; 0 where nothing took no time."""
    return nbytes / time_us / 1e3 if time_us > 0 else 0.0


def busbw_gb_s(collective: str, nranks: int, nbytes: int, time_us: float) -> float:
    """Algbw times the collective's factor, in GB/s."""
    return algbw_gb_s(nbytes, time_us) * float(busbw_factor(collective, nranks))
