"""Where the system gives less than usual: it works all the same, or every rank says what is missing."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from runtime.jobs import Job
from runtime.ranks import as_threads

import blinkcoll as bc

SOON_S = 2.0


def limit_to(kind, extra_bytes):
    """Allow this process this much more than it has."""
    now = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10 if kind == resource.RLIMIT_AS else 0
    resource.setrlimit(kind, (now + extra_bytes, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("limit", "poor", "allowed", "says"),
    [
        # A memory file's size counts as a file's, so this limit stands for a host whose memory is full.
        ("RLIMIT_FSIZE", 0, 1 << 14, r"\d+ bytes of shared memory are not to be had: File too large"),
        ("RLIMIT_AS", 2, 1 << 14, r"a segment of \d+ bytes cannot be mapped: Cannot allocate memory|MemoryError"),
    ],
)
def test_a_rank_without_memory_says_so_and_so_do_all(limit, poor, allowed, says, tmp_path):
    def body(comm, tell):
        comm.barrier()
        array = np.ones(300_000)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if comm.rank == poor:
            limit_to(getattr(resource, limit), allowed)
        comm.all_to_all(array)

    with Job(3, tmp_path, body, timeout_s=10) as job:
        endings = [job.ending(rank) for rank in range(3)]
        for rank, (kind, text, _) in enumerate(endings):
            assert kind in (("ExecutionError", "MemoryError") if rank == poor else ("ExecutionError", "Aborted")), endings
            assert re.search(says, f"{kind} {text}"), endings


def test_a_rank_without_room_for_descriptors_says_so(tmp_path):
    class Poor(Job):
        def _run(self, rank, pipe):
            if rank == 1:
                few = len(os.listdir("/proc/self/fd")) + 6
                resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
            super()._run(rank, pipe)

    with Poor(8, tmp_path, lambda comm, tell: None, timeout_s=10) as job:
        endings = [job.ending(rank) for rank in range(8)]
        assert all(kind != "result" and "no room for 8 descriptors" in text for kind, text, _ in endings), endings


def test_descriptors_of_many_ranks_come_in_several_messages(tmp_path, monkeypatch):
    monkeypatch.setattr("blinkcoll.runtime.neighbours.MOST_FDS", 2)
    assert as_threads(5, tmp_path, lambda comm: comm.all_reduce(np.ones(3))[0]) == [5] * 5


def test_no_page_has_to_be_locked(tmp_path):
    def body(comm, tell):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        return comm.all_reduce(np.ones(100_000))[-1]

    with Job(2, tmp_path, body) as job:
        assert [job.ending(rank)[:2] for rank in range(2)] == [("result", 2.0)] * 2


RANK = """
import os, sys, time
import numpy as np, blinkcoll as bc
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with bc.Communicator(rank, world, bc.FileStore(folder), timeout_s=30) as comm:
    try:
        assert (comm.all_reduce(np.full(200_000, rank + 1, np.int32)) == world * (world + 1) // 2).all()
        print("right", flush=True)
        while len(sys.argv) > 4:
            comm.all_reduce(np.ones(10))
    except bc.ExecutionError as error:
        print(type(error).__name__, error, flush=True)
"""


def test_shared_memory_does_not_come_from_dev_shm(tmp_path):
    """In a mount namespace of their own, where /dev/shm is full."""
    full = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/full && ! head -c 1 /dev/zero > /dev/shm/more && exec "
    probe = subprocess.run(["unshare", "-m", "sh", "-c", f"{full} true"], capture_output=True) if shutil.which("unshare") else None
    if probe is None or probe.returncode:
        pytest.skip("no mount namespace to be had")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    ranks = [
        subprocess.Popen(["unshare", "-m", "sh", "-c", f"{full} {sys.executable} {script} {rank} 2 {tmp_path / 'store'}"], stdout=subprocess.PIPE, text=True, cwd="/")
        for rank in range(2)
    ]
    assert [rank.communicate(timeout=60)[0] for rank in ranks] == ["right\n"] * 2


def test_processes_that_do_not_share_numbers_notice_deaths(tmp_path):
    """Each rank in a namespace of process numbers of its own, where it is number 1 or so."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-pf", "true"], capture_output=True).returncode:
        pytest.skip("no namespace of process numbers to be had")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = ["unshare", "-pf", "--kill-child", sys.executable, str(script)]
    ranks = [subprocess.Popen([*command, str(rank), "3", str(tmp_path / "store"), "on"], stdout=subprocess.PIPE, text=True, cwd="/") for rank in range(3)]
    try:
        assert [rank.stdout.readline() for rank in ranks] == ["right\n"] * 3
        (inner,) = Path(f"/proc/{ranks[1].pid}/task/{ranks[1].pid}/children").read_text().split()
        os.kill(int(inner), signal.SIGKILL)
        for rank in (0, 2):
            assert re.match(r"RankFailed rank 1 \(pid 1\) died (during|after) call \d+: all_reduce\(", ranks[rank].communicate(timeout=SOON_S * 5)[0])
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


# -- seccomp --------------------------------------------------------------------------------------------------------

#: x86-64 system calls that a strict filter refuses (arch/x86/entry/syscalls/syscall_64.tbl).
REFUSED = {"process_vm_readv": 310, "process_vm_writev": 311, "pidfd_open": 434}


def refuse(numbers):
    """A seccomp filter for this process: EPERM for these calls, everything else as before (seccomp(2))."""
    load, jump_equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    allow, refusal = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM
    code = [(load, 0, 0, 0)]
    code += [(jump_equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    code += [(give, 0, 0, allow), (give, 0, 0, refusal)]
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    held = ctypes.create_string_buffer(program, len(program))
    what = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(held)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filtered = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    if libc.prctl(set_seccomp, filtered, ctypes.byref(what)) != 0:
        os._exit(77)


@pytest.fixture
def filtered():
    """A job whose ranks may not make these calls."""
    if os.uname().machine != "x86_64":
        pytest.skip("the filter's numbers are x86-64's")
    before = os.fork()
    if before == 0:
        refuse([])
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(before, 0)[1]):
        pytest.skip("no seccomp filter may be set")

    def make(refused, *args):
        class Filtered(Job):
            def _run(self, rank, pipe):
                refuse([REFUSED[name] for name in refused])
                if "pidfd_open" in refused:
                    with pytest.raises(PermissionError):
                        os.pidfd_open(os.getpid())
                super()._run(rank, pipe)

        return Filtered(*args)

    return make


@pytest.mark.parametrize("refused", ["process_vm_readv", "process_vm_writev"])
def test_where_memory_may_be_read_or_written_only_slots_carry_the_data(refused, filtered, tmp_path):
    """Of two ranks, one reads a part of what a root sends, and the other writes the rest: both have to be allowed."""

    def body(comm, tell):
        tell(comm._host.direct)
        for count in (10, 1 << 20, 3 << 20):
            data = np.arange(count, dtype=np.int32)
            assert (comm.broadcast(data if comm.rank == 1 else np.zeros_like(data), 1) == data).all()
        tell("right")

    with filtered([refused], 2, tmp_path, body) as job:
        assert [[job.heard(rank), job.heard(rank)] for rank in range(2)] == [[("told", False), ("told", "right")]] * 2


def test_a_filter_that_refuses_other_processes_memory_and_descriptors(filtered, tmp_path):
    """Slots carry the data then, and the sockets tell of deaths."""

    def body(comm, tell):
        for count in (10, 100_000, 3_000_000):
            assert (comm.all_reduce(np.full(count, comm.rank + 1, np.int32)) == 6).all()
        tell("right")
        while True:
            comm.all_reduce(np.ones(10))

    for victim in (0, 2):
        with filtered(list(REFUSED), 3, tmp_path / str(victim), body) as job:
            assert [job.heard(rank) for rank in range(3)] == [("told", "right")] * 3
            when = job.signal(victim, signal.SIGKILL)
            for rank in {0, 1, 2} - {victim}:
                kind, text, then = job.ending(rank)
                assert kind == "RankFailed" and f"rank {victim} (pid {job.pid(victim)}) died" in text and then - when < SOON_S


# -- many, and late -------------------------------------------------------------------------------------------------


def test_ranks_may_start_long_after_each_other(tmp_path):
    results = {}

    def run(rank):
        time.sleep((0.5, 0, 1.0)[rank])
        with bc.Communicator(rank, 3, bc.FileStore(tmp_path / "store"), timeout_s=20) as comm:
            time.sleep((0, 0.3, 0)[rank])
            results[rank] = comm.all_reduce(np.ones(3)).tolist()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {rank: [3, 3, 3] for rank in range(3)}


def test_sixty_four_ranks_on_few_cores(tmp_path):
    def body(comm):
        for _ in range(5):
            comm.barrier()
        box = np.zeros(100, np.int32)
        work = comm.recv(box, (comm.rank - 1) % 64, async_op=True)
        comm.send(np.full(100, comm.rank, np.int32), (comm.rank + 1) % 64)
        work.wait()
        return box[99]

    assert as_threads(64, tmp_path, body, timeout_s=60) == [(rank - 1) % 64 for rank in range(64)]


@pytest.mark.slow
def test_sixty_four_processes_on_few_cores(tmp_path):
    def body(comm, tell):
        return comm.all_reduce(np.full(1000, comm.rank, np.int32))[0], comm.broadcast(np.full(3, comm.rank), 63)[0]

    with Job(64, tmp_path, body, timeout_s=240) as job:
        assert [job.ending(rank, 300)[:2] for rank in range(64)] == [("result", (2016, 63))] * 64
