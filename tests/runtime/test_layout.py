"""Python's mirrors of the C++ structs are the same size, and the program's bytes read as they were written."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from itertools import combinations

import pytest
from allocations import name_of, spread

import blinkcoll as bc
from blinkcoll import _core
from blinkcoll.packing import make_plan
from blinkcoll.runtime import hostgroup, launch
from blinkcoll.schedules import encode, encoding, lower, lower_star, lower_two_shot
from blinkcoll.schedules.split import MOST_OPERANDS
from blinkcoll.topology import host_topology
from blinkcoll.topology.numa import HostNodes


def test_python_mirrors_have_the_sizes_of_the_structs():
    sizes = _core.layout_sizes()
    assert sizes["Launch"] == ctypes.sizeof(launch.LaunchRecord)
    assert sizes["BufferAddresses"] == ctypes.sizeof(launch.BufferAddresses)
    assert sizes["ConnectionAddresses"] == ctypes.sizeof(launch.ConnectionAddresses)
    assert sizes["ChannelRecord"] == ctypes.sizeof(launch.ChannelRecord)
    assert sizes["line"] == launch.LINE_BYTES
    assert sizes["ProgramHeader"] == encoding._HEADER.size
    assert sizes["most_operands"] == MOST_OPERANDS
    entries = {"RankEntry": 8, "ConnectionEntry": 24, "ChannelEntry": 12, "StepEntry": 28, "OperandEntry": 12, "SyncEntry": 8, "AfterEntry": 12}
    assert {name: sizes[name] for name in entries} == entries


# -- slots that several ranks read -------------------------------------------------------------------------------------------


def slots_of(program, shared):
    """Where each connection's slots begin, of ranks whose arenas follow each other, and how long they are."""
    code, slot_bytes = encode(program), 1000
    arenas = [launch.lay_out(program, code, rank, slot_bytes, shared=shared) for rank in range(program.nexecutors)]
    bases = [sum(arena.nbytes for arena in arenas[:rank]) for rank in range(len(arenas))]
    addresses = (launch.ConnectionAddresses * len(program.connections)).from_buffer_copy(launch.connection_table(program, arenas, bases))
    assert all(base <= addresses[i].tail < base + arena.nbytes for i, c in enumerate(program.connections) for base, arena in [(bases[c.dst], arenas[c.dst])])
    return {i: range(addresses[i].slots, addresses[i].slots + program.connections[i].slots * slot_bytes) for i in program.carrying}


def written_by(program, connection):
    """The steps that write to its slots, each with whether it waits for room and tells the reader."""
    return [
        (rank, c, s, step.dsts.count(dst), connection in step.wait, connection in step.signal)
        for rank, channels in enumerate(program.ranks) for c, channel in enumerate(channels) for s, step in enumerate(channel.steps)
        for dst in {o for o in step.dsts if o.connection == connection}
    ]  # fmt: skip


def check_shared(program):
    """Those with one place are written by the same steps, which wait for all readers; others have places of their own."""
    at = slots_of(program, shared=True)
    for a, b in combinations(at, 2):
        if at[a] == at[b]:
            assert written_by(program, a) == written_by(program, b) and all(waits and tells for *_, waits, tells in written_by(program, a))
        else:
            assert at[a].stop <= at[b].start or at[b].stop <= at[a].start
    return len(set(at.values()))


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_what_all_read_is_written_once(n):
    hosts = host_topology(n)
    assert check_shared(lower(make_plan(hosts, "allgather"), slots=4)) == n
    assert check_shared(lower_star(hosts, "broadcast", n - 1, slots=4)) == 1
    assert check_shared(lower_two_shot(hosts, slots=4)) == n * (n - 1) + n
    alltoall = lower(make_plan(hosts, "alltoall"), slots=4)
    assert check_shared(alltoall) == n * (n - 1) == len(set(slots_of(alltoall, shared=False).values()))


@pytest.mark.parametrize("topology", spread(6), ids=name_of)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "allgather", "reducescatter"])
def test_only_what_is_written_alike_is_shared(topology, collective):
    root = topology.nranks - 1 if collective == "broadcast" else None
    check_shared(bc.schedule(bc.plan(topology, collective, root=root), nbytes=1 << 20, protocol="simple"))


@pytest.mark.parametrize(("nodes", "places"), [(None, 4), (HostNodes((0, 0, 1, 1)), 12)])
def test_communicators_share_slots_where_ranks_are_under_one_memory(nodes, places):
    """Across memories each reader's slots lie in its own."""
    program = replace(lower(make_plan(host_topology(4), "allgather"), slots=4), topology=host_topology(4, nodes))
    _, arenas = hostgroup._laid_out(hostgroup._ByHash(program), 1000, False)
    assert sum(len(arena.slots) for arena in arenas) == places


def test_slots_with_counters_have_one_reader_each():
    program = lower_star(host_topology(3), "broadcast", 0)
    with pytest.raises(ValueError, match="one reader"):
        launch.lay_out(program, encode(program), 1, 64, headed=True, shared=True)
