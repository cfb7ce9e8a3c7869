"""All-to-all: every pair gets the same rate, on paths that may pass through other ranks.

The best rate is that of a maximum concurrent flow, a linear program over one flow a source; its dual is a length for every
link, and the bound is (total capacity x length) / (sum of the pairs' distances) (Shahrokhi and Matula, 1990). Where every
pair is joined directly or through one switch and a single rank's links are the limit, that is seen without a solver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import pairwise

from .. import _core
from ..topology import Path
from .certificates import distances
from .exactlp import LinearProgram, Solution, maximise
from .links import Arc, Network
from .onehop import one_hop_path
from .plan import Flow
from .series import Series, contract_series, lengths_with_series, with_series

Lengths = Mapping[Arc, Fraction]

#: Multiplicative weights: more rounds and a smaller step come closer. The work is what fits into about half a second.
_EPSILON = 0.1
_FEWEST_ROUNDS, _MOST_ROUNDS, _ROUND_WORK = 20, 400, 4_000_000
#: Lengths are rounded to this many steps, so that their sums stay short.
_GRID = 1 << 24


def direct_flows(network: Network) -> tuple[Fraction, list[Flow], Lengths] | None:
    """Rate of a pair, flows and lengths where direct routes are provably the best, else None."""
    n = network.nranks
    paths = {(a, b): one_hop_path(network, a, b) for a in range(n) for b in range(n) if a != b}
    uses: dict[Arc, int] = {}
    for path in paths.values():
        if path is None:
            return None
        for arc in pairwise(path):
            uses[arc] = uses.get(arc, 0) + 1
    rate = min(network.capacity[arc] / count for arc, count in uses.items())
    for rank in range(n):
        for side in (0, 1):
            around = {arc: Fraction(1) for arc in network.capacity if arc[side] == rank}
            if sum(network.capacity[arc] for arc in around) == rate * (n - 1):
                return rate, [Flow(a, b, rate, path) for (a, b), path in paths.items() if path is not None], around
    return None


def optimal_flows(network: Network, budget_s: float) -> tuple[Fraction, list[Flow], Lengths]:
    """Rate of a pair, flows and lengths from the linear program; raises ``BudgetExceeded`` out of time."""
    short, ways = contract_series(network)
    rate, flows, lengths = _optimal_flows(short, budget_s)
    return rate, [_extended(f, ways) for f in flows], lengths_with_series(lengths, ways, network)


def _extended(flow: Flow, ways: Series) -> Flow:
    return Flow(flow.src, flow.dst, flow.rate, with_series(flow.path, ways)) if ways else flow


def _optimal_flows(network: Network, budget_s: float) -> tuple[Fraction, list[Flow], Lengths]:
    program = LinearProgram()
    n = network.nranks
    arcs = network.arcs
    rate = program.add_variable(1)
    flow: dict[tuple[int, int], int] = {}
    for s in range(n):
        for i, (_, v, _) in enumerate(arcs):
            if v != s:
                flow[s, i] = program.add_variable()
    for i, (_, _, c) in enumerate(arcs):
        program.add_row({flow[s, i]: 1 for s in range(n) if (s, i) in flow}, c)
    around: dict[int, list[tuple[int, int]]] = {v: [] for v in range(len(network.vertices))}
    for i, (u, v, _) in enumerate(arcs):
        around[u].append((i, -1))
        around[v].append((i, 1))
    for s in range(n):
        for v in range(len(network.vertices)):
            if v == s:
                continue
            row: dict[int, Fraction | int] = {flow[s, i]: sign for i, sign in around[v] if (s, i) in flow}
            if v < n:
                row[rate] = -1
            program.add_row(row, 0, equal=True)
    solution = maximise(program, budget_s)
    flows = [f for s in range(n) for f in _paths(network, s, solution, flow)]
    lengths = {(network.vertices[u], network.vertices[v]): solution.y[i] for i, (u, v, _) in enumerate(arcs) if solution.y[i]}
    return solution.value * network.unit, flows, lengths


def _paths(network: Network, source: int, solution: Solution, flow: Mapping[tuple[int, int], int]) -> Iterable[Flow]:
    """The flow of one source as paths, shortest first."""
    out: dict[int, dict[int, Fraction]] = {}
    for i, (u, v, _) in enumerate(network.arcs):
        if (source, i) in flow and solution.x[flow[source, i]]:
            out.setdefault(u, {})[v] = solution.x[flow[source, i]]
    for sink in range(network.nranks):
        left = solution.value if sink != source else Fraction(0)
        while left > 0:
            path = _shortest(out, source, sink)
            part = min(left, *(out[u][v] for u, v in pairwise(path)))
            for u, v in pairwise(path):
                out[u][v] -= part
                if not out[u][v]:
                    del out[u][v]
            left -= part
            named: Path = tuple(network.vertices[v] for v in path)
            yield Flow(source, sink, part * network.unit, named)


def _shortest(out: Mapping[int, Mapping[int, Fraction]], source: int, sink: int) -> list[int]:
    parent = {source: source}
    queue = [source]
    for u in queue:
        for v in sorted(out.get(u, ())):
            if v not in parent:
                parent[v] = u
                queue.append(v)
    path = [sink]
    while path[-1] != source:
        path.append(parent[path[-1]])
    return path[::-1]


def approximate_flows(network: Network) -> tuple[Fraction, list[Flow], Lengths]:
    """Rate of a pair, flows and lengths by multiplicative weights: a valid plan and a valid bound, with a gap between."""
    short, ways = contract_series(network)
    rate, flows, lengths = _approximate_flows(short)
    return rate, [_extended(f, ways) for f in flows], lengths_with_series(lengths, ways, network)


def _approximate_flows(network: Network) -> tuple[Fraction, list[Flow], Lengths]:
    arcs = [(u, v, float(c)) for u, v, c in network.arcs]
    rounds = max(_FEWEST_ROUNDS, min(_MOST_ROUNDS, _ROUND_WORK // (network.nranks * len(arcs))))
    routes, weights = _core.concurrent_flow(len(network.vertices), network.nranks, arcs, rounds, _EPSILON)
    uses: dict[tuple[int, int], int] = {}
    for path, count in routes:
        for arc in pairwise(path):
            uses[arc] = uses.get(arc, 0) + count
    part = min(Fraction(c, uses[u, v]) for u, v, c in network.arcs if (u, v) in uses) * network.unit
    flows = [Flow(path[0], path[-1], count * part, tuple(network.vertices[v] for v in path)) for path, count in routes]
    largest = max(weights)
    lengths = {
        (network.vertices[u], network.vertices[v]): Fraction(int(weight / largest * _GRID), _GRID)
        for (u, v, _), weight in zip(arcs, weights, strict=True)
        if int(weight / largest * _GRID)
    }
    return rounds * part, flows, lengths


def pair_bound(network: Network, lengths: Lengths) -> Fraction:
    """The most a pair can get, by these lengths, in GB/s."""
    total = sum((network.capacity[arc] * length for arc, length in lengths.items()), Fraction(0))
    return total / sum(sum(distances(network.capacity, network.nranks, s, lengths).values(), Fraction(0)) for s in range(network.nranks))
