"""The best three-phase rate found by other means: one flow a rank, pair of servers and hub; and enumeration of all structures."""

from __future__ import annotations

from itertools import pairwise, product

from packing_oracles import Model, _arborescences, _turned, _ways, add


def _servers(topology):
    found = {}
    for rank, device in enumerate(topology.devices):
        found.setdefault(device.server, []).append(rank)
    home = {s.name: s.server for s in topology.switches}
    home |= {rank: device.server for rank, device in enumerate(topology.devices)}
    return [found[s] for s in sorted(found)], sorted(found), home


def _links(topology, kinds):
    capacity = {}
    for link in topology.links:
        if kinds is None or link.kind in kinds:
            arc = (topology.vertex(link.src), topology.vertex(link.dst))
            capacity[arc] = capacity.get(arc, 0.0) + float(link.capacity)
    return capacity


def three_phase_rate(topology, collective, root=None, local=None):
    """``local``: kinds of links inside servers, all where None."""
    servers, numbers, home = _servers(topology)
    halves = {"allreduce": ("up", "down"), "broadcast": ("down",), "reduce": ("up",)}[collective]
    capacity, inner = _links(topology, None), _links(topology, local)
    hubs, rooted = range(len(servers)), None if root is None else next(s for s, ranks in enumerate(servers) if root in ranks)
    model = Model()
    rate = model.variable(1.0)
    of_hub = {h: model.variable() for h in hubs}
    model.row({rate: -1.0, **{x: 1.0 for x in of_hub.values()}}, 0, 0)
    share = {(s, r, h): model.variable() for s, ranks in enumerate(servers) for r in ranks for h in hubs}
    for s, ranks in enumerate(servers):
        for h in hubs:
            model.row({**{share[s, r, h]: 1.0 for r in ranks}, of_hub[h]: -1.0}, 0, 0)
    load = {arc: {} for arc in capacity}
    for s, ranks in enumerate(servers):
        arcs = [arc for arc in inner if home[arc[0]] == home[arc[1]] == numbers[s]]
        used = {(half, arc): model.variable() for half in halves for arc in arcs}
        for arc in arcs:
            model.row({used[half, arc]: 1.0 for half in halves}, high=inner[arc])
            for half in halves:
                add(load[arc], used[half, arc], 1.0)
        switches = {v for arc in arcs for v in arc if isinstance(v, str)}
        for half in halves:
            for v in switches:
                row = {}
                for arc in arcs:
                    if v in arc:
                        add(row, used[half, arc], 1.0 if arc[1] == v else -1.0)
                model.row(row, 0, 0)
            for target in ranks:
                _flow_to(model, half, target, ranks, switches, arcs, used, rate, {r: {share[s, r, h]: 1.0 for h in hubs} for r in ranks}, root if root in ranks else None)
    for h in hubs:
        for s in range(len(servers)):
            if s != h:
                for half in halves:
                    turned = {"up": "down", "down": "up"}[half] if s == rooted else half
                    _flow_across(model, turned, s, h, servers, numbers, home, capacity, share, load)
    for arc, row in load.items():
        model.row(row, high=capacity[arc])
    return model.maximum()


def _flow_to(model, half, target, ranks, switches, arcs, used, rate, roots, end):
    """Every byte gets from its server's root to the target (down), or from there to the root (up)."""
    flow = {arc: model.variable() for arc in arcs}
    for arc in arcs:
        model.row({flow[arc]: 1.0, used[half, arc]: -1.0}, high=0)
    for v in [*ranks, *switches]:
        row = {}
        for arc in arcs:
            a, b = arc if half == "down" else arc[::-1]
            if b == v:
                add(row, flow[arc], 1.0)
            if a == v:
                add(row, flow[arc], -1.0)
        if v in ranks:
            for variable in ({rate: 1.0} if v == end else {}) if end is not None else roots[v]:
                add(row, variable, 1.0)
        if v == target:
            add(row, rate, -1.0)
        model.row(row, 0, 0)


def _flow_across(model, half, s, h, servers, numbers, home, capacity, share, load):
    """Roots of server s to those of hub server h (up), or back (down), past no rank."""
    src, dst = (s, h) if half == "up" else (h, s)
    inside = (numbers[s], numbers[h], -1)
    arcs = [(a, b) for a, b in capacity if home[a] in inside and home[b] in inside and not (isinstance(a, int) and a not in servers[src]) and not (isinstance(b, int) and b not in servers[dst])]
    flow = {arc: model.variable() for arc in arcs}
    for arc in arcs:
        add(load[arc], flow[arc], 1.0)
    for v in {v for arc in arcs for v in arc} | set(servers[s]) | set(servers[h]):
        row = {}
        for a, b in arcs:
            if b == v:
                add(row, flow[a, b], 1.0)
            if a == v:
                add(row, flow[a, b], -1.0)
        if v in servers[src]:
            add(row, share[src, v, h], 1.0)
        elif v in servers[dst]:
            add(row, share[dst, v, h], -1.0)
        model.row(row, 0, 0)


def enumerated_three_phase_rate(topology, collective, root=None):
    """The linear program over every choice of hub, roots, local trees and ways between servers."""
    servers, numbers, home = _servers(topology)
    up, down = collective != "broadcast", collective != "reduce"
    capacity = _links(topology, None)
    model, load = Model(), {arc: {} for arc in capacity}
    trees = [_local_trees(ranks, capacity, home, numbers[s]) for s, ranks in enumerate(servers)]
    rooted = None if root is None else next(s for s, ranks in enumerate(servers) if root in ranks)
    across = {(a, b): list(_ways(capacity, a, b, topology.nranks)) for x in servers for y in servers if x is not y for a in x for b in y}
    for hub, roots in product(range(len(servers)), product(*servers)):
        ends = [root if s == rooted else roots[s] for s in range(len(servers))]
        choices = []
        for s, other in enumerate(roots):
            if s == hub:
                continue
            # What a rooted collective's own server gives or gets crosses against the way of all others.
            if (up and s != rooted) or (down and s == rooted):
                choices.append([[way] for way in across[other, roots[hub]]])
            if (down and s != rooted) or (up and s == rooted):
                choices.append([[way] for way in across[roots[hub], other]])
        for s in range(len(servers)):
            choices += [[_turned(tree) for tree in trees[s][ends[s]]]] * up + [trees[s][ends[s]]] * down
        for chosen in product(*choices):
            column = model.variable(1.0)
            for path in (path for paths in chosen for path in paths):
                for arc in pairwise(path):
                    add(load[arc], column, 1.0)
    for arc, row in load.items():
        model.row(row, high=capacity[arc])
    return model.maximum()


def _local_trees(ranks, capacity, home, server):
    """For every rank, all trees away from it inside the server."""
    here = {arc: c for arc, c in capacity.items() if home[arc[0]] == home[arc[1]] == server}
    number = {rank: i for i, rank in enumerate(ranks)}
    ways = {(number[a], number[b]): list(_ways(here, a, b, 0)) for a in ranks for b in ranks if a != b}
    return {rank: list(_arborescences(len(ranks), number[rank], ways)) for rank in ranks}
