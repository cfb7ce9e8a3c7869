"""Programs as data: JSON, hash, text, bytes, and the budget of channels."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from allocations import classes, name_of

import blinkcoll as bc
from blinkcoll.schedules import encode, lower_rings, lower_trees, program_text
from blinkcoll.schedules.shares import integer_weights


@pytest.fixture(scope="module")
def program():
    return bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 2, 4]), "allreduce").schedule(nbytes=1 << 20)


def test_json_round_trips(program):
    again = bc.Program.from_json(program.to_json())
    assert again == program
    assert (again.hash, again.chunk_bytes, encode(again)) == (program.hash, program.chunk_bytes, encode(program))
    assert again.to_json() == program.to_json()


def test_the_chunk_size_is_no_part_of_the_identity(program):
    other = program.with_chunk_bytes(program.chunk_bytes + 16)
    assert other == program and other.hash == program.hash and encode(other) == encode(program)


def test_a_changed_program_has_another_hash_and_its_json_is_refused(program):
    body = json.loads(program.to_json())
    body["weights"][0] += 1
    with pytest.raises(bc.ScheduleError, match="its hash says"):
        bc.Program.from_json(json.dumps(body))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', "null"])
def test_other_json_is_refused(text):
    with pytest.raises(bc.ScheduleError):
        bc.Program.from_json(text)


def test_the_text_names_every_connection_and_step(program):
    text = program_text(program)
    steps = sum(len(channel.steps) for channels in program.ranks for channel in channels)
    assert text.count(" step ") == steps
    assert all(f"  c{i} " in text for i in range(len(program.connections)))
    assert program.hash in text and program.topology.fingerprint in text


def test_a_ring_hop_without_a_link_goes_over_the_pcie_tree():
    ring = lower_rings(bc.load_topology("dgx1-v100").subset([0, 1, 4]), [[0, 1, 2]])
    assert [c.path for c in ring.connections] == [(0, 1), (1, "plx0", "cpu0", "cpu1", "plx2", 2), (2, 0)]


@pytest.mark.parametrize("topology", classes(), ids=name_of)
def test_channels_stay_within_the_budget(topology):
    plan = bc.plan(topology, "allreduce")
    least = 2 * len(plan.trees)
    for budget in (least, least + 3, 32, 64):
        if budget < least:
            continue
        program = lower_trees(plan, max_channels=budget)
        assert program.nchannels <= budget
        assert sum(program.weights) > 0 and len(program.weights) >= len(plan.trees)
    with pytest.raises(bc.ScheduleError, match="max_channels"):
        lower_trees(plan, max_channels=1)


def test_shares_are_in_the_proportion_of_the_rates():
    plan = bc.plan(bc.load_topology("dgx1-v100"), "allreduce")
    program = lower_trees(plan, max_channels=1000)
    rates = {}
    for rank, channels in enumerate(program.ranks):
        for channel in channels:
            for step in channel.steps:
                if any(o.buffer == "output" for o in step.dsts) and any(o.buffer == "input" for o in step.srcs):
                    rates.setdefault(rank, Fraction(0))
                    rates[rank] += Fraction(program.weights[step.share], sum(program.weights))
    expected: dict[int, Fraction] = {}
    for tree in plan.trees:
        expected[tree.root] = expected.get(tree.root, Fraction(0)) + tree.weight
    assert rates == expected, "each root ends up with its trees' weight"


def test_json_says_who_made_it_for_which_machine(program):
    body = json.loads(program.to_json())
    assert body["generator"] == f"blinkcoll {bc.__version__}" and body["fingerprint"] == program.topology.fingerprint
    assert bc.Program.from_json(json.dumps(body | {"generator": "another 7"})).hash == program.hash, "no part of what is executed"
    with pytest.raises(bc.ScheduleError, match="the file says 0123"):
        bc.Program.from_json(json.dumps(body | {"fingerprint": "0123"}))
    again = bc.plan(program.topology, program.collective).schedule(nbytes=1 << 20)
    assert again.to_json() == program.with_chunk_bytes(again.chunk_bytes).to_json(), "the same bytes"


@pytest.mark.parametrize("rates", [["1/3", "1/2"], ["1"], ["5/7", "10/7", "1/7"], ["1/1000003", "999983/7"]])
def test_integer_weights_are_exact_where_they_fit(rates):
    exact = [Fraction(r) for r in rates]
    weights = integer_weights(exact)
    assert sum(weights) < 1 << 31
    for weight, rate in zip(weights, exact, strict=True):
        assert abs(Fraction(weight, sum(weights)) - rate / sum(exact)) < Fraction(1, 1 << 29)
        assert weight > 0


@pytest.mark.parametrize(
    ("path", "value"),
    [(("nshards",), "abc"), (("weights",), ["1"]), (("root",), True), (("ranks", 0, 0, 0, "share"), 0.0), (("ranks", 0, 0, 0, "op"), ["copy"]),
     (("ranks", 0, 0, 0, "wait"), ["0"]), (("connections", 0, "slots"), 2.5), (("connections", 0, "path"), [0, None])],
)  # fmt: skip
def test_json_fields_of_the_wrong_type_are_refused(program, path, value):
    body = json.loads(program.to_json())
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(bc.ScheduleError, match="malformed"):
        bc.Program.from_json(json.dumps(body))
