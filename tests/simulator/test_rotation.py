"""One server that stands for all of a cluster: the same times as the whole cluster's program, for any size."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from allocations import diagonals

from blinkcoll.errors import SimulationError
from blinkcoll.simulator import parameters_for, run
from blinkcoll.simulator.baselines import baseline_program, folded_baseline_program, run_baseline
from blinkcoll.simulator.baselines.nccl import p2p
from blinkcoll.simulator.rotation import rotation_of
from blinkcoll.topology import load_topology

#: Beyond 33 ranks an all-to-all's pairs have one channel each, as they have in the folded program.
CLUSTERS = [("hgx-h100*5@50", "planning"), ("dgx-a100*5@25", "measured"), ("a100-pcie-nvbridge*5@12.5", "planning"), ("rtx4090x8*5@12.5", "measured")]


@pytest.fixture
def fold_from_two_ranks(monkeypatch):
    monkeypatch.setattr(p2p, "MOST_RANKS", 1)


@pytest.mark.usefixtures("fold_from_two_ranks")
@pytest.mark.parametrize(("cluster", "launch", "collective"), diagonals(4, CLUSTERS, ("process-per-gpu", "one-process"), ("allreduce", "allgather", "reducescatter", "alltoall")))
def test_one_server_takes_what_the_whole_cluster_takes(cluster, launch, collective, monkeypatch):
    name, rates = cluster
    topology = load_topology(name)
    params = parameters_for(topology, launch)
    for each in (4, 1 << 14, 1 << 20):
        nbytes = topology.nranks * each
        folded = folded_baseline_program("nccl", topology, collective, nbytes)
        with monkeypatch.context() as patch:
            patch.setattr(p2p, "MOST_RANKS", 64)
            whole = baseline_program("nccl", topology, collective, None, nbytes)
        if folded is None:
            assert whole.algorithm.endswith("-tree")
            continue
        one, all_ = run(folded, nbytes, rates=rates, params=params), run(whole, nbytes, rates=rates, params=params)
        assert one.chunk_bytes == all_.chunk_bytes
        assert one.time_us == pytest.approx(all_.time_us, rel=1e-9)
        assert max(one.link_utilisation.values()) == pytest.approx(max(all_.link_utilisation.values()), rel=1e-9)


def test_servers_that_differ_stand_for_none():
    two = load_topology("dgx-a100*2@25")
    assert rotation_of(two) is not None
    slower = next(link for link in two.links if link.src.startswith("s1.") and link.kind == "NVLINK")
    changed = replace(two, links=tuple(replace(k, capacity=k.capacity / 2) if k is slower else k for k in two.links))
    assert rotation_of(changed) is None
    assert rotation_of(two.subset([0, 1, 2, 8, 9])) is None
    assert rotation_of(two.subset([0, 8, 1, 9])) is None
    assert rotation_of(load_topology("dgx-a100")) is None


@pytest.mark.parametrize("differs", [{"kind": "host"}, {"arch": "sm_90"}, {"model": "another"}], ids=str)
def test_servers_of_other_devices_stand_for_none(differs):
    two = load_topology("dgx-a100*2@25")
    assert rotation_of(replace(two, devices=(*two.devices[:-1], replace(two.devices[-1], **differs)))) is None


@pytest.mark.parametrize("refused", [("s0.gpu0", "s0.gpu1"), ("s0.gpu0", "s1.gpu0")])
def test_peers_refused_in_one_server_or_between_two_are_not_what_all_servers_have(refused):
    two = load_topology("dgx-a100*2@25")
    assert rotation_of(replace(two, no_peer_access=(refused,))) is None
    each = tuple((f"s{s}.gpu0", f"s{s}.gpu1") for s in range(2))
    rotation = rotation_of(replace(two, no_peer_access=each))
    assert rotation is not None and rotation.server.no_peer_access == each[:1]


def test_a_link_among_the_networks_switches_carries_more_than_one_servers_part():
    whole = load_topology("hgx-h100*5@50")
    network = next(s for s in whole.switches if s.kind == "network")

    def rail(name):
        return "rail1" if "nic" in name and int(name.split("nic")[1]) >= 4 else network.name

    links = tuple(replace(k, src=rail(k.dst)) if k.src == network.name else replace(k, dst=rail(k.src)) if k.dst == network.name else k for k in whole.links)
    railed = replace(whole, switches=(*whole.switches, replace(network, name="rail1")), links=links)
    assert rotation_of(railed) is not None
    wire = next(k for k in whole.links if k.src == network.name)
    joined = (replace(wire, dst="rail1"), replace(wire, src="rail1", dst=network.name))
    assert rotation_of(replace(railed, links=(*links, *joined))) is None


def test_a_folded_way_over_the_network_comes_back_to_the_server():
    rotation = rotation_of(load_topology("dgx-a100*3@25"))
    assert rotation is not None and rotation.nservers == 3 and rotation.server.nranks == 8
    there, back = rotation.way(3, 8 + 5), rotation.way(3 + 8, 16 + 5)
    assert there == back and (there[0], there[-1]) == (3, 5) and "network" in there
    assert set(pairwise(there)) <= set(rotation.server.capacities())


_LONG = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter")


@pytest.mark.parametrize("collective", ["alltoall", "gather", "scatter", *(pytest.param(name, marks=pytest.mark.slow) for name in _LONG)])
def test_nccl_over_1440_gpus_has_a_time_for_every_collective(collective):
    topology = load_topology("hgx-h100*180@50")
    root = 0 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    program, result = run_baseline("nccl", topology, collective, root, 1440 * 64)
    assert program.nranks in (8, 1440) and result.nranks == 1440 and 0 < result.period_us <= result.time_us


@pytest.mark.slow
def test_a_large_all_gather_over_1440_gpus_runs_at_the_rate_of_the_nics():
    topology = load_topology("hgx-h100*180@50")
    _, result = run_baseline("nccl", topology, "allgather", None, 1440 << 22)
    assert 0.7 * 400 <= result.busbw <= 400


def test_what_is_not_to_be_had_whole_says_what_is():
    with pytest.raises(SimulationError, match="run_baseline"):
        baseline_program("nccl", load_topology("hgx-h100*9@50"), "alltoall", None, 1 << 20)


def test_one_process_launches_for_the_gpus_of_its_own_server():
    for name in ("dgx-a100*2@25", "dgx-a100*6@25"):
        topology = load_topology(name)
        params = parameters_for(topology, "one-process")
        slow, fast = (run(baseline_program("nccl", topology, "allreduce", None, 1 << 10), 1 << 10, params=replace(params, launch=launch)).time_us
                      for launch in (params.launch, replace(params.launch, per_rank_us=0.0)))  # fmt: skip
        assert slow - fast == pytest.approx(7 * params.launch.per_rank_us)
