"""What others would run on the same machine, as programs of the same IR."""

from .registry import BASELINES, Baseline, baseline_program, folded_baseline_program, run_baseline

__all__ = ["BASELINES", "Baseline", "baseline_program", "folded_baseline_program", "run_baseline"]
