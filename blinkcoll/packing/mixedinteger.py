"""A mixed-integer program for HiGHS, in floats and in bounded time: it proposes, others weigh exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .highs import quiet_highs


class MixedInteger:
    """Minimise over 0 <= x <= high, with rows low <= coefficients . x <= high."""

    def __init__(self) -> None:
        self._highs: Any = quiet_highs()
        self._count = 0

    def variable(self, high: float, cost: float = 0.0, integer: bool = False) -> int:
        """A variable; returns its number."""
        import highspy

        self._highs.addVar(0.0, high)
        self._highs.changeColCost(self._count, cost)
        if integer:
            self._highs.changeColIntegrality(self._count, highspy.HighsVarType.kInteger)
        self._count += 1
        return self._count - 1

    def row(self, entries: Mapping[int, float], low: float | None = None, high: float | None = None) -> None:
        """A row; a side that is not given is unbounded."""
        import numpy as np
        from highspy import kHighsInf

        low, high = -kHighsInf if low is None else low, kHighsInf if high is None else high
        self._highs.addRow(low, high, len(entries), np.array(list(entries), dtype=np.int32), np.array(list(entries.values()), dtype=np.float64))

    def minimum(self, budget_s: float) -> list[float]:
        """Values of the best solution found in that many seconds; empty where none was."""
        import highspy

        self._highs.setOptionValue("time_limit", float(budget_s))
        self._highs.run()
        if self._highs.getInfo().primal_solution_status != highspy.kSolutionStatusFeasible:
            return []
        return list(self._highs.getSolution().col_value)
