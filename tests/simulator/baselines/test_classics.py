"""The baselines besides NCCL: right against numpy, and of the shape that their sources describe."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from runtime.oracle import assert_outputs
from schedules.test_families import complete, exact_sum, inputs_of

import blinkcoll as bc
from blinkcoll.errors import SimulationError
from blinkcoll.packing import make_plan
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import BASELINES, baseline_program
from blinkcoll.simulator.baselines.direct import one_shot
from blinkcoll.topology import Device, Link, Switch, Topology, load_topology

V100 = load_topology("dgx1-v100")
CLASSICS = ("gloo-ring", "halving-doubling", "double-binary-tree", "direct", "horovod", "forestcoll")
MADE = [(name, collective) for name in CLASSICS for collective in BASELINES[name].collectives]
SMALL, LARGE = 1 << 12, 64 << 20


def sent(program, rank: int) -> Counter:
    """How many shards a rank sends to each other rank, over all shares."""
    steps = [step for channel in program.ranks[rank] for step in channel.steps]
    return Counter(program.connections[c].dst for step in steps for c in step.signal if program.connections[c].src == rank)


@pytest.mark.parametrize("gpus", [(0, 1), (4, 0, 1), (0, 3, 4, 7), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5, 6), tuple(range(8))], ids=str)
@pytest.mark.parametrize(("name", "collective"), MADE)
def test_baselines_compute_what_numpy_does(name, collective, gpus):
    for nbytes in (SMALL, LARGE):
        program = baseline_program(name, V100.subset(gpus), collective, None, nbytes)
        bc.verify(program, repeated=True)
        count = 100 * len(gpus)
        with ThreadExecutor(program, max_count=count, chunk_bytes=64, timeout_s=30) as executor:
            for in_place in (False, True):
                inputs = inputs_of(program, count)
                assert_outputs(collective, None, inputs, executor.run(inputs, in_place=in_place), exact_sum, name)


@pytest.mark.parametrize("name", [name for name in CLASSICS if name != "forestcoll"])
def test_one_rank_copies(name):
    program = baseline_program(name, V100.subset([3]), "allreduce", None, SMALL)
    bc.verify(program, repeated=True)
    assert program.connections == ()


def test_gloo_sends_to_the_rank_before():
    program = baseline_program("gloo-ring", V100, "allreduce", None, LARGE)
    assert {(c.src, c.dst) for c in program.connections} == {(rank, (rank - 1) % 8) for rank in range(8)}
    assert len(program.weights) == 2, "two segments in flight"


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_halving_sends_most_to_the_nearest(n):
    """Both ways together the partner at distance d gets 1/d of the buffer."""
    program = baseline_program("halving-doubling", complete(n), "allreduce", None, LARGE)
    for rank in range(n):
        per_buffer = program.nshards * len(program.weights)
        assert sent(program, rank) == {rank ^ d: per_buffer // d for d in (1, 2, 4, 8) if d < n}


@pytest.mark.parametrize("n", [3, 5, 6, 7, 11])
def test_neighbours_fold_where_ranks_are_too_many(n):
    program = baseline_program("halving-doubling", complete(n), "allreduce", None, LARGE)
    inside = 1 << (n.bit_length() - 1)
    folding = [1] if n == 3 else [rank for rank in range(n) if len(sent(program, rank)) == 1]
    assert len(folding) == n - inside
    for rank in folding:
        assert set(sent(program, rank)) == {rank - 1}


@pytest.mark.parametrize("n", [2, 4, 6, 8, 12])
def test_every_rank_is_a_leaf_of_one_of_two_trees(n):
    program = baseline_program("double-binary-tree", complete(n), "allreduce", None, LARGE)
    adding = [
        {rank for rank in range(n) for channel in program.ranks[rank] for step in channel.steps if step.share == share and step.op == "reduce"}
        for share in (0, 1)
    ]
    assert all(len(inner) == n // 2 for inner in adding)
    assert not adding[0] & adding[1], "who adds up in one tree only gives in the other"


def test_direct_exchanges_once_or_twice_by_size():
    assert one_shot(2, LARGE) and one_shot(4, 512 * 1024 - 1) and one_shot(8, 256 * 1024 - 1)
    assert not one_shot(4, 512 * 1024) and not one_shot(5, 256 * 1024) and not one_shot(9, 16)
    made = [baseline_program("direct", V100, "allreduce", None, nbytes).algorithm for nbytes in (SMALL, LARGE)]
    assert made == ["one-shot", "two-shot"]


def test_direct_needs_access_between_all_peers():
    refused = replace(V100, no_peer_access=(("gpu0", "gpu5"), ("gpu5", "gpu0")))
    with pytest.raises(SimulationError, match="gpu0 and gpu5 cannot access"):
        baseline_program("direct", refused, "allreduce", None, SMALL)


@pytest.mark.parametrize("gpus", [(0, 1, 2, 3), (0, 1, 2, 3, 4, 5, 6, 7)], ids=str)
def test_horovod_on_one_server_is_the_rings_of_nccl_in_two_calls(gpus):
    topology = V100.subset(gpus)
    hops = lambda name: {(c.src, c.dst) for c in baseline_program(name, topology, "allreduce", None, LARGE).connections}  # noqa: E731
    assert hops("horovod") == hops("nccl")


def test_horovod_crosses_servers_with_its_own_part_alone():
    topology = load_topology("dgx1-v100*2@12").subset([0, 1, 2, 3, 8, 9, 10, 11])
    program = baseline_program("horovod", topology, "allreduce", None, LARGE)
    bc.verify(program, repeated=True)
    across = {(c.src, c.dst) for c in program.connections if topology.devices[c.src].server != topology.devices[c.dst].server}
    assert across == {(rank, (rank + 4) % 8) for rank in range(8)}
    inputs = inputs_of(program, 801)
    with ThreadExecutor(program, max_count=801, chunk_bytes=64, timeout_s=30) as executor:
        assert_outputs("allreduce", None, inputs, executor.run(inputs), exact_sum)


def test_horovod_wants_equal_servers():
    cluster = load_topology("dgx1-v100*2@12")
    with pytest.raises(SimulationError, match="equally many ranks on every server, here are 2, 3"):
        baseline_program("horovod", cluster.subset([0, 1, 2, 8, 9]), "allreduce", None, LARGE)
    with pytest.raises(SimulationError, match="other rings"):
        baseline_program("horovod", cluster.subset([0, 1, 2, 8, 9, 12]), "allreduce", None, LARGE)


@pytest.mark.parametrize(
    ("topology", "least"),
    [(V100, 0.85), (V100.subset([0, 1, 4]), 0.9), (V100.subset([0, 1, 2, 3, 4]), 0.9), (load_topology("dgx2"), 0.9)],
    ids=lambda value: value.name + str(value.nranks) if isinstance(value, Topology) else None,
)
@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reducescatter"])
def test_forestcoll_reaches_its_trees_rate_and_stays_below_the_bound(collective, topology, least):
    """One after the other, an all-reduce's halves take twice as long; where they load other links, less."""
    nbytes = 256 << 20
    rate = float(make_plan(topology, "allgather").rate) / (2 if collective == "allreduce" else 1)
    algbw = run(baseline_program("forestcoll", topology, collective, None, nbytes), nbytes).algbw
    assert least * rate <= algbw
    assert algbw <= float(make_plan(topology, collective).bound) * (1 + 1e-9)


def test_forestcoll_has_no_plan_for_one_rank():
    with pytest.raises(SimulationError, match=r"forestcoll: .*single rank"):
        baseline_program("forestcoll", V100.subset([0]), "allreduce", None, SMALL)


def test_trees_with_many_children_are_split():
    devices = tuple(Device(f"gpu{i}") for i in range(66))
    links = tuple(Link(*ends, "NVLINK", Fraction(50)) for d in devices for ends in ((d.name, "switch"), ("switch", d.name)))
    star = Topology("star66", devices, (Switch("switch", "nvswitch"),), links)
    program = baseline_program("forestcoll", star, "allgather", None, SMALL)
    assert max(len(step.srcs) + len(step.dsts) for channels in program.ranks for channel in channels for step in channel.steps) <= 64
