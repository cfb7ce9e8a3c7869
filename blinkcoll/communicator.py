"""Communicators: collectives of numpy arrays, torch tensors and other buffers between the processes of one host.

Rank 0 plans and hands the programs out; every rank verifies them. Calls have to be made in the same order on all ranks of
a communicator, as everywhere. They work in place unless ``out`` is given.
"""

from __future__ import annotations

import atexit
import os
import struct
import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _core
from .errors import BlinkcollError, ExecutionError
from .work import Lane

if TYPE_CHECKING:
    from .runtime.bootstrap import Group
    from .runtime.hostgroup import HostGroup
    from .runtime.shards import Shards
    from .runtime.store import Store
    from .schedules.unequal import Counts
    from .topology import Topology

__all__ = ["Communicator"]

#: Operations by name: the number that calls take.
_OPS = {"sum": 0, "prod": 1, "min": 2, "max": 3, "band": 4, "bor": 5, "bxor": 6, "avg": 0, "premul_sum": 8}
#: How long the end of an interpreter waits for a call that was told to end.
_EXIT_S = 5.0
_DONE, _OUT_OF_TIME, _NOT_PLAIN, _INTERRUPTED = 0, 1, 2, 3
#: Collectives, by the number that quick calls give them.
_KEYS = {name: i for i, name in enumerate(("allreduce", "reduce", "broadcast", "allgather", "reducescatter", "gather", "scatter", "alltoall", "barrier"))}
_NOTHING = bytearray(1)
#: A split's record: colour, key, and the leader's address as text.
_SPLIT = struct.Struct("<qq240s")


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _quick(collective: str, *parameters: str) -> Callable[[_Method], _Method]:
    """A method whose plain calls run no Python: its arguments of these names, and what they are, are looked at in C++.

    Where anything is out of the ordinary (an argument that is not named here, no table for the call yet, another call under
    way, a wait that ran out), the method itself is called.
    """
    return lambda method: _core.quick_method(_KEYS[collective], list(parameters), method)


class Communicator:
    """The ranks of one host, each a process (or a thread) with an object of its own.

    Parameters
    ----------
    rank, world_size
        This rank, 0..world_size - 1, and how many there are.
    store
        Where ranks find each other: a torch store, or :class:`blinkcoll.FileStore`. Communicators on one store are told
        apart by ``name``, or else by the order in which each rank makes them.
    topology
        What to plan for: a :class:`~blinkcoll.Topology` of ``world_size`` ranks. Left out: the machine that the environment
        variable ``BLINKCOLL_TOPO`` names, else this host's memory, or memories: those of the NUMA nodes that ranks are on.
        Rank 0's counts.
    timeout_s
        How long to wait for the others: to come, and in each call without any progress.

    Raises
    ------
    WaitTimeout
        Where not all ranks came in time; names who is missing.
    ExecutionError
        Where rank 0 refused this rank, or there is no shared memory to be had.

    Notes
    -----
    The methods take numpy arrays and anything with the buffer protocol or DLPack (torch CPU tensors, bfloat16 included).
    Arrays that are not contiguous are copied. A communicator that failed once is of no further use but for
    :meth:`shrink`. Memory: see ``docs/host.md``; what can go wrong: ``docs/failures.md``.

    Examples
    --------
    >>> import numpy as np, blinkcoll as bc
    >>> comm = bc.Communicator(0, 1, store=None)
    >>> comm.all_reduce(np.arange(3.0))
    array([0., 1., 2.])
    """

    def __init__(
        self, rank: int, world_size: int, store: Store | None, *, name: str | None = None, topology: Topology | None = None, timeout_s: float = 300.0
    ) -> None:
        from .runtime.bootstrap import meet

        if not (0 <= rank < world_size):
            raise ExecutionError(f"rank {rank} of {world_size}: expected 0 <= rank < world_size")
        if store is None and world_size > 1:
            raise ExecutionError(f"rank {rank} of {world_size}: a store is needed for ranks to find each other")
        key = f"blinkcoll/{_number_on(store) if name is None else name}"
        group = meet(rank, world_size, store, key, timeout_s)
        self._start(group, topology, timeout_s, key)

    def _start(self, group: Group, topology: Topology | None, timeout_s: float, name: str) -> None:
        from .runtime.hostgroup import HostGroup
        from .runtime.machine import agree_on_topology

        self.rank, self.world_size, self.timeout_s, self.name = group.rank, group.world_size, timeout_s, name
        self._timeout_ns = int(timeout_s * 1e9)
        self._group, group.patience_s = group, timeout_s
        self._lane = Lane(f"blinkcoll-rank{self.rank}")
        self._lanes: dict[tuple[int, int], Lane] = {}  # of sends and receives, by source and destination
        self._failed: BaseException | None = None
        try:
            topology = agree_on_topology(group, topology, timeout_s)
            self._host = HostGroup(group, topology, timeout_s, name)
        except BaseException as error:
            group.give_up(error)
            raise
        self._calls: _core.HostCalls | None = self._host.calls  # quick methods look here; None once no call is made any more
        self._calls.set_timeout(self._timeout_ns)
        self._run = self._calls.run
        self._lane.watch(self._host.calls.set_open)
        self._tables: dict[tuple[str, int | None], int] = {}
        self._shrunk = 0
        self._life = threading.RLock()  # whoever has it finds the memory mapped, where _group is not None
        self._forget = weakref.finalize(self, _give_back, self._host, group, self._lane, self._lanes)
        self._forget.atexit = False  # _at_exit() does more
        _open.add(self)

    # -- collectives ------------------------------------------------------------------------------------------------

    @_quick("allreduce", "array", "op", "out")
    def all_reduce(self, array: Any, op: str = "sum", out: Any = None, *, factor: float = 1.0, async_op: bool = False) -> Any:
        """Every rank's ``array`` combined, on every rank: the same bits everywhere.

        Parameters
        ----------
        array
            Any shape; equal sizes and dtypes on all ranks.
        op
            sum, prod, min, max; band, bor, bxor (integers, bool); avg; premul_sum (each rank's array times its ``factor``).
        out
            Where the result goes; ``array`` itself where None.
        async_op
            Return a :class:`~blinkcoll.Work` at once.

        Returns
        -------
        The array with the result, or a Work.
        """
        return self._call("allreduce", None, array, out, op, factor, async_op)

    @_quick("reduce", "array", "root", "op", "out")
    def reduce(self, array: Any, root: int, op: str = "sum", out: Any = None, *, factor: float = 1.0, async_op: bool = False) -> Any:
        """Every rank's ``array`` combined at rank ``root``; elsewhere ``array`` stays as it is and ``out`` is not looked at."""
        out = out if self.rank == root else None
        return self._call("reduce", root, array, out, op, factor, async_op)

    @_quick("broadcast", "array", "root")
    def broadcast(self, array: Any, root: int, *, async_op: bool = False) -> Any:
        """The root's ``array`` into every rank's."""
        return self._call("broadcast", root, array, None, "sum", 1.0, async_op)

    @_quick("allgather", "array", "out")
    def all_gather(self, array: Any, out: Any = None, *, counts: Sequence[int] | None = None, async_op: bool = False) -> Any:
        """All ranks' arrays, in the order of ranks, on every rank.

        With ``out`` (``world_size`` times as many elements) ``array`` is this rank's part; in place ``array`` is the
        whole, in which each rank has filled its part. ``counts``, the same on all ranks: elements of each rank's part, where
        parts are not of one size.
        """
        if counts is not None:
            return self._call_unevenly("allgather", None, array, out, "sum", 1.0, counts, async_op)
        return self._call("allgather", None, array, out, "sum", 1.0, async_op)

    @_quick("reducescatter", "array", "op", "out")
    def reduce_scatter(
        self, array: Any, op: str = "sum", out: Any = None, *, factor: float = 1.0, counts: Sequence[int] | None = None, async_op: bool = False
    ) -> Any:
        """All ranks' arrays combined, part r of the result at rank r.

        With ``out`` the part goes there; in place it is part ``rank`` of ``array``, the rest of which is undefined. ``counts`` as
        for :meth:`all_gather`.
        """
        if counts is not None:
            return self._call_unevenly("reducescatter", None, array, out, op, factor, counts, async_op)
        return self._call("reducescatter", None, array, out, op, factor, async_op)

    @_quick("gather", "array", "root", "out")
    def gather(self, array: Any, root: int, out: Any = None, *, counts: Sequence[int] | None = None, async_op: bool = False) -> Any:
        """All ranks' arrays at the root: into ``out`` there; in place the root's ``array`` is the whole. ``counts`` as for :meth:`all_gather`."""
        out = out if self.rank == root else None
        if counts is not None:
            return self._call_unevenly("gather", root, array, out, "sum", 1.0, counts, async_op)
        return self._call("gather", root, array, out, "sum", 1.0, async_op)

    @_quick("scatter", "array", "root", "out")
    def scatter(self, array: Any, root: int, out: Any = None, *, counts: Sequence[int] | None = None, async_op: bool = False) -> Any:
        """Part r of the root's array to rank r: into ``out`` where given; else into ``array`` (at the root: part ``root`` of it).

        ``counts`` as for :meth:`all_gather`.
        """
        if self.rank != root and out is not None:
            array, out = out, None
        if counts is not None:
            return self._call_unevenly("scatter", root, array, out, "sum", 1.0, counts, async_op)
        return self._call("scatter", root, array, out, "sum", 1.0, async_op)

    @_quick("alltoall", "array", "out")
    def all_to_all(
        self, array: Any, out: Any = None, *, send_counts: Sequence[int] | None = None, recv_counts: Sequence[int] | None = None, async_op: bool = False
    ) -> Any:
        """Part r of every rank's array to rank r, which gets them in the order of ranks.

        Where parts are not of one size, on all ranks: ``send_counts``, elements of this rank's part for each rank, ``out``, as
        large as what comes, and perhaps ``recv_counts``, what this rank wants from each, to be compared with what is sent.
        """
        if send_counts is not None:
            return self._call_unevenly("alltoallv", None, array, out, "sum", 1.0, send_counts, async_op, recv_counts)
        if recv_counts is not None:
            raise ExecutionError("all_to_all: recv_counts without send_counts")
        return self._call("alltoall", None, array, out, "sum", 1.0, async_op)

    @_quick("barrier")
    def barrier(self, *, async_op: bool = False) -> Any:
        """Return once every rank has called it."""
        called = self._call("barrier", None, _NOTHING, None, "sum", 1.0, async_op)
        return called if async_op else None

    # -- two ranks --------------------------------------------------------------------------------------------------

    def send(self, array: Any, dst: int, *, async_op: bool = False) -> Any:
        """``array`` to rank ``dst``, which calls :meth:`recv`. Calls of one pair and direction are taken in order."""
        return self._pair_call(self.rank, dst, array, async_op)

    def recv(self, array: Any, src: int, *, async_op: bool = False) -> Any:
        """What rank ``src`` sends, into ``array``; as many elements of the same size as are sent."""
        return self._pair_call(src, self.rank, array, async_op)

    def _pair_call(self, src: int, dst: int, array: Any, async_op: bool) -> Any:
        self._check_usable()
        peer = dst if src == self.rank else src
        if not 0 <= peer < self.world_size or peer == self.rank:
            raise ExecutionError(f"rank {self.rank} cannot exchange with rank {peer} among {self.world_size}")
        lane = self._lanes.setdefault((src, dst), Lane(f"blinkcoll-{src}-{dst}"))
        return lane.do(lambda: self._exchange(src, dst, array), async_op)

    def _exchange(self, src: int, dst: int, array: Any) -> Any:
        from .runtime.arrays import run_other

        calls, table = self._host.pairs.end(src, dst)
        try:
            ended = calls.run(table, array, None, 0, 1, 1.0, self._timeout_ns) if src != self.rank else _NOT_PLAIN
            if ended == _NOT_PLAIN:
                ended = run_other(calls, table, "sendrecv", array, None, 0, 1, 1.0, self._timeout_ns)
        except (ValueError, ExecutionError):
            raise
        except BaseException as error:
            self._broke_off(error)
            raise
        if ended == _OUT_OF_TIME:
            self._fail(lambda host: host.pair_failure(src, dst, self.timeout_s))
        return array

    # -- life -------------------------------------------------------------------------------------------------------

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """A communicator of the ranks with the same ``color``, in the order of their keys (then ranks); None for None.

        All ranks call it.
        """
        import numpy as np

        from .runtime.bootstrap import Address, meet_at

        address = Address()
        try:
            table = np.zeros(self.world_size * _SPLIT.size, dtype=np.uint8)
            mine = slice(self.rank * _SPLIT.size, (self.rank + 1) * _SPLIT.size)
            table[mine] = np.frombuffer(_SPLIT.pack(-1 if color is None else color, key, address.text.encode()), dtype=np.uint8)
            if color is not None and color < 0:
                raise ExecutionError(f"color is {color}, expected None or a number from 0 on")
            self.all_gather(table)
            records = list(_SPLIT.iter_unpack(table.tobytes()))
            if color is None:
                return None
            members = sorted((k, r) for r, (c, k, _) in enumerate(records) if c == color)
            ranks = [r for _, r in members]
            leader = records[ranks[0]][2].rstrip(b"\0").decode()
            group = meet_at(address, leader, ranks.index(self.rank), len(ranks), self.timeout_s)
        finally:
            address.close()
        made = object.__new__(Communicator)
        made._start(group, self._part(ranks), self.timeout_s, f"{self.name}/color{color}")
        return made

    def abort(self, reason: str = "") -> None:
        """End the calls that are under way, here and on all other ranks, with :class:`~blinkcoll.Aborted`; from any thread.

        A call that a rank has already ended is not taken back, and others may still end it. All later calls fail.
        """
        said = f": {reason}" if reason else ""
        self._if_open(lambda host: host.fail(f"rank {self.rank} called abort(){said}"))

    def shrink(self, timeout_s: float | None = None) -> Communicator:
        """A communicator of the ranks that are left, after others failed (or this one's calls did).

        All ranks that live and have not closed this communicator call it; ranks are numbered anew, in their order, and
        collectives are planned anew for the devices that are left. Calls under way end with an error first. This
        communicator is of no further use, but has to be closed as well.

        Parameters
        ----------
        timeout_s
            How long to wait for the others; as long as this communicator's calls wait where None.

        Raises
        ------
        WaitTimeout
            Where not all ranks that live came; names who did not.
        RankFailed
            Where one more ended meanwhile: call it again.
        """
        from .runtime.shrink import regroup

        self._check_open()
        self._check_outside("shrink()")
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        self.abort("shrink()")
        self._host.settle()
        group, members = regroup(self._host.boards, timeout_s)
        self._shrunk += 1
        made = object.__new__(Communicator)
        made._start(group, self._part(members), timeout_s, f"{self.name}/shrunk{self._shrunk}")
        made.timeout_s, made._timeout_ns = self.timeout_s, self._timeout_ns
        made._host.calls.set_timeout(self._timeout_ns)
        return made

    def _part(self, ranks: list[int]) -> Topology:
        topology = self._host.topology
        return topology.subset([topology.devices[r].name for r in ranks])

    def close(self) -> None:
        """Wait for calls in the background, end those of other threads, then give everything back. Again: nothing."""
        if self._group is None:
            return
        self._check_outside("close()")
        for lane in (self._lane, *self._lanes.values()):
            lane.close()
        self._withdraw(_closed)
        _open.discard(self)
        self._forget()

    def _withdraw(self, because: Callable[..., int]) -> None:
        """No call is made any more."""
        with self._life:
            self._run, self._calls = because, None
            self._group = None  # type: ignore[assignment]

    def _forked(self) -> None:
        """In a child of fork: nothing here is the child's. What is shared stays as it is; descriptors are copies, and go."""
        if self._group is not None:
            group, self._life = self._group, threading.RLock()  # another thread may have held it
            self._withdraw(_forked)
            self._lane, self._lanes = Lane(""), {}
            self._forget.detach()
            self._host.neighbours.segment.close_file()
            group.close()

    def _exit(self) -> None:
        """The interpreter ends: calls in the background end first, since their threads could not go on; others are told."""
        if self._group is None:
            return
        lanes = (self._lane, *self._lanes.values())
        if self._host.busy or not all(lane.idle for lane in lanes):
            self._host.fail(f"rank {self.rank}'s interpreter ended")
        self._withdraw(_closed)
        self._host.stop()
        for lane in lanes:  # what waits there fails at once
            lane.close(_EXIT_S)
        self._host.neighbours.part()
        self._forget.detach()  # the memory goes with the process

    def __enter__(self) -> Communicator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- calls ------------------------------------------------------------------------------------------------------

    def _call(self, name: str, root: int | None, array: Any, out: Any, op: str, factor: float, async_op: bool) -> Any:
        """Run a call, here where nothing is under way, else after what is."""
        ended = _core.take_unsettled(self._calls)  # of this thread's quick call
        if ended != _DONE or (not async_op and self._lane.idle):
            return self._execute(name, root, array, out, op, factor, ended)
        return self._lane.do(lambda: self._execute(name, root, array, out, op, factor), async_op)

    def _call_unevenly(
        self, name: str, root: int | None, array: Any, out: Any, op: str, factor: float, counts: Sequence[int], async_op: bool,
        wanted: Sequence[int] | None = None,
    ) -> Any:  # fmt: skip
        """The same for parts that differ in size: ranks compare these first."""
        from .runtime.unevencalls import agree_on_counts, agree_on_pieces

        def call() -> Any:
            gather = lambda table: self._execute("allgather", None, table, None, "sum", 1.0)  # noqa: E731
            if name != "alltoallv":
                return self._execute(name, root, array, out, op, factor, counts=agree_on_counts(gather, self.rank, self.world_size, name, counts))
            return self._execute(name, root, array, out, op, factor, counts=agree_on_pieces(gather, self.rank, self.world_size, counts, wanted))

        if name == "alltoallv" and out is None:
            raise ExecutionError("all_to_all: what a rank sends and what it gets differ in size: with send_counts, out is needed")
        return self._lane.do(call, async_op)

    def _execute(
        self, name: str, root: int | None, array: Any, out: Any, op: str, factor: float, ended: int = _DONE, counts: Counts | None = None
    ) -> Any:
        """``ended``: how a quick call ended, where it ended badly; this one says so. ``counts``: of parts that differ in size."""
        self._check_outside(name)
        table = self._tables.get((name, root))
        if table is None or self._failed is not None or not isinstance(op, str) or op not in _OPS:
            table = self._prepare(name, root, op)
        divisor = self.world_size if op == "avg" else 1
        result = array if out is None else out
        try:
            if ended == _INTERRUPTED:
                raise _core.take_raised()
            if ended == _DONE:
                if out is None and table in self._host.apart:
                    array, out = self._copy(array), array
                ended = self._run(table, array, out, _OPS[op], divisor, factor, self._timeout_ns) if counts is None else _NOT_PLAIN
            if ended == _NOT_PLAIN:
                shards = None if counts is None else self._host.shards((name, root), counts)
                ended = self._run_other(table, name, array, out, op, divisor, factor, shards)
        except (ValueError, ExecutionError) as error:  # the arguments are refused: nothing has begun
            self._if_open(lambda host: host.calls.cancel())
            raise (error if isinstance(error, ExecutionError) else ExecutionError(f"{name} ({op}): {error}")) from None
        except BaseException as error:
            self._broke_off(error)
            raise
        if ended == _OUT_OF_TIME:
            self._fail(lambda host: host.failure(name, self.timeout_s))
        return result

    def _if_open(self, do: Callable[[HostGroup], Any]) -> Any:
        """None where another thread has closed the communicator meanwhile."""
        with self._life:
            return None if self._group is None else do(self._host)

    def _fail(self, why: Callable[[HostGroup], BlinkcollError]) -> None:
        failure = self._if_open(why)
        if failure is None:
            self._run()
        self._failed = failure
        raise failure

    def _broke_off(self, error: BaseException) -> None:
        """A call ended in the middle, by what a signal's handler raised as a rule: no rank can go on."""
        self._failed = error
        said = f": {error}" if str(error) else ""
        self._if_open(lambda host: host.fail(f"rank {self.rank}: {type(error).__name__}{said}"))

    def _check_open(self) -> None:
        if self._group is None:
            self._run()  # says whether it was closed, or is a parent's

    def _check_outside(self, what: str) -> None:
        if self._host.calls is not None and self._host.calls.inside:
            raise ExecutionError(f"{what} in the middle of another call of this communicator, by a signal's handler: let that call end first (or abort())")

    def _check_usable(self) -> None:
        self._check_open()
        if self._failed is not None:
            kind = type(self._failed) if isinstance(self._failed, BlinkcollError) else ExecutionError
            raise kind(f"this communicator failed in an earlier call and is of no further use: {self._failed}")

    def _prepare(self, name: str, root: int | None, op: str) -> int:
        """What is checked, and set up, before the first call of a kind."""
        self._check_usable()
        if not isinstance(op, str) or op not in _OPS:
            raise ExecutionError(f"operation {op!r} is not known; known: {', '.join(_OPS)}")
        if root is not None and not 0 <= root < self.world_size:
            raise ExecutionError(f"{name}: there is no rank {root} among {self.world_size}")
        try:
            table = self._host.table((name, root))
        except BaseException as error:
            self._broke_off(error)
            raise
        self._tables[name, root] = table
        if name in _KEYS:
            self._host.calls.set_quick(_KEYS[name], root or 0, table, table in self._host.apart)
        return table

    def _copy(self, array: Any) -> Any:
        from .runtime.arrays import copy_of

        return copy_of(array)

    def _run_other(self, table: int, name: str, array: Any, out: Any, op: str, divisor: int, factor: float, shards: Shards | None) -> int:
        """A call on what is no plain contiguous buffer (DLPack, bfloat16, dtypes that are only copied, views with gaps), or has ``shards``."""
        from .runtime.arrays import run_other

        return run_other(self._host.calls, table, name, array, out, _OPS[op], divisor, factor, self._timeout_ns, shards)


def _closed(*_: Any) -> int:
    raise ExecutionError("this communicator was closed")


_FORKED = "this communicator is its parent's: a process that was forked makes its own"


def _forked(*_: Any) -> int:
    raise ExecutionError(_FORKED)


def _give_back(host: HostGroup, group: Group, lane: Lane, lanes: dict[tuple[int, int], Lane]) -> None:
    """What close() does, and what happens to a communicator that nobody has any more."""
    for one in (lane, *lanes.values()):
        one.dismiss()
    host.stop()
    host.close()
    group.close()


#: Communicators that are open in this process.
_open: weakref.WeakSet[Communicator] = weakref.WeakSet()


def _in_child() -> None:
    for communicator in list(_open):
        communicator._forked()
    _open.clear()


def _at_exit() -> None:
    for communicator in list(_open):
        communicator._exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)


_counts: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_counts_lock = threading.Lock()


def _number_on(store: Store | None) -> int:
    """How many communicators this rank has made on the store before."""
    if store is None:
        return 0
    with _counts_lock:
        number = _counts.get(store, 0)
        _counts[store] = number + 1
    return number
