"""What a call among many takes: ``SimulationResult.period_us``."""

from __future__ import annotations

import pytest

from blinkcoll.cost import parameters_for
from blinkcoll.schedules import lower_rings
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines.ring import chain_broadcasts
from blinkcoll.topology import load_topology

SWITCHED = load_topology("dgx-a100")
FORTH, BACK = list(range(8)), [0, 7, 6, 5, 4, 3, 2, 1]


def test_a_ring_that_waits_for_all_takes_as_long_as_alone():
    result = run(lower_rings(SWITCHED, [FORTH, BACK]), 1 << 24)
    assert result.period_us == pytest.approx(result.time_us)


def test_chains_in_one_order_hide_their_fill():
    nbytes, program = 1 << 24, chain_broadcasts(SWITCHED, [FORTH] * 4, "chains")
    result = run(program, nbytes, chunk_bytes=nbytes // 4)  # one chunk each: seven hops after one another
    assert result.period_us - 6.6 == pytest.approx((result.time_us - 6.6) / 7, rel=0.2)


def test_chains_in_opposite_orders_do_not():
    nbytes, program = 1 << 24, chain_broadcasts(SWITCHED, [FORTH, BACK] * 2, "chains")
    result = run(program, nbytes, chunk_bytes=nbytes // 4)
    assert result.period_us > 0.8 * result.time_us


def test_a_result_back_to_back_keeps_its_bytes_and_scales_its_use_of_links():
    result = run(chain_broadcasts(SWITCHED, [FORTH] * 4, "chains"), 1 << 24, chunk_bytes=1 << 20)
    many = result.back_to_back()
    assert many.time_us == result.period_us and many.link_bytes == result.link_bytes
    for hop, part in many.link_utilisation.items():
        assert part * many.time_us == pytest.approx(result.link_utilisation[hop] * result.time_us)
        assert part <= 1


@pytest.mark.parametrize("waits", [True, False])
def test_launching_for_many_ranks_costs_rooted_collectives_half(waits):
    launch = parameters_for(SWITCHED, "one-process").launch
    assert launch.period_us(8, waits=waits) == launch.base_us + 7 * launch.per_rank_us * (1 if waits else 0.5)
