"""Everything blinkcoll raises on purpose.

BlinkcollError
├── TopologyError      a layout, dump or probe that cannot be turned into a machine
├── PackingError       no plan exists (a set that nothing connects) or a certificate does not hold
├── ScheduleError      a program that is malformed, or that the verifier proves wrong
├── SimulationError    a program that the simulator cannot time
└── ExecutionError     a program that was started and did not finish
    ├── CompileError   a kernel that NVRTC refused
    ├── WaitTimeout    a wait ran out of time; says who waited for whom
    ├── RankFailed     a rank ended before its program did
    ├── CallMismatch   ranks made different calls where all have to make the same
    └── Aborted        a rank ended the communicator: by abort(), an interrupt, an error of its own
"""


class BlinkcollError(Exception):
    """Base of every error that blinkcoll raises on purpose."""


class TopologyError(BlinkcollError, ValueError):
    """A layout, dump or probe that cannot be turned into a machine."""


class PackingError(BlinkcollError, ValueError):
    """No plan exists for this set of devices, or a certificate does not hold."""


class ScheduleError(BlinkcollError, ValueError):
    """A program that is malformed or that the verifier proves wrong."""


class SimulationError(BlinkcollError, ValueError):
    """A program that the simulator cannot time."""


class ExecutionError(BlinkcollError, RuntimeError):
    """A program that was started and did not finish."""


class CompileError(ExecutionError):
    """A kernel that NVRTC refused; the message holds the compiler's log."""


class WaitTimeout(ExecutionError, TimeoutError):
    """A wait ran out of time; the message says who waited for whom and how far they were."""


class RankFailed(ExecutionError):
    """A rank ended before its program did; the message names it."""


class CallMismatch(ExecutionError):
    """Ranks made different calls where all have to make the same; the message holds them all."""


class Aborted(ExecutionError):
    """A rank ended the communicator: by ``abort()``, an interrupt, or an error of its own; the message says which and why."""
