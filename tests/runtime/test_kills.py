"""Ranks are killed at random points; those that are left name them, meet anew and go on, until one is left."""

from __future__ import annotations

import os
import random
import re
import signal
import time

import numpy as np
import pytest
from runtime.jobs import Job, open_files

import blinkcoll as bc

#: A death is named within a second; the second one is for a machine that has other things to do as well.
BOUND_S = 2.0
KINDS = ("all_reduce", "broadcast", "all_gather", "reduce_scatter", "all_to_all", "barrier", "sendrecv", "background")
COUNTS = (1, 1000, 60_000, 400_000)


def one_call(comm, kind, count):
    """A call with a result that every rank can tell by itself; wrong results are AssertionErrors."""
    n, rank, root = comm.world_size, comm.rank, comm.world_size - 1
    total = n * (n + 1) // 2
    if kind in ("all_reduce", "background"):
        work = comm.all_reduce(np.full(count, rank + 1, np.int32), async_op=kind == "background")
        assert ((work if kind == "all_reduce" else work.wait()) == total).all()
    elif kind == "broadcast":
        assert (comm.broadcast(np.full(count, rank if rank == root else -1, np.int32), root) == root).all()
    elif kind == "all_gather":
        out = comm.all_gather(np.full(count, rank, np.int32), np.full(count * n, -1, np.int32))
        assert (out.reshape(n, count) == np.arange(n)[:, None]).all()
    elif kind == "reduce_scatter":
        assert (comm.reduce_scatter(np.full(count * n, rank + 1, np.int32), out=np.zeros(count, np.int32)) == total).all()
    elif kind == "all_to_all":
        array = np.repeat(np.arange(n, dtype=np.int32) * 100 + rank, count)
        assert (comm.all_to_all(array).reshape(n, count) == np.arange(n)[:, None] + 100 * rank).all()
    elif kind == "barrier":
        comm.barrier()
    elif n > 1:
        box = np.full(count, -1, np.int32)
        work = comm.recv(box, (rank - 1) % n, async_op=True)
        comm.send(np.full(count, rank, np.int32), (rank + 1) % n)
        work.wait()
        assert (box == (rank - 1) % n).all()


def left_open():
    """What this process has open; the watching thread closes what it has a moment after the last communicator."""
    for _ in range(100):
        held = open_files()
        if not any("event" in name for name in held):
            break
        time.sleep(0.02)
    return held


def survive(kinds):
    """Calls until no other rank is left. Tells of every death: when it was known, and what the error said."""

    def body(comm, tell):
        while True:
            if comm.world_size == 1:
                tell(("up", 1))
                comm.close()
                return left_open()
            rng = random.Random(comm.world_size)  # the same calls on all ranks
            try:
                for kind in kinds:  # once it is set up, a rank that does not wait does so soon
                    one_call(comm, kind, 1)
                tell(("up", comm.world_size))
                while True:
                    one_call(comm, rng.choice(kinds), rng.choice(COUNTS))
            except bc.RankFailed as error:
                tell(("lost", str(error), time.monotonic()))
            while True:
                try:
                    left = comm.shrink(timeout_s=20)
                    break
                except bc.RankFailed as error:
                    tell(("lost", str(error), time.monotonic()))
            comm.close()
            comm = left

    return body


def wait_until_up(job, ranks):
    """Until all of them have a communicator of just them; what they told of deaths meanwhile."""
    told = {rank: [] for rank in ranks}
    for rank in ranks:
        while True:
            kind, what, *_ = job.heard(rank)
            assert kind == "told", f"rank {rank}: {kind}: {what}"
            if what == ("up", len(ranks)):
                break
            if what[0] == "lost":
                told[rank].append(what[1:])
    return told


def kill_all_but_one(folder, seed, world_size):
    """How many were killed, and the longest that it took until a rank named the dead."""
    rng = random.Random(seed)
    worst, alive = 0.0, list(range(world_size))
    with Job(world_size, folder, survive(rng.sample(KINDS, 4))) as job:
        wait_until_up(job, alive)
        while len(alive) > 1:
            time.sleep(rng.uniform(0, 0.15))
            victims = rng.sample(alive, min(len(alive) - 1, rng.choice((1, 1, 2))))
            began = time.monotonic()
            for victim in victims:
                job.signal(victim, signal.SIGKILL)
            alive = [rank for rank in alive if rank not in victims]
            if len(alive) > 1 and rng.random() < 0.3:  # one more while the others meet anew
                time.sleep(rng.uniform(0, 0.4))
                victims.append(alive.pop(rng.randrange(len(alive))))
                job.signal(victims[-1], signal.SIGKILL)
            pids = {job.pid(victim) for victim in victims}
            for rank, losses in wait_until_up(job, alive).items():
                assert losses, f"seed {seed}: rank {rank} noticed nothing"
                for text, _ in losses:
                    named = re.search(r"rank \d+ \(pid (\d+)\) died|rank \d+ is gone", text)
                    assert named and (named[1] is None or int(named[1]) in pids), f"seed {seed}: rank {rank} said {text!r}, killed were {pids}"
                assert "died" in losses[0][0], f"seed {seed}: rank {rank} said {losses[0][0]!r}"
                worst = max(worst, losses[0][1] - began)
        kind, left, _ = job.ending(alive[0])
        assert kind == "result", left
        assert not [name for name in left if any(word in name for word in ("blinkcoll", "socket", "pidfd", "event"))], left
        for rank in range(world_size):
            assert job.exit_code(rank) == (0 if rank in alive else -signal.SIGKILL)
    assert worst < BOUND_S, f"seed {seed}: {worst:.2f} s until a death was known"
    return world_size - 1, worst


def nothing_is_left():
    """No memory file of blinkcoll's is open or mapped in this process, and it has no child."""
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
    assert not [name for name in held if "blinkcoll" in name]
    with open("/proc/self/maps") as file:
        assert "memfd:blinkcoll" not in file.read()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(("seed", "world_size"), [(1, 5), (2, 4), (3, 5)])
def test_killed_ranks_are_named_and_the_others_go_on(seed, world_size, tmp_path):
    killed, worst = kill_all_but_one(tmp_path, seed, world_size)
    print(f"{killed} kills, the slowest named after {worst:.3f} s")
    nothing_is_left()


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    killed, worst = 0, 0.0
    for seed in range(100, 158):
        more, slowest = kill_all_but_one(tmp_path / str(seed), seed, 3 + seed % 4)
        killed, worst = killed + more, max(worst, slowest)
    assert killed >= 200
    nothing_is_left()
    print(f"{killed} kills, the slowest named after {worst:.3f} s")
