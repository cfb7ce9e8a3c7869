"""Linear programs solved exactly: HiGHS finds a basis in floats, the basis is solved again in rationals and checked.

Nothing that the floats say is trusted: primal and dual feasibility of the rational solution are both verified, which
together prove that it is optimal (Applegate, Cook, Dash and Espinoza, Exact solutions to linear programming problems,
2007, describe the scheme).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import PackingError
from .highs import quiet_highs, run_solver
from .links import Number

if TYPE_CHECKING:
    import highspy

Row = Mapping[int, Number]

#: Variables from which HiGHS' interior point method with crossover finds a basis faster than the simplex method does.
_LARGE = 5_000
#: Solver runs until a basis holds exactly, and how much further each looks than the one before.
_MOST_REFINEMENTS, _MOST_GROWTH = 16, 1 << 24


@dataclass
class LinearProgram:
    """Maximise ``objective . x`` over x >= 0, with rows ``coefficients . x <= or == right``."""

    objective: list[Fraction | int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    right: list[Fraction | int] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)

    def add_variable(self, objective: Fraction | int = 0) -> int:
        """A variable >= 0; returns its number."""
        self.objective.append(objective)
        return len(self.objective) - 1

    def add_row(self, coefficients: Row, right: Fraction | int, equal: bool = False) -> int:
        """A row; returns its number."""
        self.rows.append(coefficients)
        self.right.append(right)
        self.equal.append(equal)
        return len(self.rows) - 1


@dataclass(frozen=True)
class Solution:
    """An exact optimum: values of the variables and of the rows' multipliers."""

    value: Fraction
    x: tuple[Fraction, ...]
    y: tuple[Fraction, ...]


class BudgetExceeded(PackingError):
    """The solver ran out of the time it was given."""


def maximise(program: LinearProgram, budget_s: float = 60.0) -> Solution:
    """The exact optimum.

    Raises
    ------
    BudgetExceeded
        After ``budget_s`` seconds in the solver.
    PackingError
        Where there is no finite optimum, or no basis found holds exactly.
    """
    deadline = monotonic() + budget_s
    highs = _highs("ipm" if len(program.objective) > _LARGE else "simplex", 1e-9)
    highs.passModel(_model(program))
    point, wrong = None, ""
    for _ in range(_MOST_REFINEMENTS):
        _run(highs, max(0.0, deadline - monotonic()))
        solution, wrong = _exact(program, highs)
        if solution is not None:
            return solution
        point = _Point.first(program, highs) if point is None else point.moved(highs)
        point, model = point.magnified(program)
        highs = _highs("simplex", 1e-9)
        highs.passModel(model)
    raise PackingError(f"exact LP: the capacities differ by too much for the linear program (its basis does not hold in rationals: {wrong}); round them")


def _exact(program: LinearProgram, highs: highspy.Highs) -> tuple[Solution | None, str]:
    """The rational solution of the last run's basis, or what is wrong with it."""
    try:
        solution = _solve_basis(program, *_basis(program, highs))
    except ZeroDivisionError:
        return None, "the basis is singular"
    wrong = _violation(program, solution)
    return (solution, "") if wrong is None else (None, wrong)


@dataclass(frozen=True)
class _Point:
    """A nearly optimal pair in rationals, and how much the program around it is magnified.

    Iterative refinement: Gleixner, Steffy and Wolter, Improving the accuracy of linear programming solvers with
    iterative refinement, 2012. The optimum of the magnified program, found in floats, is the correction.
    """

    x: list[Fraction]
    y: list[Fraction]
    primal: Fraction
    dual: Fraction

    @classmethod
    def first(cls, program: LinearProgram, highs: highspy.Highs) -> _Point:
        """The first solution as it stands."""
        found, unit = highs.getSolution(), _largest(program)
        return cls([Fraction(v) * unit for v in found.col_value], [-Fraction(v) for v in found.row_dual], 1 / unit, Fraction(1))

    def moved(self, highs: highspy.Highs) -> _Point:
        """Corrected by a solution of the magnified program."""
        found = highs.getSolution()
        return replace(
            self,
            x=[v + Fraction(d) / self.primal for v, d in zip(self.x, found.col_value, strict=False)],
            y=[v - Fraction(d) / self.dual for v, d in zip(self.y, found.row_dual, strict=True)],
        )

    def magnified(self, program: LinearProgram) -> tuple[_Point, highspy.HighsLp]:
        """The program around this point, magnified by how wrong the point is; rows get slack columns of their own."""
        import highspy
        import numpy as np

        reduced = [Fraction(c) for c in program.objective]
        rest, slack = [], []
        for i, row in enumerate(program.rows):
            left = program.right[i] - sum((Fraction(v) * self.x[j] for j, v in row.items()), Fraction(0))
            if not program.equal[i]:
                slack.append(max(Fraction(0), left))
                reduced.append(-self.y[i])
                left = min(Fraction(0), left)
            rest.append(left)
            for j, v in row.items():
                reduced[j] -= self.y[i] * v
        values = [*self.x, *slack]
        primal = _magnify(self.primal, max([abs(r) for r in rest] + [-v for v in values]))
        dual = _magnify(self.dual, max(abs(r) if v > 0 else r for r, v in zip(reduced, values, strict=True)))
        lp, column = _model(program), len(self.x)
        index, value, starts = list(lp.a_matrix_.index_), list(lp.a_matrix_.value_), list(lp.a_matrix_.start_)
        whole: tuple[list[int], list[float], list[int]] = ([], [], [0])
        for i, equal in enumerate(program.equal):
            whole[0].extend(index[starts[i] : starts[i + 1]])
            whole[1].extend(value[starts[i] : starts[i + 1]])
            if not equal:
                whole[0].append(column)
                whole[1].append(1.0)
                column += 1
            whole[2].append(len(whole[0]))
        lp.num_col_ = column
        lp.a_matrix_.index_ = np.array(whole[0], dtype=np.int32)
        lp.a_matrix_.value_ = np.array(whole[1], dtype=np.float64)
        lp.a_matrix_.start_ = np.array(whole[2], dtype=np.int32)
        lp.col_cost_ = -np.array([float(r * dual) for r in reduced])
        lp.col_lower_ = -np.array([float(v * primal) for v in values])
        lp.col_upper_ = np.full(column, highspy.kHighsInf)
        lp.row_upper_ = lp.row_lower_ = np.array([float(r * primal) for r in rest])
        return replace(self, primal=primal, dual=dual), lp


def _magnify(factor: Fraction, wrong: Fraction) -> Fraction:
    """So much that what is wrong becomes about 1, within limits; a power of two keeps numbers short."""
    if wrong <= 0:
        return factor
    wanted = min(factor * _MOST_GROWTH, max(factor, 1 / wrong))
    return Fraction(2) ** (wanted.numerator.bit_length() - wanted.denominator.bit_length())


class FloatSolver:
    """HiGHS on a program that grows by rows with right side 0; each run starts from the basis of the one before."""

    def __init__(self, program: LinearProgram):
        self.program, self.highs = program, _highs("simplex", 1e-9)
        self.highs.passModel(_model(program))
        self.known = len(program.rows)

    def values(self, budget_s: float) -> list[float]:
        """An optimum in floats, in units of the largest right side: good for finding violated rows, proof of nothing."""
        import highspy
        import numpy as np

        for i in range(self.known, len(self.program.rows)):
            row = self.program.rows[i]
            assert self.program.right[i] == 0 and not self.program.equal[i]
            self.highs.addRow(-highspy.kHighsInf, 0.0, len(row), np.array(list(row), dtype=np.int32), np.array([float(v) for v in row.values()]))
        self.known = len(self.program.rows)
        _run(self.highs, budget_s)
        return list(self.highs.getSolution().col_value)

    def exact(self) -> Solution | None:
        """The optimum of the last run's basis in rationals; None where it does not hold exactly."""
        return _exact(self.program, self.highs)[0]


def on_grid(program: LinearProgram, columns: Sequence[int], step: Fraction, budget_s: float, most_nodes: int = 500) -> list[int] | None:
    """Integers that these columns may be in units of ``step``, the other columns free: found in floats, proof of nothing.

    None where a search of ``most_nodes`` nodes finds none (a number of nodes, so that on what is small enough for ``budget_s``
    the answer does not depend on how fast the machine is).
    """
    import highspy

    whole = LinearProgram([*program.objective], [*program.rows], [*program.right], [*program.equal])
    counts = [whole.add_variable() for _ in columns]
    largest = _largest(program)  # columns are in units of it
    for count, column in zip(counts, columns, strict=True):
        whole.add_row({column: 1, count: -step / largest}, 0, equal=True)
    highs = quiet_highs()
    highs.passModel(_model(whole))
    for count in counts:
        highs.changeColIntegrality(count, highspy.HighsVarType.kInteger)
    highs.setOptionValue("mip_max_nodes", most_nodes)
    highs.setOptionValue("time_limit", budget_s)
    run_solver(highs)
    if highs.getInfo().primal_solution_status != highspy.kSolutionStatusFeasible:
        return None
    values = highs.getSolution().col_value
    return [round(values[count]) for count in counts]


def _highs(solver: str, tolerance: float) -> highspy.Highs:
    highs = quiet_highs()
    highs.setOptionValue("primal_feasibility_tolerance", tolerance)
    highs.setOptionValue("dual_feasibility_tolerance", tolerance)
    highs.setOptionValue("solver", solver)
    return highs


def _run(highs: highspy.Highs, budget_s: float) -> None:
    import highspy

    # HiGHS counts the time of all runs of one instance.
    highs.setOptionValue("time_limit", highs.getRunTime() + budget_s)
    run_solver(highs)
    status = highs.getModelStatus()
    if status == highspy.HighsModelStatus.kTimeLimit:
        raise BudgetExceeded(f"exact LP: no optimum within {budget_s:g} s")
    if status != highspy.HighsModelStatus.kOptimal:
        raise PackingError(f"exact LP: the solver says {highs.modelStatusToString(status)}")


def _basis(program: LinearProgram, highs: highspy.Highs) -> tuple[list[int], list[int]]:
    """The basic variables and the rows at their bounds, with or without slack columns after the variables."""
    import highspy

    basis, basic = highs.getBasis(), highspy.HighsBasisStatus.kBasic
    columns, rows, count = list(basis.col_status), list(basis.row_status), len(program.objective)
    tight = [s != basic for s in rows]
    if len(columns) > count:
        for i, s in zip((i for i, equal in enumerate(program.equal) if not equal), columns[count:], strict=True):
            tight[i] = tight[i] and s != basic
    return [j for j in range(count) if columns[j] == basic], [i for i, held in enumerate(tight) if held]


def _model(program: LinearProgram) -> highspy.HighsLp:
    import highspy
    import numpy as np

    lp = highspy.HighsLp()
    rows, columns = len(program.rows), len(program.objective)
    lp.num_col_, lp.num_row_ = columns, rows
    # Right sides are scaled to about 1, so that the tolerances mean the same at 1e-9 and at 1e9 GB/s.
    largest = _largest(program)
    right = np.array([float(Fraction(b) / largest) for b in program.right])
    lp.col_cost_ = -np.array([float(c) for c in program.objective])
    lp.col_lower_ = np.zeros(columns)
    lp.col_upper_ = np.full(columns, highspy.kHighsInf)
    lp.row_upper_ = right
    lp.row_lower_ = np.where(np.array(program.equal, dtype=bool), right, -highspy.kHighsInf)
    starts: list[int] = [0]
    index: list[int] = []
    value: list[float] = []
    for row in program.rows:
        index.extend(row.keys())
        value.extend(float(v) for v in row.values())
        starts.append(len(index))
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.array(starts, dtype=np.int32)
    lp.a_matrix_.index_ = np.array(index, dtype=np.int32)
    lp.a_matrix_.value_ = np.array(value, dtype=np.float64)
    return lp


def _largest(program: LinearProgram) -> Fraction:
    return max((abs(Fraction(b)) for b in program.right), default=Fraction(1)) or Fraction(1)


def _solve_basis(program: LinearProgram, basic: list[int], tight: list[int]) -> Solution:
    """The rational solution of a basis: the other variables are 0, the tight rows hold with equality."""
    column = {j: k for k, j in enumerate(basic)}
    matrix = SparseMatrix([{column[j]: v for j, v in program.rows[i].items() if j in column and v} for i in tight], len(basic))
    values = matrix.solve([program.right[i] for i in tight])
    prices = matrix.solve_transposed([program.objective[j] for j in basic])
    x, y = [Fraction(0)] * len(program.objective), [Fraction(0)] * len(program.rows)
    for j, v in zip(basic, values, strict=True):
        x[j] = Fraction(v)
    for i, v in zip(tight, prices, strict=True):
        y[i] = Fraction(v)
    return Solution(sum((Fraction(c) * x[j] for j, c in enumerate(program.objective) if c and x[j]), Fraction(0)), tuple(x), tuple(y))


class SparseMatrix:
    """A square matrix factored by elimination, sparsest row and column first (Markowitz, 1957), without rounding.

    Most entries here are 1 or -1 and stay integers: they are kept as ints, which is much faster than fractions.

    Raises
    ------
    ZeroDivisionError
        Where the matrix is not square or singular.
    """

    def __init__(self, rows: Sequence[Row], columns: int):
        if len(rows) != columns:
            raise ZeroDivisionError("the matrix is not square")
        self.rows: list[dict[int, Number]] = [dict(row) for row in rows]
        self.holders: list[set[int]] = [set() for _ in rows]
        for i, row in enumerate(self.rows):
            for j in row:
                self.holders[j].add(i)
        self.buckets: dict[int, set[int]] = {}
        for i, row in enumerate(self.rows):
            self.buckets.setdefault(len(row), set()).add(i)
        self.pivots: list[tuple[int, int]] = []
        self.steps: list[tuple[int, int, Number]] = []  # row, pivot row, factor subtracted
        for _ in rows:
            self._eliminate(_sparsest(self.buckets))

    def _eliminate(self, i: int) -> None:
        """Take row i as the next pivot row."""
        row = self.rows[i]
        if not row:
            raise ZeroDivisionError("the matrix is singular")
        j = min(row, key=lambda k: (len(self.holders[k]), k))
        self.buckets[len(row)].discard(i)
        for k in row:
            self.holders[k].discard(i)
        for other in sorted(self.holders[j]):
            self._subtract(other, i, j)
        self.holders[j] = set()
        self.pivots.append((i, j))

    def _subtract(self, other: int, i: int, j: int) -> None:
        """Clear column j of another row."""
        target, factor = self.rows[other], _ratio(self.rows[other][j], self.rows[i][j])
        self.buckets[len(target)].discard(other)
        for k, v in self.rows[i].items():
            new = target.get(k, 0) - factor * v
            if new and k != j:
                target[k] = new
                self.holders[k].add(other)
            elif k in target:
                del target[k]
                if k != j:
                    self.holders[k].discard(other)
        self.steps.append((other, i, factor))
        self.buckets.setdefault(len(target), set()).add(other)

    def solve(self, right: Sequence[Number]) -> list[Number]:
        """x with matrix x = right."""
        values = list(right)
        for other, i, factor in self.steps:
            if values[i]:
                values[other] -= factor * values[i]
        solution: list[Number] = [0] * len(values)
        for i, j in reversed(self.pivots):
            rest = values[i]
            for k, v in self.rows[i].items():
                if k != j and solution[k]:
                    rest -= v * solution[k]
            solution[j] = _ratio(rest, self.rows[i][j])
        return solution

    def solve_transposed(self, right: Sequence[Number]) -> list[Number]:
        """y with y matrix = right."""
        values = list(right)
        solution: list[Number] = [0] * len(values)
        for i, j in self.pivots:
            if values[j]:
                solution[i] = _ratio(values[j], self.rows[i][j])
                for k, v in self.rows[i].items():
                    if k != j:
                        values[k] -= v * solution[i]
        for other, i, factor in reversed(self.steps):
            if solution[other]:
                solution[i] -= factor * solution[other]
        return solution


def _ratio(a: Number, b: Number) -> Number:
    """a / b, as an int where it is one."""
    if isinstance(a, int) and isinstance(b, int) and a % b == 0:
        return a // b
    return Fraction(a) / b


def _sparsest(buckets: dict[int, set[int]]) -> int:
    """A row with the fewest entries left."""
    return min(buckets[min(size for size, rows in buckets.items() if rows)])


def _violation(program: LinearProgram, solution: Solution) -> str | None:
    """What is wrong with the solution as a pair of feasible primal and dual points, or None: then it is optimal."""
    if any(v < 0 for v in solution.x):
        return f"a variable is {float(min(solution.x)):g}"
    reduced = [Fraction(c) for c in program.objective]
    for i, row in enumerate(program.rows):
        activity = sum((Fraction(v) * solution.x[j] for j, v in row.items() if solution.x[j]), Fraction(0))
        if activity > program.right[i] or (program.equal[i] and activity != program.right[i]):
            return f"row {i} is {float(activity):g}, allowed {float(program.right[i]):g}"
        price = solution.y[i]
        if price < 0 and not program.equal[i]:
            return f"a multiplier is {float(price):g}"
        if price:
            for j, v in row.items():
                reduced[j] -= price * v
    worst = max(reduced, default=Fraction(0))
    return f"a reduced cost is {float(worst):g}" if worst > 0 else None
