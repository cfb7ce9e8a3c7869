"""The machine: devices, switches and links, from layouts, dumps and probes."""

from .clusters import cluster
from .distance import PcieTree, distance, lanes_per_device, pcie_distance, pcie_tree
from .hosts import host_topology
from .isomorphism import isomorphic
from .layouts import layout_names, load_layout
from .load import is_file, load_topology
from .model import BETWEEN_SERVERS, LINK_KINDS, Device, GpuIndex, Link, PciBusId, Rank, Switch, Topology, Uuid, exact
from .multicast import group_switches
from .numa import HostNodes, nodes_here, own_node
from .probe import probe
from .routing import Path, route
from .subsets import unique_subsets

__all__ = [
    "BETWEEN_SERVERS",
    "LINK_KINDS",
    "Device",
    "GpuIndex",
    "HostNodes",
    "Link",
    "Path",
    "PciBusId",
    "PcieTree",
    "Rank",
    "Switch",
    "Topology",
    "Uuid",
    "cluster",
    "distance",
    "exact",
    "group_switches",
    "host_topology",
    "is_file",
    "isomorphic",
    "lanes_per_device",
    "layout_names",
    "load_layout",
    "load_topology",
    "nodes_here",
    "own_node",
    "pcie_distance",
    "pcie_tree",
    "probe",
    "route",
    "unique_subsets",
]  # fmt: skip
