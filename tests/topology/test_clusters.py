from fractions import Fraction

import pytest

from blinkcoll.errors import TopologyError
from blinkcoll.topology import layout_names, load_topology, pcie_distance, route


@pytest.mark.parametrize("name", layout_names())
def test_two_servers_are_joined_through_their_nics_alone(name):
    server, both = load_topology(name), load_topology(f"{name}*2@12.5")
    assert both.nranks == 2 * server.nranks
    assert [d.index for d in both.devices] == list(range(both.nranks))
    way = route(both, 0, both.nranks - 1)
    assert "network" in way
    assert not [v for v in way[1:-1] if isinstance(v, int)]
    across = [k for k in both.links if "network" in (k.src, k.dst)]
    nics = sum(s.kind == "nic" for s in server.switches) or server.nranks
    assert len(across) == 2 * 2 * nics
    assert {k.capacity for k in across} == {Fraction(25, 2)}
    assert {d.server for d in both.devices if d.name.startswith("s0.")}.isdisjoint({d.server for d in both.devices if d.name.startswith("s1.")})


def test_each_server_of_a_cluster_is_the_server():
    both = load_topology("dgx1-v100*3@25")
    for s in range(3):
        part = both.subset(list(range(8 * s, 8 * s + 8)))
        assert part.restrict(["NVLINK"]).isomorphic(load_topology("dgx1-v100").restrict(["NVLINK"]))
    assert pcie_distance(both, "s0.gpu0", "s1.gpu0") == "NET"
    assert pcie_distance(both, "s0.gpu0", "s0.nic0") == "PIX"


def test_a_file_can_be_a_server(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(load_topology("a6000-nvbridge").to_json())
    assert load_topology(f"{path}*2@3").nranks == 8


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("dgx1-v100*2", "NAME*N@RATE"),
        ("dgx1-v100*0@10", "at least one server"),
        ("dgx1-v100*2@0", "above 0"),
        ("dgx1-v100*2@-3", "above 0"),
        ("dgx1-v100*2@fast", "fast"),
        ("dgx1-v100*2@", "rate"),
        ("dgx1-v100*999999@1", "at most"),
        ("nowhere*2@10", "nowhere"),
        ("no\0where", "neither"),
        ("x" * 5000, "neither"),
    ],
)
def test_what_is_no_cluster_is_refused(source, expected):
    with pytest.raises(TopologyError) as caught:
        load_topology(source)
    assert expected in str(caught.value)
