"""The exact linear program solver on its own."""

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkcoll.errors import PackingError
from blinkcoll.packing.exactlp import BudgetExceeded, LinearProgram, SparseMatrix, maximise, on_grid


def test_an_optimum_with_an_ugly_denominator():
    program = LinearProgram()
    x, y = program.add_variable(1), program.add_variable(1)
    program.add_row({x: 7, y: 3}, Fraction(76, 7))
    program.add_row({x: 2, y: 11}, 5)
    solution = maximise(program)
    assert 7 * solution.x[x] + 3 * solution.x[y] == Fraction(76, 7)
    assert 2 * solution.x[x] + 11 * solution.x[y] == 5
    assert solution.value == Fraction(76, 7) * solution.y[0] + 5 * solution.y[1]


def test_no_finite_optimum_is_an_error():
    program = LinearProgram()
    program.add_variable(1)
    program.add_row({0: -1}, 1)
    with pytest.raises(PackingError, match="solver says"):
        maximise(program)


def test_infeasible_is_an_error():
    program = LinearProgram()
    x = program.add_variable(1)
    program.add_row({x: 1}, -1)
    with pytest.raises(PackingError, match="solver says"):
        maximise(program)


def test_no_time_is_an_error():
    program = LinearProgram()
    for _ in range(30):
        program.add_variable(1)
    for i in range(30):
        program.add_row({j: 1 + (i * j) % 7 for j in range(30)}, 10 + i)
    with pytest.raises(BudgetExceeded):
        maximise(program, budget_s=0.0)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(data=st.data(), n=st.integers(1, 7))
def test_solutions_satisfy_their_systems(data, n):
    entry = st.one_of(st.just(0), st.integers(-3, 3), st.fractions(-2, 2, max_denominator=9))
    rows = [[data.draw(entry) for _ in range(n)] for _ in range(n)]
    right = [data.draw(entry) for _ in range(n)]
    try:
        matrix = SparseMatrix([{j: v for j, v in enumerate(row) if v} for row in rows], n)
    except ZeroDivisionError:
        assert determinant(rows) == 0
        return
    assert determinant(rows) != 0
    x, y = matrix.solve(right), matrix.solve_transposed(right)
    assert [sum(a * b for a, b in zip(row, x, strict=True)) for row in rows] == right
    assert [sum(rows[i][j] * y[i] for i in range(n)) for j in range(n)] == right


def determinant(rows):
    if not rows:
        return Fraction(1)
    return sum((-1) ** j * Fraction(v) * determinant([[*row[:j], *row[j + 1 :]] for row in rows[1:]]) for j, v in enumerate(rows[0]) if v)


def test_a_grid_point_is_found_where_there_is_one_and_none_where_not():
    """x + y = 1000 with x at most 700: in units of 250 as 500 + 500 or 250 + 750; in units of 1000 not at all."""
    program = LinearProgram()
    x, y = program.add_variable(), program.add_variable()
    program.add_row({x: 1, y: 1}, 1000, equal=True)
    program.add_row({x: 1}, 700)
    program.add_row({y: 1}, 800)
    counts = on_grid(program, [x, y], Fraction(250), 10)
    assert counts is not None and sum(counts) == 4 and counts[0] in (1, 2)
    assert on_grid(program, [x, y], Fraction(1000), 10) is None


def test_it_solves_where_the_process_has_used_the_solver_with_other_threads_and_prints_nothing(tmp_path):
    """HiGHS keeps one pool of threads a process; and says who it is on stdout unless silenced before it is made."""
    use = "import highspy; h = highspy.Highs(); h.silent(); h.addVar(0, 1); h.run(); print('---', flush=True)\n"
    solve = "from blinkcoll.packing.exactlp import LinearProgram, maximise\np = LinearProgram(); x = p.add_variable(1); p.add_row({x: 2}, 3)\nprint(maximise(p).value)"
    both = subprocess.run([sys.executable, "-c", use + solve], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert both.stdout.partition("---\n")[2] == "3/2\n"
    alone = subprocess.run([sys.executable, "-c", solve], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert alone.stdout == "3/2\n"
