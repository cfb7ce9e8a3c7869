"""NCCL's rebuilt search: points known from NCCL itself, and properties that any graph of its must have."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise, permutations
from math import inf

import pytest
from allocations import classes, name_of, spread

from blinkcoll.errors import PackingError, SimulationError, TopologyError
from blinkcoll.simulator.baselines.nccl import search
from blinkcoll.simulator.baselines.nccl.system import f32
from blinkcoll.topology import Device, Link, Switch, Topology, load_topology

VERSIONS = ("2.30", "2.7", "2.4")


def subsets(name: str) -> list[Topology]:
    """All 247 sets of two to eight GPUs of a DGX-1."""
    whole = load_topology(name)
    return [whole.subset(gpus) for k in range(2, 9) for gpus in combinations(range(8), k)]


def figures(graph) -> tuple[int, Fraction, str]:
    return graph.nchannels, graph.gb_s, graph.path_type


def lanes(topology: Topology) -> Counter[tuple[int, int]]:
    """NVLink lanes between ranks, one way."""
    count: Counter[tuple[int, int]] = Counter()
    for link in topology.links:
        if link.kind == "NVLINK":
            count[topology.vertex(link.src), topology.vertex(link.dst)] += link.lanes
    return count


def connected_by_nvlink(topology: Topology) -> bool:
    joined, seen, todo = lanes(topology), {0}, [0]
    while todo:
        here = todo.pop()
        for a, b in joined:
            if a == here and b not in seen:
                seen.add(b)
                todo.append(b)
    return len(seen) == topology.nranks


def has_nvlink_cycle(topology: Topology) -> bool:
    """Whether some order of the ranks goes round over NVLinks only; every order is tried."""
    joined, n = lanes(topology), topology.nranks
    return any(all((a, b) in joined for a, b in pairwise((0, *rest, 0))) for rest in permutations(range(1, n)))


# -- points known from NCCL ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "gpus", "version", "expected"),
    [
        ("dgx1-v100", None, "2.30", (6, 20, "NVL")),
        ("dgx1-p100", None, "2.30", (4, 18, "NVL")),
        ("dgx2", None, "2.30", (6, 20, "NVL")),
        ("dgx-a100", None, "2.30", (12, 20, "NVL")),
        ("hgx-h100", None, "2.30", (12, 30, "NVL")),
        ("dgx1-v100", [0, 1, 4], "2.30", (1, 20, "NVB")),
        ("dgx1-v100", [0, 3, 4, 7], "2.30", (3, 20, "NVB")),
        ("dgx1-v100", None, "2.7", (6, 21, "NVL")),
        ("dgx1-v100", [0, 1, 4], "2.7", (2, 6, "SYS")),
        ("dgx2", None, "2.7", (6, 21, "NVL")),
        ("dgx1-v100", None, "2.4", (6, 20, "NVL")),
        ("dgx1-p100", None, "2.4", (4, 18, "NVL")),
        ("dgx1-v100", [0, 1, 4], "2.4", (1, 6, "SYS")),
    ],
)
def test_channels_speed_and_kind_of_path_are_nccls(layout, gpus, version, expected):
    topology = load_topology(layout)
    plan = search(topology if gpus is None else topology.subset(gpus), version)
    assert (plan.nchannels, plan.gb_s_per_channel, plan.path_type) == expected
    assert plan.nchannels_run == (2 * plan.nchannels if not plan.ring.fallback else 1)


def test_hopper_pulls_from_the_switch_with_eight_heads():
    plan = search(load_topology("hgx-h100"))
    assert (plan.nvls.nchannels, plan.nvls.gb_s) == (8, 40)
    assert sorted(head for (head,) in plan.nvls.channels) == list(range(8))
    assert search(load_topology("dgx-a100")).nvls is None


@pytest.mark.parametrize(("version", "layout", "expected"), [
    ("2.7", "dgx1-p100", (14, 5)), ("2.4", "dgx1-v100", (46, 21)),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [("2.7", "dgx1-v100", (46, 21)), ("2.4", "dgx1-p100", (14, 5))]),
])  # fmt: skip
def test_without_crossing_gpus_rings_leave_nvlink_where_it_has_no_cycle(layout, expected, version):
    mine = [t for t in classes() if t.name == layout]
    plans = [search(t, version) for t in mine]
    off = [p for p in plans if p.path_type != "NVL"]
    assert (len(plans), len(off)) == expected
    assert {(p.nchannels, p.gb_s_per_channel, p.path_type) for p in off} == {(2 if version == "2.7" else 1, 6, "SYS")}
    assert [p.path_type == "NVL" for p in plans] == [has_nvlink_cycle(t) for t in mine]


def test_crossing_gpus_keeps_every_connected_class_on_nvlink():
    assert {search(t).path_type for t in classes()} <= {"NVL", "NVB"}


# How often each (channels, GB/s, kind) occurs over all 247 sets: what NCCL 2.30.7's own graph code gives on them.
RINGS_2_30 = {
    "dgx1-v100": {
        (1, 6, "SYS"): 44, (1, 20, "NVB"): 55, (1, 20, "NVL"): 8, (2, 3, "SYS"): 6, (2, 10, "NVB"): 25,
        (2, 20, "NVB"): 24, (2, 20, "NVL"): 68, (3, 20, "NVB"): 2, (4, 20, "NVL"): 14, (6, 20, "NVL"): 1,
    },
    "dgx1-p100": {
        (1, 6, "SYS"): 44, (1, 18, "NVB"): 78, (1, 18, "NVL"): 16, (2, 3, "SYS"): 6, (2, 9, "NVB"): 26,
        (2, 18, "NVL"): 67, (4, 18, "NVL"): 1, (5, 9, "NVL"): 2, (6, 9, "NVL"): 7,
    },
}  # fmt: skip
TREES_2_30 = {
    "dgx1-v100": {
        (1, 6, "SYS"): 44, (1, 20, "NVL"): 63, (2, 6, "SYS"): 6, (2, 20, "NVL"): 83, (2, 40, "NVL"): 34,
        (3, 20, "NVL"): 2, (4, 20, "NVL"): 14, (6, 20, "NVL"): 1,
    },
    "dgx1-p100": {
        (1, 6, "SYS"): 44, (1, 18, "NVL"): 94, (2, 6, "SYS"): 6, (2, 18, "NVL"): 93, (4, 18, "NVL"): 1,
        (5, 9, "NVL"): 2, (6, 9, "NVL"): 7,
    },
}  # fmt: skip
#: The same for 2.7.8, and the number of channels that 2.4.8 makes of its rings.
RINGS_2_7 = {
    "dgx1-v100": {(1, 6, "SYS"): 50, (1, 21, "NVL"): 8, (2, 6, "SYS"): 104, (2, 21, "NVL"): 70, (4, 21, "NVL"): 14, (6, 21, "NVL"): 1},
    "dgx1-p100": {(1, 6, "SYS"): 50, (1, 18, "NVL"): 16, (2, 6, "SYS"): 104, (2, 18, "NVL"): 62, (4, 18, "NVL"): 1, (5, 9, "NVL"): 3, (6, 9, "NVL"): 11},
}  # fmt: skip
CHANNELS_2_4 = {"dgx1-v100": {1: 154, 2: 8, 4: 70, 8: 14, 12: 1}, "dgx1-p100": {1: 154, 2: 16, 4: 74, 8: 1, 12: 2}}


@pytest.mark.parametrize("layout", ["dgx1-v100", pytest.param("dgx1-p100", marks=pytest.mark.slow)])
def test_all_sets_of_a_dgx1_have_nccls_figures(layout):
    plans = [search(t) for t in subsets(layout)]
    assert Counter(figures(p.ring) for p in plans) == RINGS_2_30[layout]
    assert Counter(figures(p.tree) for p in plans) == TREES_2_30[layout]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["dgx1-v100", "dgx1-p100"])
def test_all_sets_of_a_dgx1_have_nccl_2_7s_figures(layout):
    assert Counter(figures(search(t, "2.7").ring) for t in subsets(layout)) == RINGS_2_7[layout]


@pytest.mark.parametrize("layout", ["dgx1-v100", "dgx1-p100"])
def test_all_sets_of_a_dgx1_have_nccl_2_4s_number_of_channels(layout):
    assert Counter(search(t, "2.4").nchannels_run for t in subsets(layout)) == CHANNELS_2_4[layout]


# -- what every graph must be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("topology", spread(12), ids=name_of)
def test_rings_and_trees_visit_every_rank_once_and_keep_nvlinks_capacity(topology, version):
    plan = search(topology, version)
    joined = lanes(topology)
    for graph in (plan.ring, plan.tree):
        if graph is None:
            continue
        for channel in graph.channels:
            assert sorted(channel) == list(range(topology.nranks))
        used: Counter[tuple[int, int]] = Counter()
        for channel in graph.channels:
            closed = (*channel, channel[0]) if graph is plan.ring else channel
            for a, b in pairwise(closed):
                way = [v for v in crossed(plan, a, b) if isinstance(v, int)]
                if way:
                    used.update(dict.fromkeys(pairwise(way), graph.gb_s))
        lane = Fraction(str(plan.version.lane_gb_s(70 if "v100" in topology.name else 60)))
        for hop, gb_s in used.items():
            assert gb_s <= joined[hop] * lane, f"{hop}: {gb_s} GB/s over {joined[hop]} lanes"


def crossed(plan, a: int, b: int) -> list[int]:
    """The ranks from a to b, a GPU crossed included; empty where the way leaves NVLink."""
    by_rank = {gpu.rank: gpu for gpu in plan.system.gpus}
    ranks = {gpu.name: gpu.rank for gpu in plan.system.gpus}
    way = plan.paths[by_rank[a], by_rank[b]]
    if any(edge.kind not in ("NVL", "LOC") for edge in way.edges):
        return []
    through = [ranks[edge.to.name] for edge in way.edges if edge.kind == "NVL"]
    assert len(through) <= 2 and through[-1] == b
    return [a, *through]


def test_a_path_is_nvl_where_a_link_is_and_nvb_where_a_third_gpu_has_links_to_both():
    for topology in classes():
        joined, plan = lanes(topology), search(topology)
        by_rank = {gpu.rank: gpu for gpu in plan.system.gpus}
        for a, b in permutations(range(topology.nranks), 2):
            between = [c for c in range(topology.nranks) if (a, c) in joined and (c, b) in joined]
            expected = {"NVL"} if (a, b) in joined else {"NVB"} if between else {"PIX", "PHB", "SYS"}
            assert plan.paths.type_name(by_rank[a], by_rank[b]) in expected, (name_of(topology), a, b)


def test_2_7_goes_through_host_memory_where_no_nvlink_is_and_a_cpu_is_between():
    plan = search(load_topology("dgx1-v100").subset([0, 1, 4]), "2.7")
    _, gpu1, gpu4 = plan.system.gpus
    assert plan.paths.through_memory == {(gpu1, gpu4), (gpu4, gpu1)}
    assert plan.paths.type_name(gpu1, gpu4) == "SYS"
    assert plan.paths[gpu1, gpu4].gb_s == 6


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_topology_gives_the_same_plan(version):
    topology = load_topology("dgx1-v100").subset([0, 1, 2, 4, 7])
    one, two = search(topology, version), search(topology, version)
    assert (one.rings, one.trees, one.explain()) == (two.rings, two.trees, two.explain())


def test_ranks_are_the_topologys_not_the_gpus_indices():
    plan = search(load_topology("dgx1-v100").subset([7, 4, 0, 3]))
    assert {gpu.name: gpu.rank for gpu in plan.system.gpus} == {"gpu7": 0, "gpu4": 1, "gpu0": 2, "gpu3": 3}
    assert figures(plan.ring) == (3, 20, "NVB")
    assert all(sorted(ring) == [0, 1, 2, 3] for ring in plan.rings)


def test_nccl_sees_pcie_and_cpus_that_a_subset_has_lost():
    pair = load_topology("dgx1-v100").restrict(["NVLINK"]).subset([0, 1])
    assert "cpu0" not in {s.name for s in pair.switches}
    plan = search(pair)
    assert [c.name for c in plan.system.nodes["CPU"]] == ["cpu0"]
    assert plan.system.cpu == "intel-bdw"
    assert plan.assumptions == ()
    assert figures(search(load_topology("dgx1-v100").subset([0, 5])).ring) == (1, 6, "SYS")


@pytest.mark.parametrize("version", VERSIONS)
def test_one_gpu_has_a_plan(version):
    plan = search(load_topology("dgx1-v100").subset([3]), version)
    assert set(plan.rings) == {(0,)}
    assert plan.choose(1 << 20).algorithm == "ring"
    assert plan.explain()


# -- machines made up ---------------------------------------------------------------------------------------------------


def made_up(ngpus: int, arch: str, wires: list[tuple[str, str, str, int, int]], switches: list[Switch]) -> Topology:
    """``wires``: (end, end, kind, GB/s of all lanes, lanes)."""
    links = []
    for a, b, kind, gb_s, count in wires:
        generation = 3 if kind == "PCIE" else None
        links += [Link(x, y, kind, Fraction(gb_s), lanes=count, generation=generation) for x, y in ((a, b), (b, a))]
    devices = tuple(Device(f"gpu{i}", index=i, arch=arch) for i in range(ngpus))
    return Topology("made-up", devices, tuple(switches), tuple(links))


def pcie_pair(vendor: str) -> Topology:
    return made_up(
        2, "sm_80", [("gpu0", "cpu0", "PCIE", 12, 16), ("gpu1", "cpu0", "PCIE", 12, 16)],
        [Switch("cpu0", "cpu", arch="x86_64", vendor=vendor)],
    )  # fmt: skip


def test_intel_cpus_slow_traffic_between_gpus_and_amd_pairs_are_peers():
    intel, amd = search(pcie_pair("GenuineIntel")), search(pcie_pair("AuthenticAMD"))
    # Through an Intel CPU 10 GB/s take 12 of PCIe; a pair on an AMD CPU may be peers over any distance.
    assert figures(intel.ring) == (1, 10, "PHB")
    assert figures(amd.ring) == (1, 12, "PHB")
    assert intel.paths.through_memory and not amd.paths.through_memory


def test_refused_peer_access_goes_through_the_cpu():
    one_switch = made_up(
        2, "sm_80", [("gpu0", "plx", "PCIE", 12, 16), ("gpu1", "plx", "PCIE", 12, 16), ("plx", "cpu0", "PCIE", 12, 16)],
        [Switch("plx", "pcie"), Switch("cpu0", "cpu", arch="x86_64", vendor="AuthenticAMD")],
    )  # fmt: skip
    refused = Topology("refused", one_switch.devices, one_switch.switches, one_switch.links, no_peer_access=(("gpu0", "gpu1"),))
    assert search(one_switch).path_type == "PIX"
    assert search(refused).path_type == "PHB"
    assert search(one_switch, "2.4").path_type == "PIX"


def test_a_machine_without_pcie_is_given_one_and_says_so():
    plan = search(made_up(2, "sm_70", [("gpu0", "gpu1", "NVLINK", 40, 2)], []))
    assert figures(plan.ring) == (2, 20, "NVL")
    assert len(plan.assumptions) == 2
    assert all(f"# assumed: {text}" in plan.explain() for text in plan.assumptions)


def test_random_nvlink_meshes_give_plans_that_fit():
    seed = 20
    rng = random.Random(seed)
    for case in range(15):
        n = rng.randint(2, 7)
        wires = [(f"gpu{g}", "cpu0", "PCIE", 12, 16) for g in range(n)]
        for a, b in combinations(range(n), 2):
            count = rng.choice([0, 0, 1, 1, 2])
            if count:
                wires.append((f"gpu{a}", f"gpu{b}", "NVLINK", 20 * count, count))
        topology = made_up(n, "sm_70", wires, [Switch("cpu0", "cpu", arch="x86_64", vendor="GenuineIntel", model="Skylake")])
        plan, joined = search(topology), lanes(topology)
        used: Counter[tuple[int, int]] = Counter()
        for ring in plan.rings:
            assert sorted(ring) == list(range(n)), f"seed {seed}, case {case}"
            for a, b in pairwise((*ring, ring[0])):
                for hop in pairwise(crossed(plan, a, b)):
                    used[hop] += plan.gb_s_per_channel
        for hop, gb_s in used.items():
            assert gb_s <= 20 * joined[hop], f"seed {seed}, case {case}: {hop}"


# -- refusals -----------------------------------------------------------------------------------------------------------


def test_what_nccl_does_not_run_on_is_refused():
    with pytest.raises(TopologyError, match="gfx942"):
        search(load_topology("mi300x"))
    with pytest.raises(TopologyError, match="several"):
        search(load_topology("dgx1-v100*2@12"))
    with pytest.raises(TopologyError, match=r"2\.19.*known: 2\.30, 2\.7, 2\.4"):
        search(load_topology("dgx1-v100"), "2.19")
    with pytest.raises(TopologyError, match="CPU model"):
        search(load_topology("dgx1-v100"), cpu="z80")


def test_one_server_of_a_cluster_is_searched_alone():
    part = load_topology("dgx1-v100*2@12").subset(list(range(8, 16)))
    assert figures(search(part).ring) == (6, 20, "NVL")


# -- the tuner ----------------------------------------------------------------------------------------------------------


def test_the_tuner_picks_by_size_as_nccl_2_30_does_on_eight_v100():
    plan = search(load_topology("dgx1-v100"))
    picks = {power: plan.choose(1 << power) for power in range(10, 31)}
    # As ncclTopoGetAlgoTime of 2.30.7 gives it for this communicator.
    expected = {power: "LL" if power < 20 else "LL128" if power < 24 else "simple" for power in picks}
    assert {power: choice.protocol for power, choice in picks.items()} == expected
    assert {choice.algorithm for choice in picks.values()} == {"ring"}
    assert [picks[power].time_us for power in (10, 18, 21, 28)] == pytest.approx([15.0459, 26.7629, 73.8429, 3970.683], rel=1e-5)
    # ncclTopoGetAlgoTime: 8.4 + 14 hops of 3.4 us, and 6 x 20 GB/s of bus bandwidth by 8/14.
    assert picks[28].time_us == pytest.approx(8.4 + 14 * 3.4 + (1 << 28) / (1000 * 120 * 8 / 14))
    assert picks[28].nchannels == 12
    assert picks[10].nchannels == 1


def test_the_tuner_takes_nvls_on_hopper_and_trees_where_2_7_has_pcie_rings():
    assert search(load_topology("hgx-h100")).choose(1 << 28).algorithm == "nvls"
    triple = load_topology("dgx1-v100").subset([0, 1, 4])
    assert search(triple, "2.7").choose(1 << 28).algorithm == "tree"
    assert {search(triple, "2.4").choose(1 << p).algorithm for p in range(3, 31)} == {"ring"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("collective", ["broadcast", "reduce", "all_gather", "reduce_scatter", "allreduce"])
def test_more_bytes_never_get_fewer_channels_of_one_kind(version, collective):
    plan = search(load_topology("dgx1-p100").subset([0, 1, 2, 3, 4]), version)
    most: dict[tuple[str, str], int] = {}
    for power in range(3, 31):
        choice = plan.choose(1 << power, collective)
        kind = (choice.algorithm, choice.protocol)
        assert most.get(kind, 0) <= choice.nchannels <= plan.nchannels_run
        most[kind] = choice.nchannels


def test_the_tuner_refuses_what_nccl_composes_of_sends():
    plan = search(load_topology("dgx1-v100"))
    with pytest.raises(SimulationError, match="sends and receives"):
        plan.choose(1 << 20, "alltoall")
    with pytest.raises(PackingError):
        plan.choose(1 << 20, "sum")


# -- what it says -------------------------------------------------------------------------------------------------------


def test_the_explanation_names_the_gpu_crossed_and_what_sent_a_ring_to_pcie():
    triple = load_topology("dgx1-v100").subset([0, 1, 4])
    crossing, falling = search(triple).explain(), search(triple, "2.7").explain()
    assert "gpu1 -> gpu4: no NVLink between them, crosses gpu0" in crossing
    assert "NCCL INFO Channel 00/02 : 0 1 2" in crossing
    assert "NCCL INFO Pattern 4, crossNic 0, nChannels 1, bw 20.000000/20.000000, type NVB/PIX, sameChannels 1" in crossing
    assert "no cycle through all of them" in falling
    assert "through host memory; narrowest SYS 6 GB/s" in falling
    assert "takes the ranks in order" in search(triple, "2.4").explain()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_class_has_an_explanation_of_every_hop_off_nvlink(version):
    for topology in spread(8):
        plan = search(topology, version)
        text = plan.explain()
        by_rank = {gpu.rank: gpu for gpu in plan.system.gpus}
        for ring in plan.rings:
            for a, b in pairwise((*ring, ring[0])):
                if plan.paths.type_name(by_rank[a], by_rank[b]) != "NVL":
                    assert f"# {by_rank[a].name} -> {by_rank[b].name}" in text


# -- what channels carry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("topology", spread(12), ids=name_of)
def test_rings_carry_on_the_links_what_the_search_gave_them(topology, version):
    plan = search(topology, version)
    # The search accounts link by link with single precision; loads are summed here with exact numbers.
    assert plan.ring_busbw == plan.common_channels * plan.gb_s_per_channel


def test_a_chain_of_three_carries_both_directions_of_its_links():
    plan = search(load_topology("dgx1-v100").subset([0, 1, 4]))
    assert plan.trees == ((1, 0, 2),)
    assert plan.tree_busbw == 20 * Fraction(4, 3)
    # 2.7 has two chains over the same links: each link carries both, one up and one down.
    assert search(load_topology("dgx1-v100").subset([0, 1, 4]), "2.7").tree_busbw == 21 * Fraction(4, 3)


# -- rates beyond what NCCL's floats hold -------------------------------------------------------------------------------


def test_rates_beyond_single_precision_are_infinite():
    topology = load_topology("rtx4090x8")
    fast = tuple(replace(k, capacity=Fraction(10) ** 39, generation=None) if k.kind == "PCIE" else k for k in topology.links)
    plan = search(replace(topology, links=fast), "2.30")
    assert figures(plan.ring) == (1, Fraction(10), "SYS")  # what the link between the CPUs leaves
    assert (f32(1e39), f32(-1e39), f32(inf)) == (inf, -inf, inf)
