from fractions import Fraction

import pytest

from blinkcoll.cost import algbw_gb_s, busbw_factor, busbw_gb_s
from blinkcoll.errors import SimulationError


@pytest.mark.parametrize(
    ("collective", "factor"),
    [("allreduce", Fraction(7, 4)), ("broadcast", 1), ("reduce", 1), ("allgather", Fraction(7, 8)), ("reducescatter", Fraction(7, 8)),
     ("gather", Fraction(7, 8)), ("scatter", Fraction(7, 8)), ("alltoall", Fraction(7, 8))],
)  # fmt: skip
def test_factors_of_eight_ranks(collective, factor):
    assert busbw_factor(collective, 8) == factor


def test_published_row_of_nccl_tests_is_reproduced():
    # konnase/konnase.github.io, NCCL 2.4 on 8 V100: 67108864 bytes in 992.7 us are 67.60 and 118.30 GB/s.
    assert algbw_gb_s(67108864, 992.7) == pytest.approx(67.60, abs=0.005)
    assert busbw_gb_s("allreduce", 8, 67108864, 992.7) == pytest.approx(118.30, abs=0.005)


def test_unknown_collectives_are_refused():
    with pytest.raises(SimulationError, match="allsum"):
        busbw_factor("allsum", 4)


def test_no_time_is_no_bandwidth():
    assert algbw_gb_s(0, 0.0) == 0.0
