"""Proofs are fast enough to be made before every first call; CPU time, since other work must not fail this."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import blinkcoll as bc
from blinkcoll.schedules import lower_two_shot
from blinkcoll.schedules.nvls import lower_groups
from blinkcoll.topology import load_topology

_SPEC = importlib.util.spec_from_file_location("benchmark_verifier", Path(__file__).parents[2] / "benchmarks" / "verifier.py")
benchmark = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(benchmark)


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "alltoall"])
@pytest.mark.parametrize("protocol", ["simple", "LL"])
def test_eight_gpus_take_less_than_20_ms(collective, protocol):
    program = bc.plan(load_topology("dgx1-v100"), collective).schedule(nbytes=1 << 20, protocol=protocol)
    assert benchmark.proof_ms(program) < 20


def test_64_ranks_of_8064_connections_take_less_than_a_second():
    assert benchmark.proof_ms(lower_two_shot(benchmark.star(64)), runs=3) < 1000


def test_ten_shares_over_the_switch_of_72_gpus_take_less_than_a_second():
    """The largest there are: 102,240 connections."""
    program = lower_groups(load_topology("gb200-nvl72"), "allreduce", None, range(72), "nvswitch", 10)
    assert (len(program.connections), len(program.weights)) == (102_240, 10)
    assert benchmark.proof_ms(program, runs=2) < 1000


@pytest.mark.slow
def test_all_collectives_and_families_keep_to_the_limits():
    assert benchmark.main() == 0
