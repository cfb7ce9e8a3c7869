"""Programs: the IR, how plans and the classic families are lowered to it, and the verifier."""

from .encoding import encode
from .program import INPUT, OUTPUT, SCRATCH, After, Channel, Connection, Operand, Program, Step, slot
from .rings import lower_rings
from .text import program_text
from .trees import lower_trees
from .verifier import verify

__all__ = [
    "INPUT", "OUTPUT", "SCRATCH", "After", "Channel", "Connection", "Operand", "Program", "Step",
    "encode", "lower_rings", "lower_trees", "program_text", "slot", "verify",
]  # fmt: skip
