"""What is considered: plans and classic families, each a small function from a request to programs.

A family yields drafts; where it has nothing for a request it raises, and the reason is kept. To add a family, write such a
function and list it in ``FAMILIES``. Every draft is tried by every protocol that its connections can speak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from ..errors import ScheduleError
from ..packing import Plan, hybrid_candidates, make_plan
from ..schedules import Program, expand_exchanges, lower, lower_nvls
from ..schedules.handshake import begun_before_stores
from ..schedules.protocols import EXECUTABLE
from ..schedules.trees import CHANNEL_GB_S
from ..simulator.baselines import BASELINES
from ..simulator.baselines.nccl import program_across_servers, program_of_choice, search
from ..simulator.baselines.rccl import rccl_rings_program
from ..topology import Topology, group_switches
from .bothways import both_ways
from .oneeach import one_tree_each
from .planned import default_plan
from .rerooted import from_both_ends
from .shallow import shallow_plan

#: Collectives whose trees reduce or broadcast one buffer.
_TREES = ("allreduce", "broadcast", "reduce")
#: Collectives that have programs over switches that copy and add; NCCL's rings have programs for the same.
_SWITCHED = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter")
#: Into how many channels a channel's rate is divided at most, and what the result is called.
_FINER = ((1, ""), (2, " x2"), (4, " x4"))

#: Rings that reach so much of the bound leave nothing to look for in NCCL 2.7's search, which may take as long as all others.
_RINGS_DO = Fraction(95, 100)
#: Ranks up to which classic families are looked at whose lowering takes minutes for a rack.
_MOST_SQUARE = 32
#: Plans of more trees than this have their roots spread already.
_FEW_TREES = 3
#: Seconds that the search for few trees may take. On the layouts there are it comes to its end in 2 s at most (MI250X); were it cut
#: short on a slow machine, that one would choose among other plans.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Request:
    """What is asked for, but for the size: all that a table depends on."""

    topology: Topology
    collective: str
    root: int | None
    max_channels: int


@dataclass(frozen=True, eq=False)
class Draft:
    """A program that could be run: ``plan`` is what it was lowered from, None for the classic families.

    ``protocols``: by which it may be tried, where its maker has fixed them; None for all.
    """

    name: str
    program: Program
    plan: Plan | None = None
    protocols: tuple[str, ...] | None = None


Family = Callable[[Request], Iterator[Draft]]


def exact_trees(request: Request) -> Iterator[Draft]:
    """The plan that meets the bound; and with more channels, which keep a link busy while one of them synchronises."""
    plan = default_plan(request.topology, request.collective, request.root)
    name = "exact " + ("flows" if plan.flows else "trees")
    yield from _by_channels(name, plan, request)
    if request.collective == "allreduce" and len(plan.trees) <= _FEW_TREES:
        yield from _by_channels("two-ended trees", from_both_ends(plan), request)
    if request.collective in ("allgather", "reducescatter") and len(plan.trees) > request.topology.nranks:
        yield from _by_channels("one tree a rank", one_tree_each(plan), request)


def _by_channels(name: str, plan: Plan, request: Request) -> Iterator[Draft]:
    fewest = 0
    for finer, suffix in _FINER:
        program = lower(plan, max_channels=request.max_channels, channel_gb_s=CHANNEL_GB_S / finer)
        if program.nchannels > fewest:
            yield Draft(name + suffix, program, plan)
        fewest = max(fewest, program.nchannels)


def equal_trees(request: Request) -> Iterator[Draft]:
    """Trees of one rate, a little below the bound: channels that share links fairly carry them as planned."""
    if request.collective != "allreduce":
        return
    # Of t trees a rank runs two channels each, one where it is the root: a rank in n, where roots are spread.
    n = request.topology.nranks
    most = request.max_channels * n // (2 * n - 1)
    plan = make_plan(request.topology, request.collective, root=request.root, equal_trees=most)
    yield Draft("equal trees", lower(plan, max_channels=request.max_channels), plan)


def rooted_trees(request: Request) -> Iterator[Draft]:
    """All-reduces over an all-gather's trees, of which every rank is a root of some."""
    n = request.topology.nranks
    if request.collective != "allreduce" or n < 3 or 2 * n - 1 > request.max_channels:  # two channels a tree, one at its root
        return
    reduced, gathered = (default_plan(request.topology, collective) for collective in ("allreduce", "allgather"))
    if len(gathered.trees) > n:
        yield from _by_channels("one rooted tree a rank", both_ways(one_tree_each(gathered), reduced), request)
    yield from _by_channels("rooted trees", both_ways(gathered, reduced), request)


def shallow_trees(request: Request) -> Iterator[Draft]:
    """Trees of fewest hops: one, and for all-reduce one rooted at every rank."""
    if request.collective not in _TREES:
        return
    n = request.topology.nranks
    one = shallow_plan(request.topology, request.collective, request.root, roots=None)
    yield Draft("shallow tree", lower(one, max_channels=request.max_channels), one)
    if request.collective == "allreduce" and 2 * n - 1 <= request.max_channels:
        every = shallow_plan(request.topology, request.collective, None, roots=range(n))
        yield Draft("shallow trees", lower(every, max_channels=request.max_channels), every)


def hybrid_trees(request: Request) -> Iterator[Draft]:
    """PCIe beside NVLink, where that plans for more; less beside the NVLinks for sizes at which PCIe's pipelines end late."""
    for plan in hybrid_candidates(request.topology, request.collective, request.root, request.max_channels, _PATIENCE_S):
        try:
            program = lower(plan, max_channels=request.max_channels)
        except ScheduleError:  # one of several that needs more channels than there are: the others may not
            continue
        yield Draft("hybrid trees", program, plan)


def switches_that_add(request: Request) -> Iterator[Draft]:
    """NVLink SHARP, where the switches copy and add: held to a bound of its own, and by the simple protocol only."""
    if request.collective not in _SWITCHED or not group_switches(request.topology, adds=True, copies=True):
        return
    plan = make_plan(request.topology, request.collective, root=request.root, method="nvls")
    yield Draft("nvls", lower_nvls(plan, max_channels=request.max_channels), plan, protocols=("simple",))


def three_phases(request: Request) -> Iterator[Draft]:
    """Several servers: reduce inside, exchange between roots, broadcast inside; exchanges as one-hop connections."""
    if request.collective not in _TREES or len({device.server for device in request.topology.devices}) < 2:
        return
    plan = make_plan(request.topology, request.collective, root=request.root, method="three-phase")
    yield Draft("three-phase", expand_exchanges(lower(plan, max_channels=request.max_channels)), plan)


def searched_rings(request: Request) -> Iterator[Draft]:
    """Rings (cut open at a root: chains) over the Hamiltonian cycles that NCCL's searches find."""
    if request.collective not in BASELINES["nccl"].collectives:
        return
    known = set()
    topology = request.topology.without_relays()
    direct = search(topology, "2.30").path_type == "NVL"
    for version in ("2.30", "2.4") if direct else ("2.30", "2.7", "2.4"):  # where 2.30 crosses a GPU, 2.7 took other ways
        found = search(topology, version)
        run = [found.rings[c % found.common_channels] for c in range(found.nchannels_run)]
        turned = tuple(sorted((*ring[ring.index(0) :], *ring[: ring.index(0)]) for ring in run))
        if turned in known:
            continue
        known.add(turned)
        yield from _of_search(request, version, "ring", found.nchannels_run)


def rccl_rings(request: Request) -> Iterator[Draft]:
    """RCCL's rings over xGMI."""
    topology = request.topology.without_relays()
    if request.collective not in _SWITCHED or not topology.devices[0].arch.startswith("gfx"):
        return
    for protocol in ("simple", "LL"):
        program = rccl_rings_program(topology, request.collective, request.root, protocol)
        if request.collective == "allgather":
            program = begun_before_stores(program)
        yield Draft("ring", replace(program, algorithm="ring"), protocols=(protocol,))


def searched_chains(request: Request) -> Iterator[Draft]:
    """All-reduces up and down the chains that NCCL calls trees on one server."""
    if request.collective != "allreduce":
        return
    topology = request.topology.without_relays()
    found = search(topology, "2.30")
    yield from _of_search(request, "2.30", "tree", found.nchannels_run)
    n = request.topology.nranks
    bound = default_plan(topology, "allreduce").bound
    if found.ring_busbw * n / (2 * (n - 1)) < _RINGS_DO * bound:  # where rings use most links no chain will do better
        yield from _of_search(request, "2.7", "tree", search(topology, "2.7").nchannels_run)


def across_servers(request: Request) -> Iterator[Draft]:
    """NCCL's rings through all servers, and for all-reduces its double binary trees of chains, over their NICs."""
    topology = request.topology.without_relays()
    if len({device.server for device in topology.devices}) < 2 or request.collective not in _SWITCHED:
        return
    for algorithm, name in (("ring", "ring across servers"), ("tree", "trees across servers")):
        if algorithm == "tree" and request.collective != "allreduce":
            continue
        program = program_across_servers(topology, request.collective, request.root, algorithm)
        yield Draft(name, replace(program, algorithm=name))


def _of_search(request: Request, version: str, algorithm: str, nchannels: int) -> Iterator[Draft]:
    """Every protocol has a program of its own: where rings store what is complete, and how hops cross a GPU, differs."""
    name = "ring" if algorithm == "ring" else "chains"
    for protocol in EXECUTABLE:
        program = program_of_choice(request.topology.without_relays(), request.collective, request.root, version, algorithm, protocol, nchannels)
        if request.collective == "allgather":  # an all-reduce's hops tell enough by themselves
            program = begun_before_stores(program)
        yield Draft(name, replace(program, algorithm=name), protocols=(protocol,))


def _registered(name: str, title: str, nbytes: int = 1 << 30, most_ranks: int | None = None) -> Family:
    """A classic family as it is registered among the baselines, as it stands for ``nbytes``, for up to ``most_ranks``."""

    def family(request: Request) -> Iterator[Draft]:
        if most_ranks is not None and request.topology.nranks > most_ranks:
            raise ScheduleError(f"not looked at beyond {most_ranks} ranks: its steps are the square of their number")
        if request.collective in BASELINES[name].collectives:
            program = BASELINES[name].make(request.topology.without_relays(), request.collective, request.root, nbytes)
            yield Draft(title, replace(program, algorithm=title))

    family.__name__ = title
    family.__doc__ = f"{title}: {BASELINES[name].title}."
    return family


#: In the order of preference among equals.
FAMILIES: tuple[Family, ...] = (
    exact_trees,
    equal_trees,
    rooted_trees,
    shallow_trees,
    hybrid_trees,
    switches_that_add,
    three_phases,
    searched_rings,
    rccl_rings,
    searched_chains,
    across_servers,
    _registered("direct", "one-shot", 8),
    _registered("direct", "two-shot"),
    _registered("halving-doubling", "halving-doubling", most_ranks=_MOST_SQUARE),
    _registered("double-binary-tree", "double binary trees"),
    _registered("baidu-ring", "rank-order ring"),
    _registered("gloo-ring", "rank-order ring, two segments"),
    _registered("horovod", "hierarchical rings", most_ranks=_MOST_SQUARE),
    _registered("forestcoll", "rooted forests"),
)
