"""Programs: the IR, how plans and the classic families are lowered to it, and the verifier."""

from .barrier import lower_barrier
from .bothways import lower_both_ways
from .direct import lower_direct
from .doubletrees import lower_double_trees
from .encoding import encode
from .exchanges import expand_exchanges, has_exchanges
from .forests import lower_forest
from .halvingdoubling import lower_halving_doubling
from .lower import lower
from .nvls import lower_nvls
from .onechannel import in_one_channel
from .oneshot import lower_one_shot
from .program import (
    INPUT,
    OUTPUT,
    SCALED_INPUT,
    SCRATCH,
    After,
    Channel,
    Connection,
    Operand,
    Program,
    Step,
    multicast,
    slot,
)
from .protocols import with_protocol
from .rings import lower_rings
from .sendrecv import lower_sendrecv
from .sharded import lower_flows, lower_sharded_trees
from .split import split_wide_steps
from .star import lower_star
from .text import program_summary, program_text
from .threephase import lower_three_phase
from .trees import lower_trees
from .twoshot import lower_two_shot
from .verifier import verify

__all__ = [
    "INPUT", "OUTPUT", "SCALED_INPUT", "SCRATCH", "After", "Channel", "Connection", "Operand", "Program", "Step",
    "encode", "expand_exchanges", "has_exchanges", "in_one_channel", "lower", "lower_barrier", "lower_both_ways", "lower_direct", "lower_double_trees", "lower_flows", "lower_forest", "lower_halving_doubling",
    "lower_nvls", "lower_one_shot", "lower_rings", "lower_sendrecv", "lower_sharded_trees", "lower_star", "lower_three_phase", "lower_trees", "lower_two_shot", "multicast",
    "program_summary", "program_text", "slot", "split_wide_steps", "verify", "with_protocol",
]  # fmt: skip
