from __future__ import annotations

import json
from itertools import pairwise

import pytest

from blinkcoll.errors import SimulationError
from blinkcoll.export.perfetto import trace_events, write_trace
from blinkcoll.packing import make_plan
from blinkcoll.schedules import lower_trees
from blinkcoll.simulator import run
from blinkcoll.topology import load_topology

PROGRAM = lower_trees(make_plan(load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce"))
RESULT = run(PROGRAM, 1 << 18, chunk_bytes=1 << 14, trace=True)
EVENTS = trace_events(PROGRAM, RESULT)["traceEvents"]


def test_every_step_is_a_slice_on_its_channels_track():
    slices = [e for e in EVENTS if e["ph"] == "X" and e["cat"] == "step"]
    assert len(slices) == RESULT.nsteps
    tracks = {(e["pid"], e["tid"]) for e in EVENTS if e["ph"] == "M" and e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in slices} <= tracks
    assert max(e["ts"] + e["dur"] for e in slices) == pytest.approx(RESULT.time_us)


def test_slices_of_a_track_do_not_overlap():
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for e in EVENTS:
        if e["ph"] == "X":
            tracks.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
    for spans in tracks.values():
        spans.sort()
        assert all(before[1] <= after[0] + 1e-6 for before, after in pairwise(spans))


def test_counters_integrate_to_the_bytes_of_each_link():
    topology = PROGRAM.topology
    for hop, carried in RESULT.link_bytes.items():
        name = f"{topology.vertex_name(hop[0])}→{topology.vertex_name(hop[1])}"
        points = sorted((e["ts"], e["args"]["GB/s"]) for e in EVENTS if e["ph"] == "C" and e["name"] == name)
        area = sum(rate * 1e3 * (after - ts) for (ts, rate), (after, _) in pairwise(points))
        assert area == pytest.approx(carried, rel=1e-3)
        assert points[-1][1] == 0
        assert max(rate for _, rate in points) <= float(topology.capacities()[hop]) * (1 + 1e-3)


def test_arrows_lead_forward_in_time_from_the_sender():
    starts = {e["id"]: e for e in EVENTS if e["ph"] == "s"}
    ends = {e["id"]: e for e in EVENTS if e["ph"] == "f"}
    assert starts and starts.keys() == ends.keys()
    assert all(starts[i]["ts"] <= ends[i]["ts"] and starts[i]["pid"] != ends[i]["pid"] for i in starts)


def test_names_say_who_and_what():
    names = {e["args"]["name"] for e in EVENTS if e["ph"] == "M" and "name" in e["args"]}
    assert {"rank 0 (gpu0)", "rank 2 (gpu4)", "critical path", "links, GB/s on the wire"} <= names
    assert any(e["name"].startswith("reduce share 0 chunk 0") for e in EVENTS if e["ph"] == "X")


def test_the_file_is_json(tmp_path):
    write_trace(PROGRAM, RESULT, tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text())["otherData"]["topology"].startswith("dgx1-v100")


def test_without_a_trace_there_is_nothing_to_export():
    with pytest.raises(SimulationError, match="trace=True"):
        trace_events(PROGRAM, run(PROGRAM, 1 << 18))
