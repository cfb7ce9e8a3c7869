"""What machine a group of ranks plans for: rank 0's choice, told to all."""

from __future__ import annotations

import os

from ..errors import ExecutionError, TopologyError
from ..topology import HostNodes, Topology, host_topology, load_topology
from .bootstrap import Group
from .nodes import nodes_of


def agree_on_topology(group: Group, topology: Topology | None, timeout_s: float) -> Topology:
    """Rank 0's, on all ranks: the one given, else that which ``BLINKCOLL_TOPO`` names, else this host.

    Raises
    ------
    ExecutionError, TopologyError
        Where there is none of that name, or it has fewer devices than there are ranks; on all ranks.
    """
    nodes = nodes_of(group, timeout_s)
    if group.rank == 0:
        try:
            mine, error = _own_topology(group.world_size, topology, nodes), None
        except (ExecutionError, TopologyError) as failed:
            mine, error = None, failed
        group.tell_all({"topology": mine.to_json() if mine else None, "error": str(error) if error else None})
        if error is not None:
            raise error
        assert mine is not None
        return mine
    message, _ = group.hear("learning the topology", timeout_s)
    if message.get("error"):
        raise ExecutionError(f"rank 0: {message['error']}")
    return Topology.from_json(str(message["topology"]))


def _own_topology(world_size: int, topology: Topology | None, nodes: HostNodes | None) -> Topology:
    if topology is None:
        named = os.environ.get("BLINKCOLL_TOPO", "host")
        topology = host_topology(world_size, nodes) if named == "host" else load_topology(named)
        if topology.nranks > world_size:
            topology = topology.subset([d.name for d in topology.devices[:world_size]])
    if topology.nranks != world_size:
        raise ExecutionError(f"topology {topology.name} has {topology.nranks} devices, the communicator {world_size} ranks")
    return topology
