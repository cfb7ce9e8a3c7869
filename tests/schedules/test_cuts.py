"""One cut for all shards: exact where it fits, near otherwise, and as many channels as the budget has."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from allocations import classes, name_of
from hypothesis import given
from hypothesis import strategies as st

import blinkcoll as bc
from blinkcoll.schedules.cuts import common_cut

RATES = st.dictionaries(st.integers(0, 9), st.lists(st.fractions(Fraction(1, 12), 20, max_denominator=12), min_size=1, max_size=5), min_size=1, max_size=5)


def test_halves_and_thirds_make_six_shares():
    takes = common_cut({"a": [Fraction(1), Fraction(1)], "b": [Fraction(5), Fraction(10)]}, 8)
    assert takes == {"a": [0, 0, 0, 1, 1, 1], "b": [0, 0, 1, 1, 1, 1]}


@given(rates=RATES, most=st.integers(1, 24))
def test_every_way_carries_its_part_or_misses_it_by_a_share(rates, most):
    takes = common_cut(rates, most)
    sizes = {len(of_key) for of_key in takes.values()}
    assert len(sizes) == 1 and 1 <= (grid := sizes.pop()) <= most
    for key, of_key in takes.items():
        assert of_key == sorted(of_key), "a way's shares lie together"
        for way, rate in enumerate(rates[key]):
            assert abs(Counter(of_key)[way] - grid * rate / sum(rates[key])) <= 1


@pytest.mark.parametrize("topology", [t if i % 4 == 0 else pytest.param(t, marks=pytest.mark.slow) for i, t in enumerate(classes())], ids=name_of)
@pytest.mark.parametrize("collective", ["allgather", "gather", "alltoall"])
def test_programs_keep_to_their_budget(topology, collective):
    plan = bc.plan(topology, collective, root=0 if collective == "gather" else None)
    for budget in (1, 5, 32):
        assert plan.schedule(nbytes=1 << 20, max_channels=budget, protocol="simple").nchannels <= budget
