"""A mixed-integer program for HiGHS, in floats and in bounded time: it proposes, others weigh exactly."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from .highs import quiet_highs, run_solver


class MixedInteger:
    """Minimise over 0 <= x <= high, with rows low <= coefficients . x <= high."""

    def __init__(self) -> None:
        self._high: list[float] = []
        self._cost: list[float] = []
        self._integer: list[bool] = []
        self._rows: list[tuple[Mapping[int, float], float, float]] = []

    def variable(self, high: float, cost: float = 0.0, integer: bool = False) -> int:
        """A variable; returns its number."""
        self._high.append(high)
        self._cost.append(cost)
        self._integer.append(integer)
        return len(self._high) - 1

    def row(self, entries: Mapping[int, float], low: float = -inf, high: float = inf) -> None:
        """A row; a side that is not given is unbounded."""
        self._rows.append((entries, low, high))

    def minimum(self, budget_s: float) -> list[float]:
        """Values of the best solution found in that many seconds; empty where none was."""
        import highspy
        import numpy as np

        lp, count = highspy.HighsLp(), len(self._high)
        lp.num_col_, lp.num_row_ = count, len(self._rows)
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = np.array(self._cost), np.zeros(count), np.array(self._high)
        lp.row_lower_, lp.row_upper_ = np.array([low for _, low, _ in self._rows]), np.array([high for *_, high in self._rows])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(entries) for entries, *_ in self._rows)])
        lp.a_matrix_.index_ = np.array([i for entries, *_ in self._rows for i in entries], dtype=np.int32)
        lp.a_matrix_.value_ = np.array([v for entries, *_ in self._rows for v in entries.values()], dtype=np.float64)
        if any(self._integer):
            kinds = highspy.HighsVarType
            lp.integrality_ = [kinds.kInteger if whole else kinds.kContinuous for whole in self._integer]
        highs = quiet_highs()
        highs.passModel(lp)
        highs.setOptionValue("time_limit", float(budget_s))
        run_solver(highs)
        if highs.getInfo().primal_solution_status != highspy.kSolutionStatusFeasible:
            return []
        return list(highs.getSolution().col_value)
