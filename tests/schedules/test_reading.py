"""Programs from files: what is wrong with one is said, with its place, and no text at all makes anything else than an error."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from dataclasses import replace
from functools import cache
from random import Random

import pytest
from servers import boxes

import blinkcoll as bc
from blinkcoll.errors import BlinkcollError, ScheduleError
from blinkcoll.schedules import Program, encode, lower_nvls, program_summary, program_text
from blinkcoll.show.program_dot import program_dot

V100 = bc.load_topology("dgx1-v100")


@cache
def programs() -> list[Program]:
    """Every kind of field there is."""
    return [
        bc.plan(V100.subset([0, 1, 4]), "allreduce").schedule(nbytes=1 << 10, max_channels=2, protocol="LL"),
        bc.plan(V100.subset([0, 1, 4]), "alltoall").schedule(nbytes=1 << 10, uneven=True, max_channels=4, protocol="simple"),
        bc.plan(V100.subset([0, 1], relays=[2]), "broadcast", root=0).schedule(nbytes=1 << 10, max_channels=3, protocol="simple"),
        bc.plan(V100.subset([0, 1]), "allreduce", method="hybrid").schedule(nbytes=1 << 10, protocol="simple"),
        lower_nvls(bc.plan(bc.load_topology("hgx-h100").subset([0, 1, 2]), "allreduce", method="nvls"), max_channels=3),
        bc.plan(boxes([2, 1]), "allreduce", method="three-phase").schedule(nbytes=1 << 10, engine="c10d"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_all_kinds_round_trip_in_the_same_bytes(number):
    program = programs()[number]
    again = Program.from_json(program.to_json())
    assert again == program and again.to_json() == program.to_json() and again.hash == program.hash
    assert Program.from_json(json.dumps(json.loads(program.to_json()), indent=2)) == program, "white space is no part of it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: it is empty"),
        (" \n", "not JSON: it is empty"),
        ("[" * 200_000, "not JSON that can be read"),
        ('{"schema": ' + "9" * 5000 + "}", "not JSON that can be read"),
        ("[]", "there is no schema: this is no program"),
        ('{"devices": []}', "there is no schema: this is no program"),
        ('{"schema": 3, "generator": "blinkcoll 9.1"}', r"expected schema 2, got 3, made by blinkcoll 9\.1; blinkcoll .* does not read it: lower the plan anew"),
        ('{"schema": "2"}', "expected schema 2, got '2'"),
        ('{"schema": 2}', "missing field"),
    ],
)
def test_what_is_no_program_says_so(text, message):
    with pytest.raises(ScheduleError, match=f"^program JSON: {message}"):
        Program.from_json(text)


def test_a_file_that_is_cut_off_anywhere_says_where():
    whole = programs()[0].to_json()
    for length in range(1, len(whole), 97):
        with pytest.raises(ScheduleError, match=r"not JSON: .* \(line 1, column \d+\); the file seems to be cut off"):
            Program.from_json(whole[:length])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("ranks", 1, 0, 0, "share"), 0.5, "rank 1, channel 0, step 0: malformed share: 0.5, expected a whole number"),
        (("ranks", 2, 1, 0, "srcs", 0, "buffer"), None, "rank 2, channel 1, step 0: malformed buffer: None, expected text"),
        (("ranks", 2, 1, 0, "wait"), 3, "rank 2, channel 1, step 0: malformed wait: 3, expected a list"),
        (("ranks", 0, 0), {}, "rank 0, channel 0: malformed steps: {}, expected a list"),
        (("ranks", 0, 0, 0), [], r"rank 0, channel 0, step 0: malformed: expected the fields of a step, got \[\]"),
        (("ranks", 0), None, "rank 0: malformed channels: None, expected a list"),
        (("ranks", 0, 0, 0, "colour"), 1, "rank 0, channel 0, step 0: unknown field 'colour'"),
        (("connections", 2, "slots"), True, "connection c2: malformed slots: True, expected a whole number"),
        (("connections", 1, "path"), [0, None], "connection c1: malformed path: None, expected a whole number"),
        (("connections", 0), 7, "connection c0: malformed: expected the fields of a connection, got 7"),
        (("algorithm",), "tr\x1b[31mees", "malformed algorithm: 'tr.*, expected text"),
        (("algorithm",), "tr\ud800ees", "malformed algorithm: 'tr.*, expected text"),
        (("in_place",), 1, "malformed in_place: 1, expected true or false"),
        (("comment",), "mine", "unknown field 'comment'"),
    ],
)
def test_malformed_fields_are_named_with_their_place(path, value, message):
    body = json.loads(programs()[0].to_json())
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ScheduleError, match=f"^program JSON: {message}"):
        Program.from_json(json.dumps(body))


@pytest.mark.parametrize(("path", "message"), [(("ranks", 1, 0, 0, "op"), "rank 1, channel 0, step 0: missing field 'op'"), (("connections", 1, "dst"), "connection c1: missing field 'dst'"), (("hash",), "missing field 'hash'")])
def test_missing_fields_are_named_with_their_place(path, message):
    body = json.loads(programs()[0].to_json())
    place = body
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    with pytest.raises(ScheduleError, match=f"^program JSON: {message}"):
        Program.from_json(json.dumps(body))


# -- anything ----------------------------------------------------------------------------------------------------------

VALUES = [
    None, -1, 0, 1, 2, 7, 10**6, 1 << 31, 1 << 63, 10**30, 1.5, float("nan"), "x", "", "LL", "slot", "multicast", "output", "host", "c10d",
    [], {}, True, False, [0], ["x"], [0, 0], [[0]], {"a": 1}, "\ud800", "a\nb",
]  # fmt: skip
NAMES = ("zzz", "after", "rank", "group", "over", "lag", "region", "connection", "srcs", "dsts")


def damaged(program: Program, random: Random) -> dict:
    """Its JSON with one to three values gone, doubled, added or replaced; rarely in the topology."""
    body = json.loads(program.to_json())
    del body["fingerprint"]
    places = [p for p in paths(body) if p and (p[0] != "topology" or random.random() < 0.02)]
    for path in random.sample(places, random.choice([1, 1, 2, 3])):
        with suppress(KeyError, IndexError, TypeError):  # an earlier damage has taken that place away
            damage(body, path, random)
    return body


def paths(node, at=()):
    yield at
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from paths(inner, (*at, key))


def damage(body, path, random):
    *above, last = path
    for key in above:
        body = body[key]
    kind = random.random()
    if kind < 0.15:
        del body[last]
    elif kind < 0.25 and isinstance(body, list):
        body.insert(last, copy.deepcopy(body[last]))
    elif kind < 0.35 and isinstance(body, dict):
        body[random.choice(NAMES)] = random.choice(VALUES)
    else:
        body[last] = random.choice(VALUES)


def read(body: dict) -> Program | None:
    """The program, its hash put right; None where it is refused."""
    for _ in range(2):
        try:
            return Program.from_json(json.dumps(body))
        except BlinkcollError as error:
            found = re.search(r"its content hashes to (\w+)", str(error))
            body["hash"] = found[1] if found else None
    return None


def outcomes(seed: int, examples: int) -> set[str]:
    """What becomes of damaged files; anything but an error of ours is let through."""
    random, seen = Random(seed), set()
    for _ in range(examples):
        program = read(damaged(random.choice(programs()), random))
        if program is None:
            seen.add("refused as a file")
            continue
        assert Program.from_json(program.to_json()) == program
        assert program_text(program) and program_summary(program)
        with suppress(BlinkcollError):
            program_dot(program)
        try:
            bc.verify(program, repeated=True)
        except ScheduleError:
            seen.add("refused by the verifier")
            continue
        seen.add("accepted")
        with suppress(BlinkcollError):
            encode(program)
            bc.simulate(program, 8 * program.nranks * program.nshards)
    return seen


def test_programs_that_fit_no_machine_are_shown_all_the_same():
    """``blinkcoll show`` does not verify: whoever looks for what is wrong wants to see it."""
    program = programs()[0]
    for damage in ({"ranks": ()}, {"ranks": program.ranks * 3}, {"connections": ()}, {"weights": ()}):
        shown = replace(program, **damage)
        assert program_text(shown).startswith("program ") and program_summary(shown).startswith("program ")
        with pytest.raises(ScheduleError):
            bc.verify(shown)


def test_a_damaged_file_is_refused_or_right_and_never_anything_else():
    assert outcomes(1, 250) == {"refused as a file", "refused by the verifier", "accepted"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_more_damaged_files(seed):
    outcomes(seed, 3000)
