"""Proofs are fast enough to be made before every first call; CPU time, since other work must not fail this."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import blinkcoll as bc
from blinkcoll.topology import load_topology

_SPEC = importlib.util.spec_from_file_location("benchmark_verifier", Path(__file__).parents[2] / "benchmarks" / "verifier.py")
benchmark = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(benchmark)


@pytest.mark.parametrize("collective", ["allreduce", "allgather"])
def test_eight_gpus_take_less_than_20_ms_and_64_less_than_a_second(collective):
    for topology, limit_ms in ((load_topology("dgx1-v100"), 20), (benchmark.star(64), 1000)):
        assert benchmark.proof_ms(bc.schedules.lower(bc.plan(topology, collective))) < limit_ms


@pytest.mark.slow
def test_all_collectives_and_families_keep_to_the_limits():
    assert benchmark.main() == 0
