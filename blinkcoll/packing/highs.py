"""HiGHS without a word on stdout, on one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import highspy


def quiet_highs() -> highspy.Highs:
    """A solver that prints nothing: not even the banner that highspy 1.16 prints from its constructor, once a process."""
    import highspy  # takes 0.1 s with numpy, and most plans need no linear program

    class Quiet(highspy.Highs):
        def enableCallbacks(self) -> None:
            self.silent()
            super().enableCallbacks()  # type: ignore[no-untyped-call]

    highs = Quiet()  # type: ignore[no-untyped-call]
    highs.silent()  # of older releases the constructor does not call the above
    highs.setOptionValue("threads", 1)
    return highs


def run_solver(highs: highspy.Highs) -> None:
    """Run, whoever else uses HiGHS in this process.

    It has one pool of threads a process, and refuses to run with another number than its first caller asked for.
    """
    import highspy

    highs.run()
    if highs.getModelStatus() == highspy.HighsModelStatus.kNotset:
        highs.setOptionValue("threads", 0)
        highs.run()
