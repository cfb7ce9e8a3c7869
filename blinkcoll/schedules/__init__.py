"""Programs: the IR, how plans and the classic families are lowered to it, and the verifier."""

from .encoding import encode
from .lower import lower
from .program import INPUT, OUTPUT, SCALED_INPUT, SCRATCH, After, Channel, Connection, Operand, Program, Step, slot
from .rings import lower_rings
from .sharded import lower_flows, lower_sharded_trees
from .text import program_text
from .trees import lower_trees
from .verifier import verify

__all__ = [
    "INPUT", "OUTPUT", "SCALED_INPUT", "SCRATCH", "After", "Channel", "Connection", "Operand", "Program", "Step",
    "encode", "lower", "lower_flows", "lower_rings", "lower_sharded_trees", "lower_trees", "program_text", "slot", "verify",
]  # fmt: skip
