"""NCCL's plans as programs: verified, simulated, and as fast as their channels' links allow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from allocations import name_of, spread

import blinkcoll as bc
from blinkcoll.cost.chunks import default_chunk_bytes
from blinkcoll.errors import PackingError, SimulationError
from blinkcoll.schedules import verify
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.simulator.baselines.nccl import nccl_program, search
from blinkcoll.simulator.baselines.nccl.nvls import nvls_chunk_bytes
from blinkcoll.topology import Topology, load_topology

LARGE = 256 << 20


def made(topology: Topology, collective: str, root: int | None, nbytes: int, **options):
    program = nccl_program(topology, collective, root, nbytes, **options)
    return replace(program, chunk_bytes=default_chunk_bytes(program, nbytes))


def dgx1(*gpus: int) -> Topology:
    return load_topology("dgx1-v100").subset(gpus)


@pytest.mark.parametrize("nbytes", [1 << 12, 1 << 20, LARGE])
@pytest.mark.parametrize("version", ["2.30", "2.7", "2.4"])
@pytest.mark.parametrize("topology", [t for t in spread(9) if t.nranks < 7], ids=name_of)
def test_allreduces_are_proved_correct_at_every_size(topology, version, nbytes):
    program = made(topology, "allreduce", None, nbytes, version=version)
    bc.verify(program)
    choice = search(topology, version).choose(nbytes)
    assert len(program.weights) == choice.nchannels
    assert program.algorithm == f"nccl-{version}-{choice.algorithm}"
    assert {c.protocol for c in program.connections} == {choice.protocol}


@pytest.mark.parametrize("collective", ["broadcast", "reduce"])
@pytest.mark.parametrize("nbytes", [1 << 12, 64 << 20])
def test_rooted_collectives_are_proved_correct_from_every_root(collective, nbytes):
    for root in range(4):
        program = made(dgx1(0, 3, 4, 7), collective, root, nbytes)
        bc.verify(program)
        assert program.root == root


@pytest.mark.parametrize("collective", ["allgather", "reducescatter"])
@pytest.mark.parametrize("nbytes", [1 << 12, 1 << 20, LARGE])
@pytest.mark.parametrize("version", ["2.30", "2.7", "2.4"])
@pytest.mark.parametrize("topology", [t for t in spread(9) if t.nranks < 7], ids=name_of)
def test_sharded_collectives_are_proved_correct_at_every_size(topology, version, nbytes, collective):
    program = made(topology, collective, None, nbytes, version=version)
    bc.verify(program)
    choice = search(topology, version).tuner.choose(nbytes, collective)
    assert (program.collective, len(program.weights)) == (collective, choice.nchannels)
    assert program.algorithm == f"nccl-{version}-ring"
    assert {c.protocol for c in program.connections} == {choice.protocol}


@pytest.mark.parametrize(("collective", "most"), [("allgather", 1.03), ("reducescatter", 1.15)])
def test_half_an_allreduce_takes_half_the_time_of_its_ring(collective, most):
    """A reduce-scatter's last step adds into the output and sends nothing: its links rest meanwhile."""
    topology = dgx1(0, 1, 2, 3)
    whole = bc.simulate(made(topology, "allreduce", None, LARGE, algorithm="ring"), nbytes=LARGE)
    half = bc.simulate(made(topology, collective, None, LARGE), nbytes=LARGE)
    assert 0.99 <= 2 * half.time_us / whole.time_us <= most
    assert sum(half.link_bytes.values()) == pytest.approx(sum(whole.link_bytes.values()) / 2)


@pytest.mark.parametrize(
    ("gpus", "version", "algorithm", "least"),
    [
        ((0, 1, 2, 3), "2.30", "ring", 0.9),
        ((0, 1, 4), "2.30", "ring", 0.75),  # a ring over NVB: every third hop is two
        ((0, 3, 4, 7), "2.30", "ring", 0.75),
        ((0, 1, 4), "2.30", "tree", 0.9),
        ((0, 1, 4), "2.7", "ring", 0.85),
        ((0, 1, 4), "2.4", "ring", 0.85),
    ],
)
def test_large_allreduces_reach_most_of_what_the_channels_links_carry_and_no_more(gpus, version, algorithm, least):
    topology = dgx1(*gpus)
    plan = search(topology, version)
    # NCCL 2.7 counts 21 GB/s a lane, the simulator 20 for everyone.
    carries = float(plan.ring_busbw if algorithm == "ring" else plan.tree_busbw)
    result = bc.simulate(made(topology, "allreduce", None, LARGE, version=version, algorithm=algorithm), nbytes=LARGE)
    assert least * carries < result.busbw <= carries * (1 + 1e-9)


def test_the_crossed_gpu_holds_the_buffer_and_with_ll_copies():
    topology = dgx1(0, 1, 4)
    large, small = nccl_program(topology, "allreduce", None, LARGE), nccl_program(topology, "allreduce", None, 1 << 12)
    assert {c.protocol for c in small.connections} == {"LL"}
    elsewhere = {o.rank for channels in large.ranks for ch in channels for s in ch.steps for o in (*s.srcs, *s.dsts) if o.rank is not None and o.buffer == "scratch"}
    assert elsewhere == {0}, "GPU0 lies between GPU1 and GPU4"
    rings = search(topology).choose(1 << 12).nchannels
    assert [len(channels) for channels in small.ranks] == [2 * rings, rings, rings]
    assert all(len(c.path) == 2 for c in small.connections)


def test_crossing_uses_the_two_nvlinks_and_not_pcie():
    topology = dgx1(0, 1, 4)
    result = bc.simulate(made(topology, "allreduce", None, LARGE), nbytes=LARGE)
    moved = {link for link, share in result.link_utilisation.items() if share > 0}
    assert {(1, 0), (0, 2)} <= moved
    assert not [link for link in moved if any(isinstance(end, str) for end in link)]


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reducescatter"])
def test_nvls_has_a_head_a_gpu_and_sixteen_channels_on_hopper(collective):
    program = nccl_program(load_topology("hgx-h100"), collective, None, LARGE, algorithm="nvls")
    bc.verify(program, repeated=True)
    assert (program.algorithm, program.nshards, len(program.weights)) == ("nccl-2.30-nvls", 8, 16)
    assert {c.slots for c in program.connections} == {8}
    scratch = {("scratch", False)} if collective == "reducescatter" else {("scratch", True)} if collective == "allgather" else {("scratch", False), ("scratch", True)}
    assert program.multicasts == scratch


@pytest.mark.parametrize(("nbytes", "chunk"), [(1 << 20, 16), (8 << 20, 32), (64 << 20, 64), ((1 << 30) - 4, 64), (1 << 30, 128), (4 << 30, 128)])
def test_nvls_chunks_shrink_with_the_size_as_nccls_do(nbytes, chunk):
    """calcCollChunking by hand: 16 channels x 8 heads; 1 GiB is 64 rounds of 128 KiB, 64 MiB 8 of 64, 8 MiB 2 of 32."""
    hopper = load_topology("hgx-h100")
    program = nccl_program(hopper, "allreduce", None, nbytes, algorithm="nvls")
    assert nvls_chunk_bytes(program, nbytes) == chunk << 10


def test_the_tuner_takes_nvls_for_large_all_reduces_of_six_and_more_h100s():
    hopper = load_topology("hgx-h100")
    taken = {n: baseline_program("nccl", hopper.subset(list(range(n))), "allreduce", None, LARGE).algorithm for n in range(2, 9)}
    assert taken == {n: "nccl-2.30-nvls" if n >= 6 else "nccl-2.30-ring" for n in range(2, 9)}


def test_what_nccl_does_not_have_is_refused():
    hopper = load_topology("hgx-h100")
    with pytest.raises(SimulationError, match="no nvls"):
        nccl_program(load_topology("dgx-a100"), "allreduce", None, LARGE, algorithm="nvls")
    assert nccl_program(hopper, "allreduce", None, LARGE, algorithm="ring").algorithm == "nccl-2.30-ring"
    with pytest.raises(SimulationError, match="no sends and receives"):
        nccl_program(dgx1(0, 1, 2), "alltoall", None, LARGE, version="2.4")
    with pytest.raises(SimulationError, match="no tree for broadcast"):
        nccl_program(hopper, "broadcast", 0, LARGE, algorithm="tree")
    with pytest.raises(SimulationError, match="no tree"):
        nccl_program(dgx1(0, 1, 2), "allreduce", None, LARGE, version="2.4", algorithm="tree")
    with pytest.raises(PackingError, match="root"):
        nccl_program(hopper, "broadcast", None, LARGE)


def test_one_gpu_copies_its_input():
    program = made(dgx1(5), "allreduce", None, 1 << 20)
    bc.verify(program)
    assert program.connections == ()


@pytest.mark.parametrize("name", ["dgx1-v100", "dgx-a100", "mi300x", "rtx4090x8"])
@pytest.mark.parametrize("collective", ["alltoall", "gather", "scatter"])
@pytest.mark.parametrize("nbytes", [1024, LARGE])
def test_sends_and_receives_are_proved_and_keep_within_the_links(name, collective, nbytes):
    topology = load_topology(name)
    root = None if collective == "alltoall" else 3
    program = baseline_program("nccl", topology, collective, root, nbytes)
    verify(program)
    assert program.nchannels <= 128 + len(program.weights)
    assert {c.protocol for c in program.connections} == {"LL" if nbytes == 1024 else "simple"}
    result = run(program, nbytes)
    assert max(result.link_utilisation.values()) <= 1


def test_an_all_to_all_without_nvlink_between_two_gpus_crosses_a_third():
    program = nccl_program(dgx1(0, 1, 4), "alltoall", None, LARGE)
    ends = {(c.src, c.dst) for c in program.connections}
    assert (1, 2) not in ends and (2, 1) not in ends, "GPUs 1 and 4 have no link"
    assert all(path_kind == "NVLINK" for c in program.connections for path_kind in _kinds(program, c.path))
    verify(program)


def _kinds(program, path):
    kinds = {(program.topology.vertex(k.src), program.topology.vertex(k.dst)): k.kind for k in program.topology.links}
    return [kinds[hop] for hop in pairwise(path)]
