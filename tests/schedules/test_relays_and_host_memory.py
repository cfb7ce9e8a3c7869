"""Programs with relays and with slots in host memory: proven, unrolled, written and read back; broken ones refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from schedules import unrolled

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.schedules import INPUT, OUTPUT, Channel, Operand, Program, Step, slot
from blinkcoll.schedules.text import program_text
from blinkcoll.show.program_dot import program_dot
from blinkcoll.topology import Device, Link, Topology

ALL = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
DGX1 = bc.load_topology("dgx1-v100")
BORROWED = DGX1.subset([0, 1], relays=[2, 3])


def program_of(topology, collective, **options):
    root = 0 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    return bc.plan(topology, collective, root=root, **options).schedule(nbytes=1 << 20, max_channels=64)


@pytest.mark.parametrize("collective", ALL)
@pytest.mark.parametrize("topology", [BORROWED, DGX1.subset([0, 1, 4], relays=[2, 5])], ids=["two", "three"])
def test_relays_execute_without_being_ranks(topology, collective):
    program = program_of(topology, collective)
    assert (program.nranks, program.nexecutors) == (topology.nranks, topology.nranks + 2)
    bc.verify(program, repeated=True)
    unrolled.verify(program)
    assert Program.from_json(program.to_json()) == program
    own = {o.buffer for channels in program.ranks[topology.nranks :] for channel in channels for s in channel.steps for o in (*s.srcs, *s.dsts)}
    assert own == {"slot"}
    assert "relay gpu2" in program_text(program) and "gpu2" in program_dot(program)


def test_relays_without_work_are_no_executors():
    topology = DGX1.subset([0, 3], relays=[6])
    program = program_of(replace(topology, links=tuple(k for k in topology.links if "gpu6" not in (k.src, k.dst))), "allreduce")
    assert program.nexecutors == program.nranks == 2


def test_a_relay_adds_what_comes_up():
    program = program_of(star(), "allreduce")
    steps = [s for channels in program.ranks[3:] for channel in channels for s in channel.steps]
    assert any(s.op == "reduce" and all(o.buffer == "slot" for o in s.srcs) for s in steps)


@pytest.mark.parametrize(("operand", "message"), [(INPUT, "has no input of rank 2"), (OUTPUT, "has no output of rank 2")])
def test_a_relay_has_neither_input_nor_output(operand, message):
    program = program_of(BORROWED, "allreduce")
    channels = program.ranks[2]
    step = channels[0].steps[0]
    touched = replace(step, srcs=(operand,), op="copy") if operand is INPUT else replace(step, dsts=(*step.dsts, operand))
    broken = replace(program, ranks=(*program.ranks[:2], (Channel((touched, *channels[0].steps[1:])), *channels[1:]), *program.ranks[3:]))
    with pytest.raises(ScheduleError, match=message):
        bc.verify(broken)


def test_relays_run_all_or_none():
    program = program_of(BORROWED, "allreduce")
    with pytest.raises(ScheduleError, match="has 3 ranks, its topology 2 and 2 relays"):
        bc.verify(replace(program, ranks=program.ranks[:3]))


def test_a_sum_that_leaves_a_rank_out_at_a_relay_is_refused():
    program = program_of(star(), "allreduce")
    c, step = next((c, channel.steps[0]) for c, channel in enumerate(program.ranks[3]) if channel.steps[0].op == "reduce")
    less = Channel((replace(step, srcs=step.srcs[:1], op="copy"),))
    with pytest.raises(ScheduleError, match="inputs once each"):
        bc.verify(replace(program, ranks=(*program.ranks[:3], (*program.ranks[3][:c], less, *program.ranks[3][c + 1 :]))))


def star():
    """Three ranks that only a relay joins."""
    names = [f"gpu{i}" for i in range(4)]
    links = tuple(Link(*ends, "NVLINK", Fraction(20)) for name in names[:3] for ends in ((name, "gpu3"), ("gpu3", name)))
    return Topology("star", tuple(Device(name, index=i) for i, name in enumerate(names)), (), links).subset([0, 1, 2], relays=[3])


HYBRID = program_of(DGX1.subset([0, 1]), "allreduce", method="hybrid")


def test_hops_beside_nvlink_have_their_slots_in_host_memory():
    transports = {c.path: c.transport for c in HYBRID.connections}
    assert transports == {(0, 1): "peer", (1, 0): "peer", (0, "plx0", "cpu0", "plx0", 1): "host", (1, "plx0", "cpu0", "plx0", 0): "host"}
    assert Program.from_json(HYBRID.to_json()) == HYBRID
    unrolled.verify(HYBRID)


@pytest.mark.parametrize(
    ("path", "transport", "message"),
    [
        ((0, 1), "host", "slots lie in host memory, and its path 0→1 crosses no CPU"),
        ((0, "plx0", 1), "host", "crosses no CPU"),
        ((0, "plx0", "cpu0", "plx0", 1), "peer", "lies beside the NVLink that peer access takes"),
        ((0, "plx0", 1), "peer", "lies beside the NVLink that peer access takes"),
        ((0, 1), "telepathy", "unknown protocol 'simple' or transport 'telepathy'"),
    ],
)
def test_a_transport_that_does_not_fit_the_path_is_refused(path, transport, message):
    i = next(i for i, c in enumerate(HYBRID.connections) if (c.src, c.dst) == (0, 1))
    connection = replace(HYBRID.connections[i], path=path, transport=transport)
    with pytest.raises(ScheduleError, match=message):
        bc.verify(replace(HYBRID, connections=(*HYBRID.connections[:i], connection, *HYBRID.connections[i + 1 :])))


@pytest.mark.parametrize("protocol", ["LL", "LL128"])
def test_lines_in_host_memory_are_refused(protocol):
    """Its slots are as large as chunks, and lines are larger."""
    i = next(i for i, c in enumerate(HYBRID.connections) if c.transport == "host")
    changed = replace(HYBRID.connections[i], protocol=protocol)
    with pytest.raises(ScheduleError, match=f"connection c{i} .*: protocol {protocol} is lines in the reader's memory, which transport 'host' has not"):
        bc.verify(replace(HYBRID, connections=(*HYBRID.connections[:i], changed, *HYBRID.connections[i + 1 :])))


def test_a_plan_over_all_links_that_no_driver_offers_is_not_lowered():
    plan = bc.plan(DGX1.subset([0, 1]), "allreduce", links=["PCIE"])
    with pytest.raises(ScheduleError, match="peer access over NVLink, so this way has to lead through a CPU's memory"):
        plan.schedule(nbytes=1 << 20)


def test_pairs_without_peer_access_meet_in_host_memory():
    program = program_of(bc.load_topology("rtx4090x8").subset([0, 4]), "allreduce")
    assert {c.transport for c in program.connections} == {"host"}
    gpus_on_cpus = program_of(bc.load_topology("ac922").subset([0, 2]), "allreduce")
    assert {c.transport for c in gpus_on_cpus.connections} == {"host"}
    assert {c.transport for c in program_of(bc.load_topology("l40sx8").subset([0, 4]), "allreduce").connections} == {"peer"}


def test_a_peers_buffer_can_be_a_relays_scratch_only():
    program = program_of(BORROWED, "broadcast")
    step = Step("copy", 0, (Operand("input", rank=2),), (OUTPUT,))
    with pytest.raises(ScheduleError, match="has no input of rank 2"):
        bc.verify(replace(program, ranks=((*program.ranks[0], Channel((step,))), *program.ranks[1:])))
    assert slot(0).rank is None
