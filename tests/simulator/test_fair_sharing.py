"""Flows over shared links, coming and going, against an independent fluid model that computes all rates anew each time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkcoll.schedules import INPUT, OUTPUT, Channel, Connection, Program, Step, slot
from blinkcoll.schedules.program import PROTOCOLS
from blinkcoll.simulator import Launch, Parameters, Protocol, run
from blinkcoll.topology import Device, Link, Switch, Topology

CHANNEL_GB_S = 30.0


@st.composite
def crossings(draw: st.DrawFn) -> tuple[list[float], list[tuple[tuple[int, ...], int, float]]]:
    """Capacities of up to five links in a row (GB/s), and flows: the links each crosses, its weight, when it starts (us)."""
    capacities = [float(draw(st.integers(1, 60))) for _ in range(draw(st.integers(1, 5)))]
    starts = [float(draw(st.integers(0, 40))) for _ in PROTOCOLS]
    flows = []
    for _ in range(draw(st.integers(1, 8))):
        first = draw(st.integers(0, len(capacities) - 1))
        last = draw(st.integers(first, len(capacities) - 1))
        flows.append((tuple(range(first, last + 1)), draw(st.integers(1, 20)), draw(st.sampled_from(starts))))
    return capacities, flows


def fluid_ends(capacities: list[float], flows: list[tuple[tuple[int, ...], float, float]]) -> list[float]:
    """When each flow (links, bytes, start in us) ends: from event to event, by progressive filling over all of them."""
    left = [nbytes for _, nbytes, _ in flows]
    ends = [0.0] * len(flows)
    now, waiting = 0.0, set(range(len(flows)))
    while waiting:
        active = {i for i in waiting if flows[i][2] <= now + 1e-9}
        rates: dict[int, float] = {}
        room = {link: capacity * 1e3 for link, capacity in enumerate(capacities)}
        while len(rates) < len(active):
            open_flows = active - rates.keys()
            level = min([CHANNEL_GB_S * 1e3] + [room[k] / n for k in room if (n := sum(k in flows[i][0] for i in open_flows))])
            full = {k for k in room if (n := sum(k in flows[i][0] for i in open_flows)) and room[k] / n <= level * (1 + 1e-12)}
            for i in sorted(open_flows):
                if level >= CHANNEL_GB_S * 1e3 or full & set(flows[i][0]):
                    rates[i] = level
                    for k in flows[i][0]:
                        room[k] -= level
        events = [now + left[i] / rates[i] for i in active] + [flows[i][2] for i in waiting - active]
        after = min(events)
        for i in active:
            left[i] -= rates[i] * (after - now)
            if left[i] <= 1e-6:
                ends[i] = after
                waiting.discard(i)
        now = after
    return ends


@settings(max_examples=200, deadline=None)
@given(crossings())
def test_ends_are_those_of_a_fluid_model(case):
    capacities, flows = case
    starts = sorted({start for _, _, start in flows})  # each is what one protocol's synchronisation takes
    n = len(capacities)
    switches = tuple(Switch(f"s{i}", "pcie") for i in range(n + 1))
    links = [Link(f"s{i}", f"s{i + 1}", "PCIE", Fraction(int(c))) for i, c in enumerate(capacities)]
    devices, connections, ranks = [], [], []
    for i, (crossed, _, _) in enumerate(flows):
        devices += [Device(f"from{i}"), Device(f"to{i}")]
        links += [Link(f"from{i}", f"s{crossed[0]}", "PCIE", Fraction(10_000)), Link(f"s{crossed[-1] + 1}", f"to{i}", "PCIE", Fraction(10_000))]
        path = (2 * i, *(f"s{k}" for k in (*crossed, crossed[-1] + 1)), 2 * i + 1)
        connections.append(Connection(2 * i, 2 * i + 1, path, protocol=PROTOCOLS[starts.index(flows[i][2])]))
        ranks.append((Channel((Step("copy", i, (INPUT,), (slot(i),), wait=(i,), signal=(i,)),)),))
        ranks.append((Channel((Step("copy", i, (slot(i),), (OUTPUT,), wait=(i,), signal=(i,)),)),))
    weights = tuple(weight for _, weight, _ in flows)
    program = Program("by hand", "alltoall", Topology("row", tuple(devices), switches, tuple(links)), 1, weights, tuple(connections), tuple(ranks))
    params = Parameters(
        launch=Launch(0), channel_gb_s=CHANNEL_GB_S, memory_gb_s=1e6,
        protocols=tuple((name, Protocol(busy_us=starts[i] if i < len(starts) else 0.0)) for i, name in enumerate(PROTOCOLS)),
    )  # fmt: skip
    nbytes = 160_000 * sum(weights)
    result = run(program, nbytes, chunk_bytes=nbytes, params=params, trace=True)
    simulated = {r.rank // 2: r.end_us for r in result.trace if r.rank % 2 == 0}
    expected = fluid_ends(capacities, [(crossed, 160_000 * weight, start) for crossed, weight, start in flows])
    assert [simulated[i] for i in range(len(flows))] == pytest.approx(expected, rel=1e-6)
