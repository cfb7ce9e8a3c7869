"""Communicators: collectives of numpy arrays, torch tensors and other buffers between the processes of one host.

Rank 0 plans and hands the programs out; every rank verifies them. Calls have to be made in the same order on all ranks of
a communicator, as everywhere. They work in place unless ``out`` is given.
"""

from __future__ import annotations

import os
import queue
import struct
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import ExecutionError, TopologyError, WaitTimeout

if TYPE_CHECKING:
    from .runtime.bootstrap import Group
    from .runtime.store import Store
    from .topology import HostNodes, Topology

__all__ = ["Communicator", "Work"]

#: Operations by name: the number that calls take.
_OPS = {"sum": 0, "prod": 1, "min": 2, "max": 3, "band": 4, "bor": 5, "bxor": 6, "avg": 0, "premul_sum": 8}
_DONE, _OUT_OF_TIME, _NOT_PLAIN, _INTERRUPTED = 0, 1, 2, 3
#: Collectives, by the number that quick calls give them.
_KEYS = {name: i for i, name in enumerate(("allreduce", "reduce", "broadcast", "allgather", "reducescatter", "gather", "scatter", "alltoall", "barrier"))}
_ALLREDUCE, _REDUCE, _BROADCAST, _ALLGATHER, _REDUCESCATTER, _GATHER, _SCATTER, _ALLTOALL, _BARRIER = _KEYS.values()
_NOTHING = bytearray(1)
#: A split's record: colour, key, and the leader's address as text.
_SPLIT = struct.Struct("<qq240s")


class Work:
    """A call that goes on in the background. Calls of one communicator run one after the other, in order."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def is_completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> Any:
        """Wait for its end; its result.

        Raises
        ------
        WaitTimeout
            Where it has not ended within ``timeout_s``; the call itself goes on.
        BlinkcollError
            What the call raised.
        """
        if not self._ended.wait(timeout_s):
            raise WaitTimeout(f"the call has not ended within {timeout_s:g} s; it goes on")
        if self._error is not None:
            raise self._error
        return self._result

    result = wait

    def exception(self, timeout_s: float | None = None) -> BaseException | None:
        """What the call raised, or None."""
        if not self._ended.wait(timeout_s):
            raise WaitTimeout(f"the call has not ended within {timeout_s:g} s; it goes on")
        return self._error

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()


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
    Arrays that are not contiguous are copied. A communicator that failed once is of no further use. Memory: see
    ``docs/host.md``.

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
        self._start(group, topology, timeout_s)

    def _start(self, group: Group, topology: Topology | None, timeout_s: float) -> None:
        from .runtime.hostgroup import HostGroup

        self.rank, self.world_size, self.timeout_s = group.rank, group.world_size, timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._group = group
        self._lane = _Lane(f"blinkcoll-rank{self.rank}")
        self._lanes: dict[tuple[int, int], _Lane] = {}  # of sends and receives, by source and destination
        self._failed: BaseException | None = None
        try:
            topology = _agree_on_topology(group, topology, timeout_s)
            self._host = HostGroup(group, topology, timeout_s)
        except BaseException:
            group.close()
            raise
        self._run, self._quick, self._quick_barrier = self._host.calls.run, self._host.calls.run_quickly, self._host.calls.run_barrier_quickly
        self._lane.watch(self._host.calls.set_open)
        self._tables: dict[tuple[str, int | None], int] = {}

    # -- collectives ------------------------------------------------------------------------------------------------

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
            Return a :class:`Work` at once.

        Returns
        -------
        The array with the result, or a Work.
        """
        if not async_op and self._quick(_ALLREDUCE, 0, array, out, op, self._timeout_ns):
            return array if out is None else out
        return self._call("allreduce", None, array, out, op, factor, async_op)

    def reduce(self, array: Any, root: int, op: str = "sum", out: Any = None, *, factor: float = 1.0, async_op: bool = False) -> Any:
        """Every rank's ``array`` combined at rank ``root``; elsewhere ``array`` stays as it is and ``out`` is not looked at."""
        out = out if self.rank == root else None
        if not async_op and self._quick(_REDUCE, root, array, out, op, self._timeout_ns):
            return array if out is None else out
        return self._call("reduce", root, array, out, op, factor, async_op)

    def broadcast(self, array: Any, root: int, *, async_op: bool = False) -> Any:
        """The root's ``array`` into every rank's."""
        if not async_op and self._quick(_BROADCAST, root, array, None, "sum", self._timeout_ns):
            return array
        return self._call("broadcast", root, array, None, "sum", 1.0, async_op)

    def all_gather(self, array: Any, out: Any = None, *, async_op: bool = False) -> Any:
        """All ranks' arrays, in the order of ranks, on every rank.

        With ``out`` (``world_size`` times as many elements) ``array`` is this rank's part; in place ``array`` is the
        whole, in which each rank has filled its part.
        """
        if not async_op and self._quick(_ALLGATHER, 0, array, out, "sum", self._timeout_ns):
            return array if out is None else out
        return self._call("allgather", None, array, out, "sum", 1.0, async_op)

    def reduce_scatter(self, array: Any, op: str = "sum", out: Any = None, *, factor: float = 1.0, async_op: bool = False) -> Any:
        """All ranks' arrays combined, part r of the result at rank r.

        With ``out`` the part goes there; in place it is part ``rank`` of ``array``, the rest of which is undefined.
        """
        if not async_op and self._quick(_REDUCESCATTER, 0, array, out, op, self._timeout_ns):
            return array if out is None else out
        return self._call("reducescatter", None, array, out, op, factor, async_op)

    def gather(self, array: Any, root: int, out: Any = None, *, async_op: bool = False) -> Any:
        """All ranks' arrays at the root: into ``out`` there; in place the root's ``array`` is the whole."""
        out = out if self.rank == root else None
        if not async_op and self._quick(_GATHER, root, array, out, "sum", self._timeout_ns):
            return array if out is None else out
        return self._call("gather", root, array, out, "sum", 1.0, async_op)

    def scatter(self, array: Any, root: int, out: Any = None, *, async_op: bool = False) -> Any:
        """Part r of the root's array to rank r: into ``out`` where given; else into ``array`` (at the root: part ``root`` of it)."""
        if self.rank != root and out is not None:
            array, out = out, None
        if not async_op and self._quick(_SCATTER, root, array, out, "sum", self._timeout_ns):
            return array if out is None else out
        return self._call("scatter", root, array, out, "sum", 1.0, async_op)

    def all_to_all(self, array: Any, out: Any = None, *, async_op: bool = False) -> Any:
        """Part r of every rank's array to rank r, which gets them in the order of ranks."""
        if not async_op and self._quick(_ALLTOALL, 0, array, out, "sum", self._timeout_ns):
            return array if out is None else out
        return self._call("alltoall", None, array, out, "sum", 1.0, async_op)

    def barrier(self, *, async_op: bool = False) -> Any:
        """Return once every rank has called it."""
        if not async_op and self._quick_barrier(_BARRIER, self._timeout_ns):
            return None
        return self._call("barrier", None, _NOTHING, None, "sum", 1.0, async_op)

    # -- two ranks --------------------------------------------------------------------------------------------------

    def send(self, array: Any, dst: int, *, async_op: bool = False) -> Any:
        """``array`` to rank ``dst``, which calls :meth:`recv`. Calls of one pair and direction are taken in order."""
        return self._pair_call(self.rank, dst, array, async_op)

    def recv(self, array: Any, src: int, *, async_op: bool = False) -> Any:
        """What rank ``src`` sends, into ``array``; as many elements of the same size as are sent."""
        return self._pair_call(src, self.rank, array, async_op)

    def _pair_call(self, src: int, dst: int, array: Any, async_op: bool) -> Any:
        if self._group is None:
            raise ExecutionError("this communicator was closed")
        peer = dst if src == self.rank else src
        if not 0 <= peer < self.world_size or peer == self.rank:
            raise ExecutionError(f"rank {self.rank} cannot exchange with rank {peer} among {self.world_size}")
        lane = self._lanes.setdefault((src, dst), _Lane(f"blinkcoll-{src}-{dst}"))
        return lane.do(lambda: self._exchange(src, dst, array), async_op)

    def _exchange(self, src: int, dst: int, array: Any) -> Any:
        from .runtime.arrays import run_other

        calls, table = self._host.pairs.end(src, dst)
        ended = calls.run(table, array, None, 0, 1, 1.0, self._timeout_ns) if src != self.rank else _NOT_PLAIN
        if ended == _NOT_PLAIN:
            ended = run_other(calls, table, "sendrecv", array, None, 0, 1, 1.0, self._timeout_ns)
        if ended == _OUT_OF_TIME:
            from .runtime.launch import explain_records

            told = explain_records(self._host.pairs.program, self._host.pairs.records(src, dst), self.timeout_s)
            raise WaitTimeout(f"rank {self.rank}: a message from rank {src} to rank {dst} (here ranks 0 and 1) did not get through:\n  {told}")
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
        made._start(group, self._host.topology.subset([self._host.topology.devices[r].name for r in ranks]), self.timeout_s)
        return made

    def close(self) -> None:
        """Wait for calls in the background, then give everything back. Again: nothing."""
        for lane in (self._lane, *self._lanes.values()):
            lane.close()
        if self._group is not None:
            self._run = _closed
            self._host.close()
            self._group.close()
            self._group = None  # type: ignore[assignment]

    def __enter__(self) -> Communicator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- calls ------------------------------------------------------------------------------------------------------

    def _call(self, name: str, root: int | None, array: Any, out: Any, op: str, factor: float, async_op: bool) -> Any:
        """Run a call, here where nothing is under way, else after what is."""
        if not async_op and self._lane.idle:
            return self._execute(name, root, array, out, op, factor)
        return self._lane.do(lambda: self._execute(name, root, array, out, op, factor), async_op)

    def _execute(self, name: str, root: int | None, array: Any, out: Any, op: str, factor: float) -> Any:
        from ._core import take_raised, take_unsettled

        table = self._tables.get((name, root))
        if table is None or op not in _OPS or self._failed is not None:
            table = self._prepare(name, root, op)
        divisor = self.world_size if op == "avg" else 1
        result = array if out is None else out
        if out is None and table in self._host.apart:
            array, out = self._copy(array), array
        try:
            ended = take_unsettled()  # of a quick call, where it ended badly
            if ended == _INTERRUPTED:
                raise take_raised()
            if ended == _DONE:
                ended = self._run(table, array, out, _OPS[op], divisor, factor, self._timeout_ns)
            if ended == _NOT_PLAIN:
                ended = self._run_other(table, name, array, out, op, divisor, factor)
        except ValueError as error:
            raise ExecutionError(f"{name} ({op}): {error}") from None
        except BaseException as error:
            self._failed = error
            raise
        if ended == _OUT_OF_TIME:
            self._failed = self._timed_out(name)
            raise self._failed
        return result

    def _prepare(self, name: str, root: int | None, op: str) -> int:
        """What is checked, and set up, before the first call of a kind."""
        if self._group is None:
            raise ExecutionError("this communicator was closed")
        if self._failed is not None:
            raise ExecutionError(f"this communicator failed in an earlier call and is of no further use: {self._failed}")
        if op not in _OPS:
            raise ExecutionError(f"operation {op!r} is not known; known: {', '.join(_OPS)}")
        if root is not None and not 0 <= root < self.world_size:
            raise ExecutionError(f"{name}: there is no rank {root} among {self.world_size}")
        try:
            table = self._host.table((name, root))
        except BaseException as error:
            self._failed = error
            raise
        self._tables[name, root] = table
        self._host.calls.set_quick(_KEYS[name], root or 0, table, table in self._host.apart)
        return table

    def _copy(self, array: Any) -> Any:
        from .runtime.arrays import copy_of

        return copy_of(array)

    def _run_other(self, table: int, name: str, array: Any, out: Any, op: str, divisor: int, factor: float) -> int:
        """A call on what is no plain contiguous buffer: DLPack, bfloat16, dtypes that are only copied, views with gaps."""
        from .runtime.arrays import run_other

        return run_other(self._host.calls, table, name, array, out, _OPS[op], divisor, factor, self._timeout_ns)

    def _timed_out(self, name: str) -> WaitTimeout:
        from .runtime.launch import explain_records

        number = self._host.calls.last
        program = self._host.program(number)
        told = explain_records(program, self._host.records(number), self.timeout_s)
        return WaitTimeout(f"rank {self.rank}: {name} (program {program.hash}, call {self._host.calls.calls(number)}) did not finish:\n  {told}")


def _closed(*_: Any) -> int:
    raise ExecutionError("this communicator was closed")


class _Lane:
    """Calls that have to follow each other, on a thread of their own where they are to go on in the background."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls: queue.SimpleQueue[tuple[Work, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Work | None = None
        self._watcher: Callable[[bool], object] | None = None
        self._lock = threading.Lock()

    def watch(self, watcher: Callable[[bool], object]) -> None:
        """Tell ``watcher`` whenever it becomes busy (False) or idle (True)."""
        self._watcher = watcher

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._last is None or self._last.is_completed()

    def _tell(self, work: Work) -> None:
        """The work that was asked for, or has ended: calls wait for the last one."""
        with self._lock:
            if self._watcher is not None and work is self._last:
                self._watcher(work.is_completed())

    def do(self, call: Callable[[], Any], async_op: bool) -> Any:
        """The call's result, or its Work."""
        if not async_op and self.idle:
            return call()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
            self._thread.start()
        work = Work()
        with self._lock:
            self._last = work
        self._tell(work)
        self._calls.put((work, call))
        return work if async_op else work.wait()

    def close(self) -> None:
        """Wait for all calls."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
            self._thread = None

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            work, call = item
            work._run(call)
            self._tell(work)


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


def _agree_on_topology(group: Group, topology: Topology | None, timeout_s: float) -> Topology:
    """Rank 0's, on all ranks."""
    from .runtime.nodes import nodes_of
    from .topology import Topology as Loaded

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
    return Loaded.from_json(str(message["topology"]))


def _own_topology(world_size: int, topology: Topology | None, nodes: HostNodes | None) -> Topology:
    from .topology import host_topology, load_topology

    if topology is None:
        named = os.environ.get("BLINKCOLL_TOPO", "host")
        topology = host_topology(world_size, nodes) if named == "host" else load_topology(named)
        if topology.nranks > world_size:
            topology = topology.subset([d.name for d in topology.devices[:world_size]])
    if topology.nranks != world_size:
        raise ExecutionError(f"topology {topology.name} has {topology.nranks} devices, the communicator {world_size} ranks")
    return topology
