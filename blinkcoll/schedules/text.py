"""A program as people read it: connections first, then one line per step.

``f ·`` marks what a pre-multiplied sum scales, ``÷ d`` what an average divides; other operations pass over both.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from ..topology import Topology
from .program import Connection, Operand, Program, Step

#: Ranks that fit side by side, and shares one below the other, on a screen.
_MOST_COLUMNS, _MOST_SHARES = 24, 16


def program_text(program: Program) -> str:
    """The text view; the same program always gives the same text."""
    lines = _head(program)
    for i, connection in enumerate(program.connections):
        lines.append(f"  c{i:<3} {_path(connection, program.topology)}  {connection.slots} slots, {connection.protocol}, {connection.transport}")
    for rank, channels in enumerate(program.ranks):
        lines.append(program.executor_name(rank))
        for c, channel in enumerate(channels):
            for s, step in enumerate(channel.steps):
                lines.append(f"  ch {c:<2} step {s:<2} {_step(step, program.nshards)}")
    return "\n".join(lines)


def _head(program: Program) -> list[str]:
    root = "" if program.root is None else f", root {program.root}"
    return [
        f"program {program.hash}: {program.collective}{root} by {program.algorithm}, {program.nranks} ranks on {program.topology.name} ({program.topology.fingerprint})",
        f"partition: {program.nshards} shard{'s' * (program.nshards > 1)}, shares weighted {':'.join(map(str, program.weights))}",
    ]


def program_summary(program: Program) -> str:
    """A program on one screen: how many connections join which ranks, and what each share has; the same for equal programs."""
    n, steps = program.nranks, [step for channels in program.ranks for channel in channels for step in channel.steps]
    kinds = Counter((c.slots, c.protocol, c.transport) for c in program.connections)
    lines = _head(program)
    lines.append(f"{len(steps)} steps an iteration, in {min(map(len, program.ranks), default=0)} to {program.nchannels} channels a rank")
    lines += [f"{count} connections of {slots} slots, {protocol}, {transport}" for (slots, protocol, transport), count in sorted(kinds.items())]
    if program.connections and n <= _MOST_COLUMNS:
        pairs = Counter((c.src, c.dst) for c in program.connections)
        lines.append("connections from the rank at the left to the one above")
        lines.append("     " + "".join(f"{dst:>4}" for dst in range(n)))
        lines += [f"{src:>5}" + "".join(f"{pairs[src, dst] or '.':>4}" for dst in range(n)) for src in range(n)]
    of_share = Counter(step.share for step in steps)
    touched = {(c, step.share) for step in steps for c in (*step.wait, *step.signal)}
    used = Counter(share for _, share in touched)
    told = [f"share {i}: weight {w}, {used[i]} connections, {of_share[i]} steps" for i, w in enumerate(program.weights)]
    rest = len(told) - _MOST_SHARES
    return "\n".join([*lines, *told[:_MOST_SHARES], *([f"... and {rest} more shares"] if rest > 0 else [])])


def _path(connection: Connection, topology: Topology) -> str:
    text = "→".join(str(v) for v in connection.path)
    kinds = {(topology.vertex(k.src), topology.vertex(k.dst)): k.kind for k in reversed(topology.links)}
    crossed = dict.fromkeys(kinds.get(hop, "?") for hop in pairwise(connection.path))
    return f"{text}  {'+'.join(crossed)}"


def _step(step: Step, nshards: int) -> str:
    shard = f" shard {step.shard}" if nshards > 1 else ""
    parts = [f"share {step.share}{shard}"]
    if step.wait:
        parts.append("wait " + " ".join(f"c{c}" for c in step.wait))
    parts += [f"after ch {a.channel} step {a.step}" + (f" lag {a.lag}" if a.lag else "") for a in step.after]
    if step.op == "exchange":
        given, got = " + ".join(map(_operand, step.srcs)) or "nothing", ", ".join(map(_operand, step.dsts)) or "nothing"
        over = f" over {' '.join(f'c{c}' for c in step.over)}" if step.over else ""
        parts.append(f"exchange among ranks {' '.join(map(str, step.group))}{over}: {given}{' ÷ d' if step.postscaled else ''} → {got}")
    elif step.op != "nop":
        scaled = " ÷ d" if step.postscaled else ""
        parts.append(f"{step.op} {' + '.join(map(_operand, step.srcs))}{scaled} → {', '.join(map(_operand, step.dsts))}")
    if step.signal:
        parts.append("signal " + " ".join(f"c{c}" for c in step.signal))
    return "  ".join(parts)


def _operand(operand: Operand) -> str:
    if operand.connection is not None:
        return f"slot c{operand.connection}"
    if operand.region is not None:
        return f"{operand.region} of all ranks"
    shard = "" if operand.shard is None else f" shard {operand.shard}"
    whose = shard + ("" if operand.rank is None else f" of rank {operand.rank}")
    return f"{'f · ' if operand.prescaled else ''}{operand.buffer}{whose}"
