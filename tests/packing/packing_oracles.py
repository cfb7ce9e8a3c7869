"""Answers found by other means: compact linear programs over flows, enumeration of cuts, partitions and trees.

None of this shares code or formulation with the packers: bounds come from one flow a rank (not from cuts), all-reduce
from enumerated trees where that is possible.
"""

from __future__ import annotations

from itertools import chain, combinations, pairwise, product

import highspy
import numpy as np


class Model:
    """A small linear program in floats: maximise, x >= 0."""

    def __init__(self):
        self.columns, self.rows, self.low, self.high, self.cost = 0, [], [], [], {}

    def variable(self, cost=0.0):
        self.columns += 1
        if cost:
            self.cost[self.columns - 1] = cost
        return self.columns - 1

    def row(self, coefficients, low=-np.inf, high=np.inf):
        self.rows.append(coefficients)
        self.low.append(low)
        self.high.append(high)

    def maximum(self):
        highs = highspy.Highs()
        highs.silent()
        for j in range(self.columns):
            highs.addVar(0, highspy.kHighsInf)
            highs.changeColCost(j, -self.cost.get(j, 0.0))
        for coefficients, low, high in zip(self.rows, self.low, self.high, strict=True):
            entries = [(j, v) for j, v in coefficients.items() if v]
            highs.addRow(low, high, len(entries), np.array([j for j, _ in entries], dtype=np.int32), np.array([v for _, v in entries]))
        highs.run()
        assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal, highs.modelStatusToString(highs.getModelStatus())
        return -highs.getInfo().objective_function_value


def add(row, variable, value):
    row[variable] = row.get(variable, 0) + value


def tree_rate(topology, collective, root=None):
    """The most that trees over forwarding switches reach: a conserved sub-capacity that can feed every rank."""
    n, capacity = topology.nranks, topology.capacities()
    vertices = [*range(n), *sorted({v for arc in capacity for v in arc if not isinstance(v, int)})]
    halves = {"allreduce": ("down", "up"), "broadcast": ("down",), "allgather": ("down",)}.get(collective, ("up",))
    model = Model()
    if collective == "allreduce":
        shares = [{model.variable(1.0): 1.0} for _ in range(n)]
    elif root is not None:
        whole = model.variable(1.0)
        shares = [{whole: 1.0} if r == root else {} for r in range(n)]
    else:
        each = model.variable(float(n))
        shares = [{each: 1.0} for _ in range(n)]
    used = {half: {arc: model.variable() for arc in capacity} for half in halves}
    for arc, c in capacity.items():
        model.row({used[half][arc]: 1.0 for half in halves}, high=float(c))
    for half in halves:
        for s in vertices[n:]:
            model.row({used[half][u, v]: (1.0 if v == s else -1.0) for u, v in capacity if s in (u, v)}, 0, 0)
        for target in range(n):
            flow = {arc: model.variable() for arc in capacity}
            for arc in capacity:
                model.row({flow[arc]: 1.0, used[half][arc]: -1.0}, high=0)
            sent = [model.variable() for _ in range(n)]
            for r in range(n):
                row = {sent[r]: 1.0}
                for variable, w in shares[r].items():
                    add(row, variable, -w)
                model.row(row, high=0)
            for v in vertices:
                row = {}
                for a, b in capacity:
                    if half == "up":
                        a, b, arc = b, a, (a, b)
                    else:
                        arc = (a, b)
                    if b == v:
                        add(row, flow[arc], 1.0)
                    if a == v:
                        add(row, flow[arc], -1.0)
                if isinstance(v, int):
                    add(row, sent[v], 1.0)
                if v == target:
                    for share in shares:
                        for variable, w in share.items():
                            add(row, variable, -w)
                model.row(row, 0, 0)
    return model.maximum()


def flow_rate(topology, collective, root=None):
    """Gather, scatter and all-to-all: one flow a pair."""
    n, capacity = topology.nranks, topology.capacities()
    vertices = [*range(n), *sorted({v for arc in capacity for v in arc if not isinstance(v, int)})]
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    if collective == "scatter":
        pairs = [(a, b) for a, b in pairs if a == root]
    if collective == "gather":
        pairs = [(a, b) for a, b in pairs if b == root]
    model = Model()
    rate = model.variable(float(n))
    flow = {(pair, arc): model.variable() for pair in pairs for arc in capacity}
    for arc, c in capacity.items():
        model.row({flow[pair, arc]: 1.0 for pair in pairs}, high=float(c))
    for src, dst in pairs:
        for v in vertices:
            row = {}
            for a, b in capacity:
                if v in (a, b):
                    add(row, flow[(src, dst), (a, b)], 1.0 if v == b else -1.0)
            if v == src:
                add(row, rate, 1.0)
            if v == dst:
                add(row, rate, -1.0)
            model.row(row, 0, 0)
    return model.maximum()


def subsets(items):
    items = list(items)
    return chain.from_iterable(combinations(items, k) for k in range(1, len(items) + 1))


def cut_rate(topology, collective, root=None):
    """The least over all cuts, by enumeration; right where every switch gives out what it takes in."""
    n, capacity = topology.nranks, topology.capacities()
    vertices = [*range(n), *sorted({v for arc in capacity for v in arc if not isinstance(v, int)})]
    up = collective in ("reduce", "reducescatter", "gather")
    best = None
    for chosen in subsets(vertices):
        inside = set(chosen)
        ranks = sum(isinstance(v, int) for v in inside)
        if not 0 < ranks < n or (root is not None and root in inside):
            continue
        crossing = sum(c for (u, v), c in capacity.items() if (v in inside) != (u in inside) and (u in inside) == up)
        scale = {"broadcast": 1, "reduce": 1, "gather": n / ranks, "scatter": n / ranks}.get(collective, n / (n - ranks))
        best = crossing * scale if best is None else min(best, crossing * scale)
    return float(best)


def partitions(items):
    items = list(items)
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for i in range(len(rest)):
            yield [*rest[:i], [items[0], *rest[i]], *rest[i + 1 :]]


def strength(topology):
    """Least crossing capacity / (parts - 1) over all partitions; symmetric links, no switches."""
    capacity = topology.capacities()
    best = None
    for parts in partitions(range(topology.nranks)):
        if len(parts) > 1:
            of = {v: i for i, part in enumerate(parts) for v in part}
            value = sum(c for (u, v), c in capacity.items() if u < v and of[u] != of[v]) / (len(parts) - 1)
            best = value if best is None else min(best, value)
    return best


def enumerated_rate(topology, collective, root=None):
    """The linear program over every tree there is, each arc of a tree by every way through switches."""
    n, capacity = topology.nranks, topology.capacities()
    ways = {(a, b): list(_ways(capacity, a, b, n)) for a in range(n) for b in range(n) if a != b}
    roots = range(n) if root is None else [root]
    down = {r: list(_arborescences(n, r, ways)) for r in roots}
    model = Model()
    shared = model.variable(float(n)) if collective in ("allgather", "reducescatter") else None
    load = {arc: {} for arc in capacity}
    for r in roots:
        halves = []
        for half in {"allreduce": ("down", "up"), "broadcast": ("down",), "allgather": ("down",)}.get(collective, ("up",)):
            whole = {}
            trees = down[r] if half == "down" else [_turned(tree) for tree in _arborescences(n, r, {(b, a): [p[::-1] for p in w] for (a, b), w in ways.items()})]
            for tree in trees:
                x = model.variable(1.0 if shared is None and half == ("up" if collective == "reduce" else "down") else 0.0)
                whole[x] = 1.0
                for path in tree:
                    for arc in pairwise(path):
                        add(load[arc], x, 1.0)
            halves.append(whole)
        if shared is not None:
            model.row({**halves[0], shared: -1.0}, 0, 0)
        elif len(halves) == 2:
            model.row({**halves[0], **{x: -1.0 for x in halves[1]}}, 0, 0)
    for arc, row in load.items():
        model.row(row, high=float(capacity[arc]))
    return model.maximum()


def _turned(tree):
    return tuple(path[::-1] for path in tree)


def _ways(capacity, a, b, n, seen=()):
    """Simple paths from a to b with only switches in between."""
    for u, v in capacity:
        if u == a:
            if v == b:
                yield (a, b)
            elif not isinstance(v, int) and v not in seen:
                for rest in _ways(capacity, v, b, n, (*seen, v)):
                    yield (a, *rest)


def _arborescences(n, root, ways):
    """Every spanning arborescence from root, as paths."""
    others = [v for v in range(n) if v != root]
    for parents in product(range(n), repeat=n - 1):
        parent = dict(zip(others, parents, strict=True))
        if any(v == p for v, p in parent.items()):
            continue
        if all(_reaches(v, root, parent) for v in others):
            yield from product(*(ways[p, v] for v, p in parent.items()))


def _reaches(v, root, parent):
    for _ in range(len(parent) + 1):
        if v == root:
            return True
        v = parent[v]
    return False
