"""The best rate of three-phase plans, as one linear program over all servers.

The form (Blink: Wang et al., MLSys 2020, section 3.5): every part of the data has a root in each server. Trees inside the
servers lead to and from the roots; the root of one server, the *hub*, adds up what the other roots send it over the
network and sends them the sum. A broadcast's data goes from the root's server to the hub and from there to the others, a
reduce's the other way. Rate is all that couples the servers, so the program knows of every server only

- ``X``, the rate of all, and ``h``, the rate of the parts whose hub is here;
- ``b[r]`` and ``a[r]``, the rates of the parts whose root here is r, with the hub here and elsewhere: sum b = h, sum a = X - h;
- its trees: capacities for each half, as :mod:`treelp` has them, root r having a share of a[r] + b[r];
- flows between r and the network switch over forwarders, each way so many times b[r] and a[r] as :func:`crossings` says.

Any such values are those of a plan: parts are cut so fine that each has one root a server (``threephase.py``). Servers
that are alike share one set of values, as the mean over all exchanges of them is as good a solution as any. Where a
server's trees and flows have no link in common, and its links are symmetric, an all-reduce's trees need no variables:
they reach the strength of the server's links, whatever the roots are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from time import monotonic

from ..errors import PackingError
from .arborescences import run
from .exactlp import BudgetExceeded, FloatSolver, LinearProgram, Solution, maximise, on_grid
from .links import Arc, Number
from .servers import NETWORK, Server
from .treelp import Half, TreeProgram

_MOST_ROUNDS = 200
_BUDGET_S = 60.0
#: Parts of one rate that are tried: twice as many channels are what a rank may run by default.
_MOST_PARTS = 16
#: Seconds that looking for them may take; servers of eight need a tenth of one.
_GRID_S = 10.0
Expression = dict[int, Number]


@dataclass(frozen=True)
class Crossings:
    """How often a server's root sends a byte to the network (``leaving``) and gets one from there, as hub and as member."""

    leaving: tuple[int, int]
    entering: tuple[int, int]


def crossings(halves: Sequence[str], home: bool, nservers: int) -> Crossings:
    """Those of a server; ``home``: the root of a rooted collective is in it."""
    if len(halves) == 2:
        return Crossings((nservers - 1, 1), (nservers - 1, 1))
    gives, gets = ((nservers - 1, 1), (0, 0)) if home else ((nservers - 2, 0), (1, 1))
    return Crossings(gives, gets) if "down" in halves else Crossings(gets, gives)


@dataclass(frozen=True)
class ServerShare:
    """What the optimum asks of a server, GB/s.

    ``as_hub[r]``, ``as_member[r]``: rate of the parts whose root here is r. ``leaving``, ``entering``: flows over the
    server's ways to and from the network. ``halves``: capacities for its trees, by half; None where its trees may have
    all of the links inside, and a single rank has none.
    """

    as_hub: tuple[Fraction, ...]
    as_member: tuple[Fraction, ...]
    leaving: dict[Arc, Fraction]
    entering: dict[Arc, Fraction]
    halves: dict[str, Half] | None


def solve_three_phase(servers: Sequence[Server], halves: Sequence[str], root: tuple[int, int] | None) -> tuple[Fraction, list[list[ServerShare]]]:
    """The optimum in GB/s, and each server's part in solutions that reach it.

    The first has the shortest ways; the second, where one was found, is of few parts of one rate.

    Parameters
    ----------
    halves
        ``"up"`` and ``"down"``, as the collective has them.
    root
        The server of a rooted collective's root, and which of its ranks that is.
    """
    return _Program(servers, halves, root).solve()


class _Program:
    def __init__(self, servers: Sequence[Server], halves: Sequence[str], root: tuple[int, int] | None) -> None:
        self.servers, self.halves, self.root = servers, tuple(halves), root
        self.program = LinearProgram()
        self.rate = self.program.add_variable(1)
        self.classes: list[tuple[Server, bool]] = []
        self.class_of: list[int] = []
        for i, server in enumerate(servers):
            rooted = root is not None and root[0] == i
            known = next((k for k, (other, other_rooted) in enumerate(self.classes) if rooted == other_rooted and server.alike(other)), len(self.classes))
            if known == len(self.classes):
                self.classes.append((server, rooted))
            self.class_of.append(known)
        self.columns = [_Columns(self, server, rooted) for server, rooted in self.classes]
        hubs: Expression = {self.rate: -1}
        for k, columns in enumerate(self.columns):
            hubs[columns.hub] = self.class_of.count(k)
        self.program.add_row(hubs, 0, equal=True)

    def solve(self) -> tuple[Fraction, list[list[ServerShare]]]:
        deadline = monotonic() + _BUDGET_S
        best = self._with_cuts(deadline).value
        if not best:
            return best, []
        # Of the optima, one with short ways: what the flows take in all, and nothing else, is to be least.
        self.program.objective = [Fraction(0)] * len(self.program.objective)
        for columns in self.columns:
            for variable in (*columns.leaving.values(), *columns.entering.values()):
                self.program.objective[variable] = Fraction(-1)
        self.program.add_row({self.rate: 1}, best, equal=True)
        solutions = [self._with_cuts(deadline), *self._of_one_rate(best, deadline)]
        found = [[columns.share_of(solution) for columns in self.columns] for solution in solutions]
        return best, [[shares[k] for k in self.class_of] for shares in found]

    def _of_one_rate(self, best: Fraction, deadline: float) -> Iterator[Solution]:
        """The optimum with the fewest parts of one rate, each with one root a server: integers proposed in floats, then exact."""
        roots = [column for columns in self.columns for column in (*columns.as_hub, *columns.as_member)]
        until = monotonic() + _GRID_S
        for parts in range(1, _MOST_PARTS + 1):
            counts = on_grid(self.program, roots, best / parts, max(0.0, min(deadline, until) - monotonic()))
            if counts is None:
                continue
            fixed = [self.program.add_row({column: 1}, best * count / parts, equal=True) for column, count in zip(roots, counts, strict=True)]
            try:
                yield self._with_cuts(deadline)
                return
            except BudgetExceeded:
                return
            except PackingError:  # infeasible after all: a float was off, or a cut was missing
                for row in fixed:  # harmless from now on; cuts may have come after them
                    self.program.right[row], self.program.equal[row] = best, False

    def _with_cuts(self, deadline: float) -> Solution:
        """The exact optimum, cuts of trees added until it violates none (as in :mod:`treelp`)."""
        floats = FloatSolver(self.program)
        trees = [columns.trees for columns in self.columns if columns.trees is not None]
        for _ in range(_MOST_ROUNDS):
            values = floats.values(max(0.0, deadline - monotonic()))
            if any([tree.add_violated({half: tree.rounded(half, values) for half in self.halves}) for tree in trees]):
                continue
            solution = floats.exact() or maximise(self.program, max(0.0, deadline - monotonic()))
            if not any([tree.add_violated({half: tree.capacities(half, solution) for half in self.halves}) for tree in trees]):
                return solution
        raise PackingError(f"three-phase LP: cuts are still violated after {_MOST_ROUNDS} rounds")


class _Columns:
    """The variables of one class of servers, and their rows."""

    def __init__(self, whole: _Program, server: Server, rooted: bool) -> None:
        self.server, self.rooted, self.program = server, rooted, whole.program
        program, n = whole.program, len(server.ranks)
        self.hub = program.add_variable()
        self.as_hub = [program.add_variable() for _ in range(n)]
        self.as_member = [program.add_variable() for _ in range(n)]
        if whole.root is not None and not rooted and len(whole.servers) == 2:
            program.add_row({self.hub: 1}, 0, equal=True)  # of two servers, either as the hub is the same thing
        program.add_row({**dict.fromkeys(self.as_hub, 1), self.hub: -1}, 0, equal=True)
        program.add_row({**dict.fromkeys(self.as_member, 1), self.hub: 1, whole.rate: -1}, 0, equal=True)
        self.trees = self._add_trees(whole)
        times = crossings(whole.halves, rooted, len(whole.servers))
        self.leaving = self._add_flow("leaving", *times.leaving)
        self.entering = self._add_flow("entering", *times.entering)
        self._add_capacities()

    def _add_trees(self, whole: _Program) -> TreeProgram | None:
        inside = self.server.inside
        if inside.nranks == 1:
            return None
        if len(whole.halves) == 2 and inside.symmetric and not set(inside.capacity) & set(self.server.ways):
            edges = [(u, v, c) for u, v, c in inside.arcs if u < v]
            num, den, _ = run("strength", edges, len(inside.vertices), inside.nranks, edges)
            self.program.add_row({whole.rate: 1}, Fraction(num, den) * inside.unit)
            return None
        if self.rooted:
            assert whole.root is not None
            share: list[Expression] = [{whole.rate: 1} if r == whole.root[1] else {} for r in range(inside.nranks)]
        else:
            share = [{self.as_hub[r]: 1, self.as_member[r]: 1} for r in range(inside.nranks)]
        return TreeProgram(inside, whole.halves, None, within=(self.program, Fraction(1)), share=share)

    def _add_flow(self, way: str, times_hub: int, times_member: int) -> dict[Arc, int]:
        """A flow between the ranks and the network switch, over the server's forwarders alone."""
        server, program = self.server, self.program
        if not times_hub and not times_member:
            return {}
        leaving = way == "leaving"
        flow = {arc: program.add_variable() for arc in server.ways if not isinstance(arc[leaving], int) and arc[not leaving] != NETWORK}
        vertices: set[int | str] = {*range(len(server.ranks)), *(v for arc in flow for v in arc)} - {NETWORK}
        for v in sorted(vertices, key=str):
            row: Expression = {}
            for (a, b), column in flow.items():
                if v in (a, b):
                    row[column] = 1 if (a == v) == leaving else -1
            if isinstance(v, int):
                row |= {self.as_hub[v]: -times_hub, self.as_member[v]: -times_member}
            if row:
                program.add_row(row, 0, equal=True)
        return flow

    def _add_capacities(self) -> None:
        """Flows beside trees on every link."""
        inside = self.trees.network.capacity if self.trees is not None else {}
        for arc, c in self.server.ways.items():
            used: Expression = {flow[arc]: 1 for flow in (self.leaving, self.entering) if arc in flow}
            if not used:
                continue
            if self.trees is not None and arc in inside:
                used = {**self.program.rows[self.trees.capacity_row[arc]], **used}
            self.program.add_row(used, c)

    def share_of(self, solution: Solution) -> ServerShare:
        def flow(columns: dict[Arc, int]) -> dict[Arc, Fraction]:
            return {arc: solution.x[c] for arc, c in columns.items() if solution.x[c]}

        halves = None if self.trees is None else {half: self.trees.capacities(half, solution) for half in self.trees.halves}
        as_hub, as_member = (tuple(solution.x[c] for c in columns) for columns in (self.as_hub, self.as_member))
        return ServerShare(as_hub, as_member, flow(self.leaving), flow(self.entering), halves)
