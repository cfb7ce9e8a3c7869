"""The exact linear program solver on its own."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkcoll.errors import PackingError
from blinkcoll.packing.exactlp import BudgetExceeded, LinearProgram, SparseMatrix, maximise


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
