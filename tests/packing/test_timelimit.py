"""A plan or an error within the time that the caller allows."""

from __future__ import annotations

import time

import pytest

import blinkcoll as bc


def test_a_packing_out_of_time_is_an_error_and_the_next_call_is_not():
    """144 GPUs of two racks over NICs: more than the packers do in seconds."""
    topology = bc.load_topology("gb200-nvl72*2@50")
    began = time.monotonic()
    with pytest.raises(bc.PackingError, match=r"no exact plan for broadcast of 144 ranks within time_limit_s=1;"):
        bc.plan(topology, "broadcast", root=0, time_limit_s=1)
    assert time.monotonic() - began < 30
    assert bc.plan(bc.load_topology("dgx1-v100"), "broadcast", root=0, time_limit_s=30).optimal


def test_no_limit_is_no_limit():
    assert bc.plan(bc.load_topology("dgx1-v100"), "allgather", time_limit_s=0).optimal
