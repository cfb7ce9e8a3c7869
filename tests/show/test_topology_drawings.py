"""Drawings hold what the topology holds: every device, every wire, and nothing outside the frame."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from blinkcoll.show.topology_dot import topology_dot, wires
from blinkcoll.show.topology_matrix import links_per_device, matrix
from blinkcoll.show.topology_svg import topology_svg
from blinkcoll.show.topology_tree import pcie_tree_text
from blinkcoll.topology import distance, load_topology

MACHINES = ["dgx1-v100", "dgx2", "hgx-h100", "mi250x", "ac922", "rtx4090x8", "gb200-nvl72", "host", "dgx-a100*3@25"]


@pytest.mark.parametrize("name", MACHINES)
def test_svg_stays_inside_its_frame_and_boxes_do_not_overlap(name):
    root = ET.fromstring(topology_svg(load_topology(name)))
    _, _, width, height = map(float, root.get("viewBox").split())
    boxes = []
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        if rect.get("rx") == "5":
            x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
            assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
            boxes.append((x, y, x + w, y + h))
    assert boxes
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


def test_svg_draws_one_line_for_each_pair_of_the_dgx1():
    topology = load_topology("dgx1-v100").restrict(["NVLINK"])
    root = ET.fromstring(topology_svg(topology))
    paths = [e for e in root.iter("{http://www.w3.org/2000/svg}path")]
    assert len(paths) == 16
    assert len({p.get("stroke-width") for p in paths}) == 2


@pytest.mark.parametrize("name", MACHINES)
def test_dot_has_every_vertex_and_every_wire_once(name):
    topology = load_topology(name)
    text = topology_dot(topology)
    for vertex in (*topology.devices, *topology.switches):
        assert f'"{vertex.name}" [shape' in text
    assert len(re.findall(r" -> ", text)) == len(topology.links) // 2 == len(wires(topology))


def test_one_way_links_are_arrows():
    topology = load_topology("dgx1-v100").restrict(["NVLINK"])
    one_way = replace(topology, links=topology.links[:1])
    assert "dir=forward" in topology_dot(one_way)


def test_matrix_says_what_distance_says_and_marks_refused_pairs():
    topology = load_topology("rtx4090x8")
    rows = [line.split() for line in matrix(topology).splitlines()]
    assert rows[1][1:9] == ["X", *(f"{distance(topology, 'gpu0', f'gpu{i}')}*" for i in range(1, 8))]
    assert rows[1][-1] == "cpu0"


def test_wide_matrices_say_what_they_leave_out():
    assert "48 more devices and NICs are not shown" in matrix(load_topology("gb200-nvl72"))


def test_links_per_device_adds_up():
    rows = [line.split() for line in links_per_device(load_topology("dgx1-v100")).splitlines()]
    assert rows[1][:5] == ["gpu0", "0", "sm_70", "120", "(6)"]


def test_alike_servers_are_drawn_once():
    text = pcie_tree_text(load_topology("dgx1-v100*4@12.5"))
    assert "server 0 (and 3 more like it)" in text
    assert "s1.gpu0" not in text


def test_names_cannot_break_out_of_a_drawing():
    topology = replace(load_topology("a6000-nvbridge"), name='x" ]; <script>&')
    ET.fromstring(topology_svg(topology))
    assert r"x\" ]; <script>&" in topology_dot(topology)
