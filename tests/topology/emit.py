"""What tools would print of a layout: written from the formats' descriptions, not from the parsers."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from blinkcoll.topology import Topology, distance, pcie_distance, pcie_tree

LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NV#  = Connection traversing a bonded set of # NVLinks
"""


def bus_id(i: int) -> str:
    return f"0000:{16 + i:02x}:00.0"


def nvidia_smi(topology: Topology, separator: str = "\t", ends: str = "\n", list_models: bool = True) -> str:
    """``nvidia-smi -L`` and ``nvidia-smi topo -m``."""
    tree = pcie_tree(topology)
    gpus = [d.name for d in topology.devices]
    nics = [s.name for s in topology.switches if s.kind == "nic"]
    lines = [f"GPU {d.index}: {d.model} (UUID: GPU-{i:08x}-0000-0000-0000-000000000000)" for i, d in enumerate(topology.devices)] if list_models else []
    labels = {name: f"GPU{topology.device(name).index}" for name in gpus} | {name: f"NIC{i}" for i, name in enumerate(nics)}
    lines.append(separator.join(["", *labels.values(), "CPU Affinity", "NUMA Affinity"]))
    cpus = [s.name for s in topology.switches if s.kind == "cpu"]
    for a in labels:
        cells = [" X " if a == b else distance(topology, a, b, tree) if a in gpus and b in gpus else pcie_distance(topology, a, b, tree) for b in labels]
        way = tree.way_up(a)
        node = cpus.index(way[-1].dst) if way else 0
        lines.append(separator.join([labels[a], *cells, *([f"{16 * node}-{16 * node + 15}", str(node)] if a in gpus else ["", ""])]))
    text = "\n".join(lines) + "\n" + LEGEND
    if nics:
        text += "\nNIC Legend:\n\n" + "\n".join(f"  {labels[n]}: {n}" for n in nics) + "\n"
    return text.replace("\n", ends)


def nccl_xml(topology: Topology) -> str:
    """``NCCL_TOPO_DUMP_FILE``."""
    tree = pcie_tree(topology)
    buses = {d.name: bus_id(i) for i, d in enumerate(topology.devices)}
    models = {"Broadwell": 79, "Skylake": 85, "Sapphire Rapids": 143, "Emerald Rapids": 207}
    kinds = {s.name: s for s in topology.switches}
    numbers = iter(range(1, 10_000))
    speeds = {3: "8.0 GT/s PCIe", 4: "16.0 GT/s PCIe", 5: "32.0 GT/s PCIe"}

    def links(name: str) -> list[str]:
        found = []
        for k in topology.links:
            if k.src == name and k.kind == "NVLINK" and k.dst in kinds:
                planes = min(kinds[k.dst].planes, k.lanes)
                share = [k.lanes // planes + (i < k.lanes % planes) for i in range(planes)]
                found += [f'<nvlink target="0000:c{i:x}:00.0" count="{n}" tclass="0x068000"/>' for i, n in enumerate(share)]
            elif k.src == name and k.kind in ("NVLINK", "XGMI"):
                found.append(f'<{k.kind.lower()} target="{buses[k.dst]}" count="{k.lanes}" tclass="0x030200"/>')
            elif k.src == name and k.kind == "CPU":
                found.append(
                    f'<nvlink target="0004:00:00.0" count="{k.lanes}" tclass="0x068001"/>' if k.lanes > 1 else f'<c2c bw="{int(k.capacity * 1000) // 5}" count="5"/>'
                )
        return found

    def pci(name: str, indent: str) -> list[str]:
        up = tree.up[name]
        place = f'link_speed="{speeds.get(up.generation, "")}" link_width="{up.lanes if up.kind == "PCIE" else 16}"'
        if name in buses:
            device = topology.device(name)
            arch = f'sm="{device.arch[3:]}"' if device.arch.startswith("sm_") else f'sm="104" gcn="{device.arch}" arch="38911"'
            rank = topology.vertex(name)
            inner = links(name)
            gpu = f'<gpu dev="{device.index}" {arch} rank="{rank}" gdr="1"'
            body = [f"{indent}  {gpu}/>"] if not inner else [f"{indent}  {gpu}>", *(f"{indent}    {x}" for x in inner), f"{indent}  </gpu>"]
            return [f'{indent}<pci busid="{buses[name]}" class="0x030200" vendor="0x10de" device="0x1db5" {place}>', *body, f"{indent}</pci>"]
        number = next(numbers)
        own = f"0001:{number // 32:02x}:{number % 32:02x}.0"
        if kinds[name].kind == "nic":
            net = f'<nic><net name={quoteattr(name)} dev="{number}" speed="100000" port="1" guid="0x0" maxconn="65536" gdr="1"/></nic>'
            return [f'{indent}<pci busid="{own}" class="0x020700" {place}>{net}</pci>']
        below = [line for child in tree.children(name) for line in pci(child, indent + "  ")]
        return [f'{indent}<pci busid="{own}" class="0x060400" vendor="0x10b5" device="0x9781" {place}>', *below, f"{indent}</pci>"]

    lines = ['<system version="1">']
    for i, cpu in enumerate(s for s in topology.switches if s.kind == "cpu"):
        make = f'arch="{cpu.arch.replace("ppc64le", "ppc64").replace("aarch64", "arm64")}" vendor="{cpu.vendor}" familyid="6" modelid="{models.get(cpu.model, 49)}"'
        lines.append(f'  <cpu host_hash="0x1" numaid="{i}" affinity="ffff" {make}>')
        lines += [line for child in tree.children(cpu.name) for line in pci(child, "    ")]
        lines.append("  </cpu>")
    return "\n".join([*lines, "</system>", ""])


def rocm_smi(topology: Topology) -> str:
    """``rocm-smi --showtopo``."""
    names = [d.name for d in topology.devices]
    tree = pcie_tree(topology)
    direct = {(k.src, k.dst) for k in topology.links if k.kind == "XGMI"}
    cpus = [s.name for s in topology.switches if s.kind == "cpu"]
    head = "       " + "".join(f"{'GPU' + str(i):13}" for i in range(len(names)))

    def table(title, cell):
        rows = [f"GPU{i}".ljust(7) + "".join(f"{cell(a, b) if a != b else '0':13}" for b in names) for i, a in enumerate(names)]
        return [f" {title} ".center(80, "="), head, *rows, ""]

    lines = [" ROCm System Management Interface ".center(80, "=")]
    lines += table("Weight between two GPUs", lambda a, b: "15" if (a, b) in direct else "30")
    lines += table("Hops between two GPUs", lambda a, b: "1")
    lines += table("Link Type between two GPUs", lambda a, b: "XGMI")
    lines.append(" Numa Nodes ".center(80, "="))
    for i, name in enumerate(names):
        node = cpus.index(tree.way_up(name)[-1].dst)
        lines += [f"GPU[{i}]\t\t: (Topology) Numa Node: {node}", f"GPU[{i}]\t\t: (Topology) Numa Affinity: {node}"]
    return "\n".join([*lines, " End of ROCm SMI Log ".center(80, "="), ""])
