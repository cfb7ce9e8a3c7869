"""Blink's three-phase plans for several servers (Wang et al., MLSys 2020, section 3.5).

Each partition of the data is reduced inside every server over a local tree to a root of its own there; the roots exchange
their sums by a reduce and a broadcast around one of them, the hub; the result goes down local trees again. Broadcasts have the
last two phases (the root's server hands the data to the partition's root on its way down a tree, and that to the hub), reduces the
first two. ``threephaselp`` finds how much of the data has which root, hub and way; here trees are packed for that, and
all of it is cut into partitions. Three-phase plans are a special kind of flat ones (a tree that enters every server once, at
the ends of a star), so the flat bound and its certificate hold for them; ``plan.gap`` says what the form costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import lcm

from .. import _core
from ..errors import PackingError
from ..topology import Path, Topology
from .arborescences import RoutedTree, pack_shares, pack_undirected, rooted_at, taste
from .collectives import HAS_DOWN, HAS_UP
from .exact import Problem
from .intervals import Line, Supply, overlay, paired
from .links import Arc
from .onehop import one_hop_trees
from .onfastlinks import onto_fast_links
from .plan import Partition, Plan
from .servers import NETWORK, Server, servers_of
from .threephaselp import Crossings, ServerShare, crossings, solve_three_phase
from .treelp import Half

COLLECTIVES = ("broadcast", "reduce", "allreduce")
#: Trees of one rate tried inside a server.
_MOST_EQUAL = 16
#: Packings tried for each of a server's halves.
_ATTEMPTS = 4


@dataclass(frozen=True)
class _Seat:
    """What a server does for a piece of the data: its root, and the ways between that and the network, as often as it crosses."""

    root: int
    is_hub: bool
    leaving: tuple[Path, ...]
    entering: tuple[Path, ...]


@dataclass(frozen=True)
class _Trees:
    """A server's trees for a piece, leading away from where they end and begin."""

    up: RoutedTree | None
    down: RoutedTree | None


def three_phase_plan(topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str, budget_s: float, local: str = "fastest") -> Plan:
    """The best three-phase plan over links of these kinds; see :func:`blinkcoll.packing.make_plan`.

    Raises
    ------
    PackingError
        Where the collective has no three-phase form, or the topology is not of servers around one network switch.
    """
    if collective not in COLLECTIVES:
        raise PackingError(f"three phases are known for {', '.join(COLLECTIVES)}, not for {collective}")
    halves = [half for half, those in (("up", HAS_UP), ("down", HAS_DOWN)) if collective in those]
    servers = servers_of(topology, links, local, rates)
    seat = None
    if root is not None:
        home = next(s for s, server in enumerate(servers) if root in server.ranks)
        seat = (home, servers[home].ranks.index(root))
    rate, solutions = solve_three_phase(servers, halves, seat)
    if not rate:
        raise PackingError(f"topology {topology.name}: some server has no way to or from the network that passes no rank")
    # Where they are as many, partitions of one rate: fair links carry these as planned.
    partitions = min((_partitions(servers, shares, halves, rate, seat) for shares in reversed(solutions)), key=len)
    certificate = Problem.of(topology, collective, root, links, rates, budget_s).solve().certificate
    every, bound_all, certificate_all = topology.kinds(), certificate.bound, None
    if links != every:
        certificate_all = Problem.of(topology, collective, root, every, rates, budget_s).solve().certificate
        bound_all = max(bound_all, certificate_all.bound)
    plan = Plan(
        topology=topology, collective=collective, method="three-phase", rate=rate, bound=certificate.bound, bound_all=bound_all,
        certificate=certificate, links=links, root=root, rates=rates, certificate_all=certificate_all, partitions=partitions,
    )  # fmt: skip
    return onto_fast_links(plan) if local == "fastest" else plan


def _partitions(servers: Sequence[Server], shares: Sequence[ServerShare], halves: Sequence[str], rate: Fraction, root: tuple[int, int] | None) -> tuple[Partition, ...]:
    """Everything cut wherever a root, a hub, a way or a tree changes in some server."""
    lines = _seats(servers, shares, halves, None if root is None else root[0])
    ends = [root[1] if root is not None and root[0] == s else None for s in range(len(servers))]
    trees = [_tree_line(server, share, line, halves, end) for server, share, line, end in zip(servers, shares, lines, ends, strict=True)]
    found: dict[Partition, Fraction] = {}  # of rate 0, to its rate
    for length, pieces in overlay([paired(line, of_server) for line, of_server in zip(lines, trees, strict=True)]):
        made = _join(servers, [seat for seat, _ in pieces], [tree for _, tree in pieces], halves, None if root is None else root[0])
        found[made] = found.get(made, Fraction(0)) + length
    return tuple(replace(made, rate=length, weight=length / rate) for made, length in found.items())


# -- roots and ways ------------------------------------------------------------------------------------------------------


def _seats(servers: Sequence[Server], shares: Sequence[ServerShare], halves: Sequence[str], home: int | None) -> list[Line[_Seat]]:
    """Every server's roots and ways along the data, which is ordered by hub."""
    roles = [_roles(server, share, crossings(halves, s == home, len(servers))) for s, (server, share) in enumerate(zip(servers, shares, strict=True))]
    lines: list[Line[_Seat]] = [[] for _ in servers]
    for hub, share in enumerate(shares):
        for s, line in enumerate(lines):
            as_hub, as_member = roles[s]
            line += (as_hub if s == hub else as_member).take(sum(share.as_hub, Fraction(0)))
    return lines


def _roles(server: Server, share: ServerShare, times: Crossings) -> tuple[Supply[_Seat], Supply[_Seat]]:
    """A server's roots and ways as hub, and as member."""
    leaving, entering = (
        [Supply(line) for line in _ways(flow, len(server.ranks), flow is share.leaving)] for flow in (share.leaving, share.entering)
    )
    made: list[Supply[_Seat]] = []
    for role, rates in ((1, share.as_member), (0, share.as_hub)):
        line: Line[_Seat] = []
        for r, length in enumerate(rates):
            out, into = times.leaving[role], times.entering[role]
            ways: list[Line[Path]] = [[(length, ())], *(leaving[r].take(length) for _ in range(out)), *(entering[r].take(length) for _ in range(into))]
            for part, (_, *paths) in overlay(ways) if length else ():
                line.append((part, _Seat(r, role == 0, tuple(paths[:out]), tuple(paths[out:]))))
        made.append(Supply(line))
    return made[1], made[0]


def _ways(flow: dict[Arc, Fraction], nranks: int, leaving: bool) -> list[Line[Path]]:
    """A flow between the ranks and the network as paths, by rank; the widest ways first."""
    left = dict(flow)
    found: list[Line[Path]] = []
    for r in range(nranks):
        line: Line[Path] = []
        while True:
            path: Path = (r,)
            while path[-1] != NETWORK:
                steps = [(c, arc) for arc, c in left.items() if c and arc[not leaving] == path[-1]]
                if not steps:
                    break
                path += (max(steps, key=lambda step: (step[0], str(step[1])))[1][leaving],)
            if len(path) == 1:
                break
            arcs = [hop if leaving else hop[::-1] for hop in pairwise(path)]
            part = min(left[arc] for arc in arcs)
            for arc in arcs:
                left[arc] -= part
            line.append((part, path if leaving else path[::-1]))
        found.append(line)
    assert not any(left.values()), "a flow that ends nowhere"
    return found


# -- trees ---------------------------------------------------------------------------------------------------------------


def _tree_line(server: Server, share: ServerShare, line: Line[_Seat], halves: Sequence[str], end: int | None) -> Line[_Trees]:
    """Trees of a server along the data; ``end``: the rank at which all of them begin or end, where that is not the piece's root."""
    both = [(length, seat.root if end is None else end) for length, seat in line]
    if len(server.ranks) == 1:
        return [(length, _Trees(None, None)) for length, _ in both]
    apart = not set(server.inside.capacity) & set(server.ways)
    if apart and server.inside.symmetric:
        undirected = _equal_trees(server, both) or (_strong_trees(server, both) if len(halves) == 2 else None)
        if undirected is not None:
            turned = [(part, rooted_at(tree, r)) for part, (r, tree) in paired(both, undirected)]
            return [(part, _Trees(tree if "up" in halves else None, tree if "down" in halves else None)) for part, tree in turned]
    assert share.halves is not None
    packed = {half: _directed(server, half, share.halves[half], apart and len(halves) == 1) for half in halves}
    found: Line[_Trees] = []
    for length, root in both:
        ways: list[Line[RoutedTree | None]] = [list(packed[half][root].take(length)) if half in packed else [(length, None)] for half in ("up", "down")]
        found += [(part, _Trees(up, down)) for part, (up, down) in overlay(ways)]
    return found


def _equal_trees(server: Server, line: Line[int]) -> Line[RoutedTree] | None:
    """Trees of one rate that carry all of it, as many as cut the line least; None where so few do not do or there are switches."""
    network = server.inside
    rate = sum((length for length, _ in line), Fraction(0))
    best: tuple[int, Line[RoutedTree]] | None = None
    for count in range(1, _MOST_EQUAL + 1 if len(network.vertices) == network.nranks else 1):
        edges = [(u, v) for u, v, c in network.arcs if u < v for _ in range(min(int(c * network.unit * count / rate), count))]
        packed = _core.pack_forests(network.nranks, count, edges)
        if len(packed) == count:
            trees = [(rate / count, RoutedTree(0, rate / count, tuple(map(tuple, tree)))) for tree in packed]
            pieces = len(paired(line, trees))
            if best is None or pieces < best[0]:
                best = (pieces, trees)
            if pieces == len(line):
                break
    return None if best is None else best[1]


def _strong_trees(server: Server, line: Line[int]) -> Line[RoutedTree]:
    """Stars where they fit; else trees of a packing that meets the strength of the links, the fastest first."""
    rate = sum((length for length, _ in line), Fraction(0))
    stars = one_hop_trees(server.inside, "allreduce", None, rate)
    trees = pack_undirected(server.inside, server.inside.unit) if stars is None else stars
    return Supply((tree.rate, tree) for tree in trees).take(rate)


def _directed(server: Server, name: str, half: Half, alone: bool) -> list[Supply[RoutedTree]]:
    """Each root's trees for a half, as few as some packings have: in the program's choice of capacities, or in all where nothing else needs these."""
    network = server.inside
    choices = [half]
    if alone:
        capacity = [c * network.unit / half.unit for _, _, c in network.arcs]
        scale = lcm(*(c.denominator for c in capacity))
        ends = [(u, v) if name == "down" else (v, u) for u, v, _ in network.arcs]
        arcs = [(u, v, int(c * scale)) for (u, v), c in zip(ends, capacity, strict=True)]
        choices.append(Half(arcs, tuple(share * scale for share in half.shares), half.unit / scale))
    packings = (pack_shares(network, c.arcs, c.shares, c.unit, taste(attempt)) for c in choices for attempt in range(_ATTEMPTS))
    trees = min(packings, key=len)
    return [Supply((tree.rate, tree) for tree in trees if tree.root == r) for r in range(network.nranks)]


# -- partitions ----------------------------------------------------------------------------------------------------------


def _join(servers: Sequence[Server], seats: Sequence[_Seat], trees: Sequence[_Trees], halves: Sequence[str], home: int | None) -> Partition:
    """A partition in the topology's names, its rate left open."""
    hub = next(s for s, seat in enumerate(seats) if seat.is_hub)
    down = tuple(server.global_path(path) for server, tree in zip(servers, trees, strict=True) if tree.down for path in tree.down.paths)
    up = tuple(server.global_path(path[::-1]) for server, tree in zip(servers, trees, strict=True) if tree.up for path in reversed(tree.up.paths))
    out, into = [list(seat.leaving) for seat in seats], [list(seat.entering) for seat in seats]
    hops = hops_of(range(len(servers)), hub, home, "up" in halves, "down" in halves)
    exchange = tuple(servers[a].global_path(out[a].pop(0)) + servers[b].global_path(into[b].pop(0))[1:] for a, b in hops)
    assert not any(out) and not any(into), "a way that no hop takes"
    roots = tuple(server.ranks[seat.root] for server, seat in zip(servers, seats, strict=True))
    return Partition(Fraction(0), Fraction(0), roots, roots[hub], up if "up" in halves else None, down if "down" in halves else None, exchange)


def hops_of(servers: Sequence[int], hub: int, home: int | None, up: bool, down: bool) -> list[tuple[int, int]]:
    """Who sends to whom in an exchange: sums to the hub and from there to ``home``, data from there to the hub and to all others."""
    members = [s for s in servers if s != hub]
    if home is None or home == hub:
        return [(s, hub) for s in members if up] + [(hub, s) for s in members if down]
    others = [s for s in members if s != home]
    return [*((s, hub) for s in others), (hub, home)] if up else [(home, hub), *((hub, s) for s in others)]
