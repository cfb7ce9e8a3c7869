"""Data that passes through a host: by measured rates it goes where machines take it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from blinkcoll.schedules import lower_rings
from blinkcoll.schedules.sendrecv import lower_sendrecv
from blinkcoll.simulator import run
from blinkcoll.simulator.hostways import HostWays
from blinkcoll.topology import load_topology, route

CARDS = load_topology("rtx4090x8")  # four below a switch on each of two sockets, no peer access
RATE = Fraction("18.3")


def test_cards_below_one_switch_meet_in_their_host():
    ways = HostWays(CARDS)
    assert route(CARDS, 0, 1) == (0, "plx0", 1)
    assert ways.way(route(CARDS, 0, 1)).path == (0, "plx0", "cpu0", "plx0", 1)
    assert ways.way(route(CARDS, 1, 0)).medium == ways.way(route(CARDS, 0, 1)).medium
    assert ways.way(route(CARDS, 0, 5)).path == route(CARDS, 0, 5), "it passes the hosts anyway"


def test_two_cards_reach_one_way_what_both_ways_share():
    pair = CARDS.subset([0, 1])
    one_way = run(lower_sendrecv(pair, 0, shares=2), 1 << 30, rates="measured").algbw
    ring = run(lower_rings(pair, [[0, 1]] * 8), 1 << 30, rates="measured").busbw
    assert one_way == pytest.approx(float(RATE), rel=0.01)
    assert ring == pytest.approx(float(RATE) / 2, rel=0.06)


def test_a_switch_of_four_cards_shares_its_way_to_the_host():
    four = CARDS.subset([0, 1, 2, 3])  # the cut drops the CPU, not the way through it
    busbw = run(lower_rings(four, [[0, 1, 2, 3]] * 2), 1 << 30, rates="measured").busbw
    assert busbw == pytest.approx(float(RATE) / 4, rel=0.05)
    assert run(lower_rings(four, [[0, 1, 2, 3]] * 2), 1 << 30).busbw > 4 * busbw, "plans count links alone"


def test_peer_traffic_that_turns_round_in_an_intel_cpu_pays_for_it():
    links = tuple(replace(k, dst=k.dst.replace("plx", "cpu"), src=k.src.replace("plx", "cpu")) for k in CARDS.links)
    cpus = tuple(switch for switch in CARDS.switches if switch.kind == "cpu")
    pair = replace(CARDS, no_peer_access=(), switches=cpus, links=tuple(k for k in links if k.src != k.dst)).subset([0, 1])
    by_peers = run(lower_sendrecv(pair, 0, shares=2), 1 << 30, rates="measured").algbw
    assert by_peers == pytest.approx(float(RATE) * 5 / 6, rel=0.01)


def test_links_carry_the_bytes_that_pass_the_host():
    pair = CARDS.subset([0, 1])
    result = run(lower_sendrecv(pair, 0), 1 << 20, rates="measured")
    assert result.link_bytes["plx0", "cpu0"] == result.link_bytes["cpu0", "plx0"] == pytest.approx(1 << 20)
