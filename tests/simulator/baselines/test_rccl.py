from __future__ import annotations

from collections import Counter

import pytest

from blinkcoll.schedules import verify
from blinkcoll.simulator.baselines.rccl import choose, cycles_of_a_mesh, rccl_program, rings
from blinkcoll.topology import load_topology

MI300X, MI250X = load_topology("mi300x"), load_topology("mi250x")


@pytest.mark.parametrize("n", range(3, 17))
def test_the_cycles_of_a_mesh_use_every_directed_link_equally_often(n):
    cycles = cycles_of_a_mesh(n)
    assert all(sorted(cycle) == list(range(n)) for cycle in cycles)
    used = Counter((a, b) for cycle in cycles for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True))
    assert set(used.values()) == {2} and len(used) == n * (n - 1)


def test_a_whole_mi250x_runs_the_rings_of_a_table_over_xgmi_alone():
    lanes = {(MI250X.vertex(k.src), MI250X.vertex(k.dst)) for k in MI250X.links if k.kind == "XGMI"}
    orders = rings(MI250X)
    assert len(orders) == 32
    assert all(hop in lanes for ring in orders for hop in zip(ring, ring[1:] + ring[:1], strict=True))


@pytest.mark.parametrize("gpus", [(0,), (0, 1), (0, 2, 5), range(5), range(8)], ids=len)
@pytest.mark.parametrize("topology", [MI300X, MI250X], ids=lambda t: t.name)
def test_programs_of_parts_of_a_machine_are_proved(topology, gpus):
    cut = topology.subset(gpus)
    for collective, root in (("allreduce", None), ("allgather", None), ("reducescatter", None), ("broadcast", 0), ("reduce", 0)):
        for nbytes in (64, 1 << 28):
            verify(rccl_program(cut, collective, root, nbytes))


def test_the_tuner_goes_from_ll_to_simple_as_sizes_grow():
    assert choose(MI300X, "allreduce", 8)[1] == "LL"
    assert choose(MI300X, "allreduce", 1 << 30) == ("ring", "simple")
    assert choose(MI250X, "allreduce", 1 << 30)[1] == "simple"
