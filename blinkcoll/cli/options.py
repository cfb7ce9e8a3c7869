"""What commands take in common, and how it is read."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ..errors import TopologyError
from ..topology import Topology, is_file, load_topology

#: The largest size that commands take: a simulation of it takes seconds.
MOST_BYTES = 64 << 30
#: nccl-tests' names of element types, to bytes.
ELEMENT_BYTES = {
    "int8": 1, "uint8": 1, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8, "half": 2, "float": 4, "double": 8, "bfloat16": 2,
}  # fmt: skip

Topo = Annotated[str, typer.Option("--topo", help="A layout's name or a topology file.", metavar="NAME|FILE")]
Gpus = Annotated[str | None, typer.Option("--gpus", help="GPU indices, in rank order: 0,1,4. All where left out.", metavar="LIST")]
Relays = Annotated[
    str | None, typer.Option("--relays", help="Idle GPUs that may forward, copy and add without being ranks: 2,3. Beside --gpus.", metavar="LIST")
]
Root = Annotated[int | None, typer.Option("--root", "-r", help="The root's rank, for broadcast and reduce.", metavar="RANK")]


def read_topology(topo: str, gpus: str | None, relays: str | None = None) -> Topology:
    """The machine, or the part of it that ``--gpus`` names, with the idle GPUs that ``--relays`` does."""
    return read_gpus(read_machine(topo), gpus, relays)


def read_machine(source: str, arch: str = "", option: str = "--topo") -> Topology:
    """The machine that a name or a file means. A name that means none is a mistake of use; a file that cannot be read is not."""
    try:
        return load_topology(source, arch)
    except TopologyError as error:
        if is_file(source):
            raise
        raise typer.BadParameter(str(error), param_hint=option) from None


def read_gpus(topology: Topology, gpus: str | None, relays: str | None = None) -> Topology:
    """The part of a machine that ``--gpus`` names: indices, bus ids, UUIDs or names, in rank order; all of it without."""
    if gpus is None:
        if relays is not None:
            raise typer.BadParameter("relays are idle GPUs: say with --gpus which are not", param_hint="--relays")
        return topology
    ranks, helpers = _devices(gpus, "--gpus"), [] if relays is None else _devices(relays, "--relays")
    try:
        return topology.subset(ranks, relays=helpers)
    except TopologyError as error:
        raise typer.BadParameter(str(error), param_hint="--gpus" if relays is None else "--gpus, --relays") from None


def _devices(text: str, option: str) -> list[int | str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise typer.BadParameter("expected GPU indices such as 0,1,4", param_hint=option)
    return [int(part) if part.isascii() and part.isdecimal() else part for part in parts]


def read_size(text: str, option: str) -> int:
    """``8``, ``64K``, ``1G``: powers of 1024, as nccl-tests reads them."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise typer.BadParameter(f"{text!r} is not a size; write 8, 64K, 1G", param_hint=option)
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()]


#: More sizes than this are taken for a mistake in -i.
MOST_SIZES = 10_000


def sizes_between(smallest: int, largest: int, factor: int, elem_size: int, step: int | None = None) -> list[int]:
    """Sizes from the smallest to the largest, times ``factor`` or plus ``step``, each a whole number of elements."""
    if smallest < 1:
        raise typer.BadParameter("sizes start at 1 byte", param_hint="-b")
    if smallest > largest:
        raise typer.BadParameter(f"from {smallest} to {largest} bytes there is no size: -e has to be at least -b", param_hint="-b, -e")
    if largest > MOST_BYTES:
        raise typer.BadParameter(f"{largest} bytes: sizes go up to {MOST_BYTES >> 30}G", param_hint="-e")
    if step is not None and (step == 0 or (largest - smallest) // step >= MOST_SIZES):
        raise typer.BadParameter(f"steps of {step} bytes from {smallest} to {largest} are more than {MOST_SIZES} sizes", param_hint="-i")
    sizes, size = [], smallest
    while size <= largest:
        sizes.append(max(size // elem_size, 1) * elem_size)
        size = size * factor if step is None else size + step
    return list(dict.fromkeys(sizes))


def gpu_list(topology: Topology) -> str:
    """The GPU indices of a topology's ranks, in rank order; first and last of more than 16 that follow one another."""
    indices = [d.index for d in topology.devices]
    if len(indices) > 16 and indices[0] is not None and indices == list(range(indices[0], indices[0] + len(indices))):
        return f"{indices[0]}-{indices[-1]}"
    return ",".join(str(d.index if d.index is not None else d.name) for d in topology.devices)
