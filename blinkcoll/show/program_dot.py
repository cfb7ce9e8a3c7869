"""A program as a Graphviz graph: ranks, and a line for each connection, in the colour of the share that it carries."""

from __future__ import annotations

from ..schedules import Program
from ..schedules.encoding import number_uses

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f")


def program_dot(program: Program, share: int | None = None) -> str:
    """The text of a ``graph.dot``; connections that carry other shares than ``share`` are left out where it is given.

    A connection that no slot operand names only signals, and is dashed.
    """
    numbering = number_uses(program)
    steps = [step for channels in program.ranks for channel in channels for step in channel.steps]
    carriers = {o.connection for step in steps for o in (*step.srcs, *step.dsts) if o.connection is not None}
    lines = [f'digraph "{program.hash}" {{', f'  label="{_text(program.collective)} by {_text(program.algorithm)}, {program.nranks} ranks on {_text(program.topology.name)}";']
    lines += ['  node [shape=box, style="filled,rounded", fillcolor="#e6f2d0", fontname="Helvetica"];', '  edge [fontname="Helvetica", fontsize=9];']
    for rank, device in enumerate((*program.topology.devices, *program.topology.relays)[: program.nexecutors]):
        root = ", penwidth=2.5" if rank == program.root else ""
        lines.append(f'  r{rank} [label="{rank}\\n{_text(device.name)}"{root}];')
    for i, connection in enumerate(program.connections):
        carried = numbering.share[i]
        if share is not None and carried != share:
            continue
        style = "" if i in carriers else ", style=dashed"
        over = "".join(f"\\n{_text(str(v))}" for v in connection.path[1:-1])
        lines.append(f'  r{connection.src} -> r{connection.dst} [color="{_COLOURS[carried % len(_COLOURS)]}", label="c{i}{over}"{style}];')
    return "\n".join([*lines, "}"]) + "\n"


def _text(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
