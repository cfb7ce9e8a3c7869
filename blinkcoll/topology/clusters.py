"""Several servers of one make over a network switch: ``NAME*N@RATE``.

Every server keeps its links; its NICs join one network switch, RATE GB/s each way a NIC. Where the server has none, each
GPU gets one beside it (at the same PCIe switch or CPU). GPU indices run on through the servers: GPU 3 of server 1 of a
cluster of 8-GPU servers is 11, named ``s1.gpu3``. The network switch never limits: what leaves a server does.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from ..errors import TopologyError
from .model import BETWEEN_SERVERS, Device, GpuIndex, Link, Switch, Topology
from .rates import NIC_LATENCY_US, PCIE_LATENCY_US, pcie_rate

NETWORK = "network"
#: More devices than this in one topology is a slip of the keyboard: planning would not end.
MOST_DEVICES = 16384


def cluster(server: Topology, servers: int, rate_gb_s: Fraction) -> Topology:
    """``servers`` copies of ``server`` over a network switch, each NIC at ``rate_gb_s`` one way.

    Raises
    ------
    TopologyError
        Where the count or the rate is not positive, or the result would have more than 16384 devices.
    """
    if servers < 1 or rate_gb_s <= 0:
        raise TopologyError(f"{server.name}*{servers}@{rate_gb_s}: expected at least one server and a rate above 0 GB/s")
    if servers * server.nranks > MOST_DEVICES:
        raise TopologyError(f"{server.name}*{servers}: {servers * server.nranks} devices, expected at most {MOST_DEVICES}")
    unit = with_nics(server)
    span = 1 + max((d.server for d in unit.devices), default=0)
    stride = 1 + max((d.index for d in unit.devices if d.index is not None), default=-1)
    devices: list[Device] = []
    switches: list[Switch] = [Switch(NETWORK, "network", server=BETWEEN_SERVERS)]
    links: list[Link] = []
    refused: list[tuple[str, str]] = []
    for s in range(servers):
        for d in unit.devices:
            index = None if d.index is None else GpuIndex(s * stride + d.index)
            devices.append(replace(d, name=f"s{s}.{d.name}", index=index, server=s * span + d.server, bus_id=None, uuid=None))
        for switch in unit.switches:
            home = switch.server if switch.server == BETWEEN_SERVERS else s * span + switch.server
            switches.append(replace(switch, name=f"s{s}.{switch.name}", server=home))
        links += [replace(k, src=f"s{s}.{k.src}", dst=f"s{s}.{k.dst}") for k in unit.links if NETWORK not in (k.src, k.dst)]
        for switch in unit.switches:
            if switch.kind == "nic":
                links += _both(f"s{s}.{switch.name}", NETWORK, "NIC", rate_gb_s, NIC_LATENCY_US)
        refused += [(f"s{s}.{a}", f"s{s}.{b}") for a, b in unit.no_peer_access]
    name = f"{server.name}*{servers}@{_decimal(rate_gb_s)}"
    return Topology(name, tuple(devices), tuple(switches), tuple(links), notes=server.notes, no_peer_access=tuple(refused))


def with_nics(server: Topology) -> Topology:
    """The server itself where it has NICs; else with one for each device, beside it."""
    if any(s.kind == "nic" for s in server.switches):
        return server
    kinds = {s.name: s.kind for s in server.switches}
    switches, links = list(server.switches), list(server.links)
    for i, device in enumerate(server.devices):
        nic = Switch(f"nic{i}", "nic", server=device.server)
        switches.append(nic)
        ups = [k for k in server.links if k.src == device.name and kinds.get(k.dst) in ("pcie", "cpu")]
        up = next((k for k in ups if k.kind == "PCIE"), ups[0] if ups else None)
        if up is None:
            links += _both(nic.name, device.name, "PCIE", pcie_rate(None, 16), PCIE_LATENCY_US)
        elif up.kind == "PCIE":
            links += [replace(up, src=nic.name, measured_gb_s=None), replace(up, src=up.dst, dst=nic.name, measured_gb_s=None)]
        else:  # a GPU on its CPU's own interconnect, or a host rank: the NIC is a PCIe card in that host
            links += _both(nic.name, up.dst, "PCIE", pcie_rate(5, 16), PCIE_LATENCY_US)
    return replace(server, switches=tuple(switches), links=tuple(links))


def _both(a: str, b: str, kind: str, capacity: Fraction, latency_us: Fraction) -> list[Link]:
    return [Link(src, dst, kind, capacity, latency_us) for src, dst in ((a, b), (b, a))]


def _decimal(rate: Fraction) -> str:
    return str(rate) if Fraction(str(float(rate))) != rate else f"{float(rate):g}"
