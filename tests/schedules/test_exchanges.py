"""Exchanges between servers: what the verifier accepts and refuses, against unrolling; and their expanded form, run."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from emulator import EmulatedDevices, load_ptxrun
from runtime.oracle import assert_outputs, make_inputs
from schedules import unrolled
from schedules.mutants import spots, step_at, with_step
from servers import boxes

import blinkcoll as bc
from blinkcoll._core import Partition
from blinkcoll.errors import ScheduleError
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import (
    INPUT,
    OUTPUT,
    SCRATCH,
    Channel,
    Connection,
    Operand,
    Program,
    Step,
    expand_exchanges,
    has_exchanges,
    program_text,
    slot,
)
from blinkcoll.schedules.protocols import with_protocol
from blinkcoll.schedules.relabel import lower_in_order

#: Sizes of servers, NICs a server.
MACHINES = {"2+2": ([2, 2], 1), "1+3": ([1, 3], 2), "2+1+3": ([2, 1, 3], [1, 2, 1]), "1+2+2+1": ([1, 2, 2, 1], 1), "1+1": ([1, 1], 1)}


def machine(name):
    sizes, nics = MACHINES[name]
    return boxes(sizes, nics=nics)


def opaque(topology, collective, root=None, **options):
    return bc.plan(topology, collective, root=root, method="three-phase").schedule(nbytes=1 << 20, engine="c10d", **options)


def _cases():
    for name in MACHINES:
        nranks = machine(name).nranks
        yield from [(name, "allreduce", None), *((name, c, r) for c in ("broadcast", "reduce") for r in (0, nranks - 1))]


CASES = list(_cases())
OPERATIONS = [("float32", "sum"), ("float64", "avg"), ("int32", "max"), ("uint8", "sum"), ("float16", "prod")]


@pytest.mark.parametrize(("name", "collective", "root"), CASES)
@pytest.mark.parametrize("slots", [1, 4])
def test_the_proof_and_the_unrolled_oracle_agree_on_both_forms(name, collective, root, slots):
    program = opaque(machine(name), collective, root, slots=slots, max_channels=10)
    assert has_exchanges(program)
    expanded = expand_exchanges(program)
    assert not has_exchanges(expanded) and expand_exchanges(expanded) is expanded
    for form in (program, expanded):
        bc.verify(form, repeated=True)
        unrolled.verify(form)


def test_some_rooted_programs_have_exchanges_one_after_the_other():
    """Data that passes a hub in another server than the root's: to the hub, and from there on."""
    for collective, root in (("broadcast", 0), ("reduce", 5)):
        program = opaque(machine("1+2+2+1"), collective, root)
        assert max(sum(step.op == "exchange" for step in channel.steps) for channels in program.ranks for channel in channels) == 2


@pytest.mark.parametrize(("name", "collective", "root", "dtype", "op"), [(*case, *operation) for i, case in enumerate(CASES) for operation in OPERATIONS[i % 2 :: 2]])
def test_the_expanded_form_computes_what_the_contract_says_bit_for_bit(name, collective, root, dtype, op):
    """The expression that unrolling finds for the opaque program, evaluated by numpy, against threads that run the expanded one."""
    program = opaque(machine(name), collective, root)
    expanded = expand_exchanges(program)
    n = program.nranks
    with ThreadExecutor(expanded, max_count=1021, chunk_bytes=256, dtype=dtype, op=op, timeout_s=30) as executor:
        for count in (0, 1, n - 1, 1021):
            rng = np.random.default_rng([count, n])
            inputs = make_inputs(collective, root, n, count, lambda rank, size, rng=rng: (rng.standard_normal(size) * 9).astype(dtype) if "float" in dtype else rng.integers(0, 100, size).astype(dtype))
            for in_place in (False, True):
                outputs = executor.run(inputs, in_place=in_place)
                check_against_expression(program, inputs, outputs, op, count)


def check_against_expression(program, inputs, outputs, op, count):
    partition = Partition(count, next(i for i in inputs if i is not None).dtype.itemsize, 1, list(program.weights), 256, False)
    memory = values_of(program)
    for share in range(len(program.weights)):
        offset, length = partition.share_range(0, share)
        for rank in range(program.nranks):
            expression = memory.at(("output", rank, (0, share, 0)))
            if expression is None or (program.collective == "reduce" and rank != program.root):
                continue
            want = evaluate(expression, inputs, slice(offset, offset + length), op, program.nranks)
            got = outputs[rank][offset : offset + length]
            assert got.dtype == want.dtype and np.array_equal(got.view(np.uint8), want.view(np.uint8)), f"rank {rank}, share {share}, {op}: {got[:4]} for {want[:4]}"


def values_of(program):
    """What every place holds after one iteration."""
    tracks = unrolled._unroll(program, [1] * len(program.weights))
    unrolled._connect(program, tracks)
    memory = unrolled._Memory(program, False)
    for event in unrolled._topological(tracks, unrolled._meet(tracks)):
        unrolled._execute(program, event, memory)
    return memory


def evaluate(expression, inputs, part, op, nranks):
    """An expression in numpy, each step's sum rounded once as executors round it."""
    kind, *rest = expression
    if kind == "input":
        return inputs[rest[0]][part]
    if kind == "prescaled":
        return evaluate(rest[0], inputs, part, op, nranks)
    if kind == "postscaled":
        inner = evaluate(rest[0], inputs, part, op, nranks)
        return (inner / inner.dtype.type(nranks)).astype(inner.dtype) if op == "avg" else inner
    terms = [evaluate(e, inputs, part, op, nranks) for e in rest]
    wide = np.float32 if terms[0].dtype == np.float16 else terms[0].dtype
    function = {"sum": np.add, "avg": np.add, "max": np.maximum, "prod": np.multiply}[op]
    total = terms[0].astype(wide)
    with np.errstate(over="ignore"):
        for term in terms[1:]:
            total = function(total, term.astype(wide))
        return total.astype(terms[0].dtype)


@pytest.mark.parametrize(("collective", "root"), [("allreduce", None), ("broadcast", 0), ("reduce", 3)])
@pytest.mark.parametrize("mode", ["weak", "race"])
def test_the_expanded_form_runs_in_the_emulator(collective, root, mode):
    load_ptxrun()
    program = bc.plan(machine("2+1+3"), collective, root=root, method="three-phase").schedule(nbytes=1 << 10, max_channels=10)
    inputs = make_inputs(collective, root, program.nranks, 203, lambda rank, size: np.random.default_rng(rank).integers(-99, 99, size).astype(np.float32))
    with CudaExecutor(program, layer=EmulatedDevices(3, mode), arch="sm_70", threads=32, max_count=203, chunk_bytes=128, timeout_s=100) as executor:
        assert_outputs(collective, root, inputs, executor.run(inputs), lambda arrays: np.sum(arrays, axis=0))


def test_the_expanded_form_runs_in_processes():
    program = bc.plan(machine("2+1+3"), "allreduce", method="three-phase").schedule(nbytes=1 << 10, max_channels=10)
    inputs = make_inputs("allreduce", None, program.nranks, 1021, lambda rank, size: np.random.default_rng(rank).integers(-99, 99, size).astype(np.int64))
    with ProcessExecutor(program, max_count=1021, chunk_bytes=256, dtype=np.int64, timeout_s=60) as executor:
        assert_outputs("allreduce", None, inputs, executor.run(inputs), lambda arrays: np.sum(arrays, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_fragments_of_several_dgx1s_run(seed):
    random = Random(seed)
    servers = random.choice([2, 3, 4])
    gpus = [8 * s + g for s in range(servers) for g in sorted(random.sample(range(8), random.randint(1, 8)))]
    topology = bc.load_topology(f"dgx1-v100*{servers}@{random.choice(['1', '5', '12.5'])}").subset(gpus)
    collective = random.choice(["allreduce", "broadcast", "reduce"])
    root = None if collective == "allreduce" else random.randrange(topology.nranks)
    local = random.choice(["fastest", "all"])
    plan = bc.plan(topology, collective, root=root, method="three-phase", local=local)
    plan.check()
    try:
        program = plan.schedule(nbytes=1 << 20, max_channels=256)
    except bc.ScheduleError as refused:
        # Peers' stores take NVLink where there is one, not the PCIe switch that a plan over all links counts beside it.
        assert local == "all" and "lies beside the NVLink that peer access takes" in str(refused)
        return
    with ThreadExecutor(program, max_count=3001, chunk_bytes=256, timeout_s=60) as executor:
        for count in (0, 1, 3001):
            inputs = make_inputs(collective, root, topology.nranks, count, lambda rank, size: np.random.default_rng(rank).integers(-99, 99, size).astype(np.float32))
            assert_outputs(collective, root, inputs, executor.run(inputs, in_place=bool(seed % 2)), lambda arrays: np.sum(arrays, axis=0), f"seed {seed}, count {count}")


@pytest.mark.parametrize("gpus", [(0, 1, 4, 8, 9, 10, 11, 12), (3, 8, 9), (0, 1, 2, 3, 4, 5, 6, 7, 15)])
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "reduce"])
def test_unequal_servers_of_dgx1s_run(gpus, collective):
    topology = bc.load_topology("dgx1-v100*2@12.5").subset(list(gpus))
    root = None if collective == "allreduce" else 1
    program = bc.plan(topology, collective, root=root, method="three-phase").schedule(nbytes=1 << 20)
    with ThreadExecutor(program, max_count=5003, chunk_bytes=1024, timeout_s=30) as executor:
        for count in (0, 1, 7, 5003):
            inputs = make_inputs(collective, root, topology.nranks, count, lambda rank, size: np.random.default_rng(rank).integers(-99, 99, size).astype(np.float32))
            for in_place in (False, True):
                assert_outputs(collective, root, inputs, executor.run(inputs, in_place=in_place), lambda arrays: np.sum(arrays, axis=0), f"count {count}")


def test_channels_stay_within_the_budget_in_both_forms():
    for servers, collective, root in ((2, "allreduce", None), (2, "broadcast", 3), (2, "reduce", 3), (3, "broadcast", 3), (3, "reduce", 3)):
        plan = bc.plan(bc.load_topology(f"dgx1-v100*{servers}@12.5"), collective, root=root, method="three-phase")
        for budget in (8, 13, 32):
            for engine in (None, "c10d"):
                assert plan.schedule(nbytes=1 << 20, max_channels=budget, engine=engine).nchannels <= budget
        with pytest.raises(ScheduleError, match="do not fit in max_channels"):
            plan.schedule(nbytes=1 << 20, max_channels=3)


def test_opaque_programs_round_trip_and_are_shown_and_have_no_bytes():
    program = opaque(machine("2+1+3"), "allreduce")
    assert Program.from_json(program.to_json()) == program and Program.from_json(program.to_json()).hash == program.hash
    text = program_text(program)
    group = " ".join(map(str, next(step.group for channel in program.ranks[0] for step in channel.steps if step.group)))
    assert f"exchange among ranks {group} over" in text and "c10d" in text
    with pytest.raises(ScheduleError, match=r"rank \d, channel \d, step \d: an exchange is opaque.*expand_exchanges"):
        bc.simulate(program, nbytes=1 << 20)
    with pytest.raises(ScheduleError, match="opaque"):
        ThreadExecutor(program, max_count=8)
    with pytest.raises(ScheduleError, match="engine='tcp'"):
        bc.plan(machine("2+2"), "allreduce", method="three-phase").schedule(nbytes=1, engine="tcp")


def test_renamed_ranks_rename_groups():
    program, order = opaque(machine("2+2"), "allreduce"), [2, 0, 3, 1]

    def exchanges(channels):
        return [replace(step, wait=(), signal=(), over=(), srcs=(INPUT,), dsts=(OUTPUT,)) for ch in channels for step in ch.steps if step.op == "exchange"]

    bare = tuple(tuple(Channel((step,)) for step in exchanges(channels)) for channels in program.ranks)
    turned = lower_in_order(program.topology, order, lambda topology: replace(program, topology=topology, connections=(), ranks=bare))
    for rank, place in enumerate(order):
        assert [tuple(order[r] for r in s.group) for s in exchanges(bare[rank])] == [s.group for s in exchanges(turned.ranks[place])]


# -- what is refused ---------------------------------------------------------------------------------------------------


def exchange(share=0, group=(0, 1), srcs=(INPUT,), dsts=(OUTPUT,), **more):
    return Step("exchange", share, srcs, dsts, group=group, **more)


def by_hand(*ranks, collective="allreduce", root=None, weights=(1,), connections=(), sizes=None):
    topology = boxes(sizes or [1] * len(ranks))
    made = tuple(tuple(Channel(tuple(steps)) for steps in channels) for channels in ranks)
    return Program("by hand", collective, topology, 1, weights, connections, made, root=root, in_place=False)


def accepts(program):
    bc.verify(program)
    unrolled.verify(program)


def refuses(program, message, unrolling=True):
    with pytest.raises(ScheduleError, match=message):
        bc.verify(program)
    if unrolling:
        with pytest.raises(ScheduleError):
            unrolled.verify(program)


def test_an_all_reduce_by_hand_is_accepted():
    accepts(by_hand([[exchange()]], [[exchange()]]))
    accepts(by_hand(*[[[exchange(group=(2, 0, 1))]]] * 3))


def test_groups_that_disagree_are_refused():
    refuses(by_hand([[exchange(group=(0, 1))]], [[exchange(group=(1, 0))]]), r"its group is \{1, 0\}, at rank 0 it is \{0, 1\}: the order")
    refuses(by_hand([[exchange(group=(0, 1, 2))]], [[exchange(group=(0, 1, 2))]], [[exchange(group=(0, 2))]]), "takes no part")
    refuses(by_hand([[exchange(group=(0, 1))]], [[]]), "rank 1 of its group {0, 1} takes no part")
    refuses(by_hand([[exchange(), exchange()]], [[exchange()]]), "1 of its group's exchanges in an iteration, rank 0 has 2")
    refuses(by_hand([[exchange(postscaled=True)]], [[exchange()]]), "scaled in another way")
    refuses(by_hand([[exchange()], [exchange()]], [[exchange(), exchange()]]), "another channel of this rank", unrolling=False)


def test_malformed_groups_are_refused():
    for group, message in (((), "must hold this rank and another"), ((0,), "must hold this rank and another"), ((1, 2), "must hold this rank"), ((0, 0, 1), "lists rank 0 twice"), ((0, 9), "no rank 9")):
        refuses(by_hand([[exchange(group=group)]], [[exchange()]], [[exchange()]]), message, unrolling=False)
    refuses(by_hand([[Step("copy", 0, (INPUT,), (OUTPUT,), group=(0, 1))]], [[exchange()]]), "a group in a step that is no exchange", unrolling=False)
    refuses(by_hand([[exchange(srcs=(INPUT, INPUT))]], [[exchange()]]), "an? exchange of 2 sources", unrolling=False)
    refuses(by_hand([[exchange(srcs=(), dsts=())]], [[exchange()]]), "exchange of 0 sources to 0 destinations", unrolling=False)
    refuses(by_hand([[exchange(srcs=(Operand("input", rank=1),))]], [[exchange()]]), "each member's operands are its own", unrolling=False)


def test_forms_that_no_engine_has_are_refused():
    give, get = {"srcs": (INPUT,)}, {"srcs": ()}
    refuses(by_hand([[exchange(**get)]], [[exchange(**give)]]), "no all-reduce, no reduce to its first member and no broadcast")
    three = (0, 1, 2)
    refuses(by_hand([[exchange(group=three)]], [[exchange(group=three)]], [[exchange(group=three, dsts=())]]), "3 give and 2 get")
    refuses(by_hand([[exchange(dsts=())]], [[exchange()]], collective="broadcast", root=0), "broadcast has no input of rank 1", unrolling=False)


def test_a_sum_in_a_broadcast_is_refused():
    copy = Step("copy", 0, (INPUT,), (OUTPUT,))
    zero = [exchange(srcs=(OUTPUT,), dsts=(SCRATCH,))]
    refuses(by_hand([[copy, *zero]], [[exchange(srcs=(SCRATCH,), dsts=(OUTPUT,))]], collective="broadcast", root=0), "a sum in a collective that does not reduce")
    accepts(by_hand([[copy, exchange(srcs=(OUTPUT,), dsts=())]], [[exchange(srcs=())]], collective="broadcast", root=0))


def test_two_exchanges_in_opposite_orders_deadlock():
    """Ranks 0 and 1 meet in both groups, and each waits for the other in another."""
    first, second, third = exchange(group=(0, 1, 2), dsts=(SCRATCH,)), exchange(group=(0, 1)), exchange(group=(0, 1, 2))
    refuses(by_hand([[first, second]], [[second, first]], [[third]]), "deadlock: rank [01], channel 0, step [01].*waits for rank")
    with pytest.raises(ScheduleError, match="holds input of rank 0"):
        bc.verify(by_hand([[first, second]], [[first, second]], [[third]]))  # in one order they meet, and sum too little


def test_an_exchange_and_a_connection_in_opposite_orders_deadlock():
    """Rank 0 meets, then sends; rank 1 takes, then meets."""
    send = Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,))
    take = Step("copy", 0, (slot(0),), (SCRATCH,), wait=(0,), signal=(0,))
    way = (Connection(0, 1, (0, 1)),)
    refuses(by_hand([[exchange(), send]], [[take, exchange()]], connections=way, sizes=[2]), "deadlock")
    accepts(by_hand([[send, exchange()]], [[take, exchange()]], connections=way, sizes=[2]))


def test_an_exchange_and_a_connection_in_lines_in_opposite_orders_deadlock():
    """An arrival in lines orders no memory, and is waited for all the same."""
    send = Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,))
    take = Step("copy", 0, (slot(0),), (SCRATCH,), wait=(0,), signal=(0,))
    way = (Connection(0, 1, (0, 1), protocol="LL"),)
    refuses(by_hand([[exchange(), send]], [[take, exchange()]], connections=way, sizes=[2]), r"deadlock: rank 0, channel 0, step \d.* waits for rank 1")
    accepts(by_hand([[send, exchange()]], [[take, exchange()]], connections=way, sizes=[2]))


def test_an_exchange_takes_and_fills_no_lines():
    """An engine moves whole chunks: it can neither poll the flags between the data nor write them."""
    send = Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,))
    added = Step("reduce", 0, (INPUT, slot(0)), (SCRATCH,), wait=(0,), signal=(0,))
    sends = exchange(srcs=(SCRATCH,), group=(0, 2))
    for protocol in ("simple", "LL", "LL128"):
        way = (Connection(1, 0, (1, 0), protocol=protocol), Connection(0, 1, (0, 1)))
        back = Step("copy", 0, (slot(1),), (OUTPUT,), wait=(1,), signal=(1,))
        hub = replace(sends, dsts=(OUTPUT, slot(1)), wait=(1,), signal=(1,))
        accepts(by_hand([[added, hub]], [[send], [back]], [[exchange(group=(0, 2))]], connections=way, sizes=[2, 1]))
        taken = exchange(srcs=(slot(0),), dsts=(SCRATCH,), group=(0, 2), wait=(0,), signal=(0,))
        filled = replace(way[1], protocol=protocol)
        for ranks, ways in (([[[taken]], [[send]], [[exchange(group=(0, 2))]]], way[:1]), ([[[added, hub]], [[send], [back]], [[exchange(group=(0, 2))]]], (way[0], filled))):
            if protocol == "simple":
                continue
            refuses(by_hand(*ranks, connections=ways, sizes=[2, 1]), r"rank 0, channel 0, step \d: c\d is in lines, and an exchange moves whole chunks", unrolling=False)


def test_connections_at_exchanges_stay_simple():
    for name, collective, root in CASES:
        lines = with_protocol(opaque(machine(name), collective, root), "LL")
        at_exchanges = {c for channels in lines.ranks for channel in channels for step in channel.steps if step.op == "exchange" for c in step.wait}
        assert {lines.connections[c].protocol for c in at_exchanges} <= {"simple"}
        bc.verify(replace(lines, in_place=False))


def test_what_only_some_engines_hold_back_is_not_relied_on():
    """Rank 0 writes rank 1's scratch after an exchange that it entered after rank 1 had written there, or had it?"""
    way = (Connection(0, 1, (0, 1)),)
    tell, hear = Step("nop", 0, wait=(0,), signal=(0,)), Step("nop", 0, wait=(0,), signal=(0,))
    write = Step("copy", 0, (OUTPUT,), (Operand("scratch", rank=1),))
    own = Step("copy", 0, (INPUT,), (SCRATCH,))
    # All give and all get: what rank 1 did before, rank 0 knows of.
    accepts(by_hand([[exchange(), write, tell]], [[own, exchange(), hear]], connections=way, sizes=[2]))
    # Rank 0 gives and may go on before rank 1 has come.
    total = Step("reduce", 0, (INPUT, Operand("input", rank=1)), (OUTPUT,))
    alone = by_hand([[total, exchange(srcs=(OUTPUT,), dsts=()), write, tell]], [[own, exchange(srcs=()), hear]], connections=way, sizes=[2])
    refuses(alone, "nothing orders it after")


def test_ways_that_do_not_fit_are_refused():
    program = opaque(machine("2+1+3"), "allreduce")
    carried = next(i for i, c in enumerate(program.connections) if c.transport == "c10d")
    free = next(i for i, c in enumerate(program.connections) if c.transport == "peer")
    spot = next(s for s in spots(program, lambda step: carried in step.over))
    step = step_at(program, spot)
    for damage, message in (
        (with_step(program, spot, over=step.over[1:]), "not named by one exchange at each end"),
        (with_step(program, spot, over=(*step.over, free)), "joins its group's first member to no other"),
        (with_step(program, spot, group=()), "joins its group's first member to no other"),
        (with_step(program, spot, over=(*step.over, 999)), "joins its group's first member to no other"),
        (with_step(program, next(iter(spots(program, lambda s: s.op != "exchange"))), over=(carried,)), "goes over nothing of an engine's"),
        (with_step(program, spot, wait=(*step.wait, carried), signal=(*step.signal, carried)), "only exchanges go over it"),
    ):
        refuses(damage, message, unrolling=False)
