"""Which format a file has, told from its content, and the parser for it."""

from __future__ import annotations

import re

from .hwloc_xml import parse_hwloc_xml
from .layouts import parse_layout
from .model import Topology
from .nccl_xml import parse_nccl_xml
from .nvidia_smi import parse_nvidia_smi
from .rocm_smi import parse_rocm_smi
from .source import Source

#: What ``parse`` knows, for messages.
FORMATS = (
    "nvidia-smi topo -m, rocm-smi --showtopo or amd-smi topology, a topology file of NCCL or RCCL, hwloc XML, "
    "blinkcoll's JSON or TOML"
)


def parse(source: Source, arch: str = "") -> Topology:
    """The topology in a file of any known format; ``arch`` helps where the file names no architecture.

    Raises
    ------
    TopologyError
        Where no parser knows the format or the one that does refuses the content; it names the file and, where there is
        one, the line.
    """
    start = source.text.lstrip()
    if not start:
        raise source.error("is empty")
    if start[0] == "{":
        return Topology.from_json(source.text, source.name)
    if re.search(r"^[ \t]*schema[ \t]*=", source.text, re.MULTILINE) and re.search(r"^\[gpus\]", source.text, re.MULTILINE):
        return parse_layout(source.text, source.name)
    root = re.search(r"<(system|graphs?|topology)\b", source.text)
    if root:
        return parse_hwloc_xml(source, arch) if root.group(1) == "topology" else parse_nccl_xml(source, arch)
    if "<br" in source.text:  # a table inside one cell of another
        source = Source(source.name, re.sub(r"<br ?/?>", "\n", source.text), source.notes)
    if re.search(r"(Weight|Hops|Link Type) between two GPUs|^[ \t]*(WEIGHT|HOPS|LINK TYPE) TABLE", source.text, re.MULTILINE):
        return parse_rocm_smi(source, arch)
    if re.search(r"\bGPU[0-9]+\b", source.text):
        return parse_nvidia_smi(source, arch)
    if re.match(r"\s*(\[|[A-Za-z_]+\s*=)", source.text):
        return parse_layout(source.text, source.name)
    raise source.error(f"no known format; this reads {FORMATS}")
