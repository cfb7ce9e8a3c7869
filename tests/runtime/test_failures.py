"""What happens to a communicator when ranks disagree, leave, are interrupted or stopped: never a hang, never silence."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from runtime.jobs import Job, open_files
from runtime.ranks import as_threads

import blinkcoll as bc
from blinkcoll import _core
from blinkcoll.runtime import board, callword
from blinkcoll.runtime.launch import DTYPES, OPS

SOON_S = 2.0
STATUS = [sys.executable, "-c", "import blinkcoll.cli; blinkcoll.cli.main()", "status"]


def error_of(call, kind=bc.ExecutionError):
    """The text of what a call raises."""
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


# -- call words -----------------------------------------------------------------------------------------------------


def test_boards_have_one_layout_in_both_languages():
    sizes = [*map(board.ctypes.sizeof, (board.BoardHeader, board.Board, board.WaitNote)), board.PAGE_BYTES, board.WORDS, board.VERSION]
    assert tuple(sizes) == _core.BOARD_SIZES


def test_a_call_word_says_what_was_called():
    def word(name, root, dtype, size, op, divisor, count):
        return _core.call_word(callword.call_base(name, None if root < 0 else root), DTYPES.get(dtype, 0), size, OPS[op], divisor, count)

    assert callword.describe(word("allreduce", -1, "float32", 4, "sum", 1, 1000)) == "all_reduce(1000 x float32, sum)"
    assert callword.describe(word("allreduce", -1, "bool", 1, "avg", 4, 1)) == "all_reduce(1 x bool, avg)"
    assert callword.describe(word("broadcast", 0, "float64", 8, "sum", 1, 10)) == "broadcast(10 x float64, root 0)"
    assert callword.describe(word("reduce", 1021, "int8", 1, "bxor", 1, 0)) == "reduce(0 x int8, bxor, root 1021)"
    assert callword.describe(word("gather", 3, "complex128", 16, "sum", 1, 7)) == "gather(7 x 16-byte elements, root 3)"
    assert callword.describe(word("alltoall", -1, "S3", 3, "sum", 1, 7)) == "all_to_all(21 x bytes)"
    assert callword.describe(_core.announced_word(callword.call_base("allreduce", None))) == "all_reduce(...)"
    assert callword.describe(word("barrier", -1, "uint8", 1, "sum", 1, 1)) == "barrier()"


def test_every_choice_has_a_word_of_its_own():
    words = {
        _core.call_word(callword.call_base(collective, None if root < 0 else root), dtype, 4, op, 1, count)
        for collective in callword.COLLECTIVES for root in (-1, 0, 1, 1000) for dtype in DTYPES.values() for op in range(7) for count in (0, 1, 1 << 40)
    }  # fmt: skip
    assert len(words) == len(callword.COLLECTIVES) * 4 * len(DTYPES) * 7 * 3


# -- calls that differ ----------------------------------------------------------------------------------------------

F, D = np.float32, np.float64
DIFFERENT = {
    "collective": (lambda c: c.all_reduce(np.ones(1000, F)), lambda c: c.broadcast(np.ones(10), 0), "all_reduce(1000 x float32, sum)", "broadcast(10 x float64, root 0)"),
    "root": (lambda c: c.broadcast(np.ones(10, F), 0), lambda c: c.broadcast(np.ones(10, F), 1), "broadcast(10 x float32, root 0)", "broadcast(10 x float32, root 1)"),
    "count": (lambda c: c.all_reduce(np.ones(10, F)), lambda c: c.all_reduce(np.ones(11, F)), "all_reduce(10 x float32, sum)", "all_reduce(11 x float32, sum)"),
    "dtype": (lambda c: c.all_reduce(np.ones(10, F)), lambda c: c.all_reduce(np.ones(10, np.int32)), "10 x float32", "10 x int32"),
    "operation": (lambda c: c.all_reduce(np.ones(10, F)), lambda c: c.all_reduce(np.ones(10, F), op="max"), "float32, sum", "float32, max"),
    "order": (lambda c: (c.barrier(), c.all_reduce(np.ones(9))), lambda c: (c.all_reduce(np.ones(9)), c.barrier()), "barrier()", "all_reduce("),
}


@pytest.mark.parametrize("known", [False, True], ids=["first-of-its-kind", "set-up-before"])
@pytest.mark.parametrize("what", DIFFERENT)
def test_calls_that_differ_are_named_on_every_rank_before_data_moves(what, known, tmp_path, monkeypatch):
    monkeypatch.setenv("BLINKCOLL_DEBUG", "DETAIL")
    usual, other, *said = DIFFERENT[what]

    def body(comm):
        if known:
            for call in (usual, other):
                call(comm)
        began = time.monotonic()
        text = error_of(lambda: (other if comm.rank == 1 else usual)(comm), bc.CallMismatch)
        took = time.monotonic() - began
        assert text in error_of(comm.barrier, bc.CallMismatch)
        return text, took

    told = as_threads(3, tmp_path, body)
    assert len({text for text, _ in told}) == 1 and max(took for _, took in told) < SOON_S
    text = told[0][0]
    assert "rank 1 " in text and re.search("rank 0 |rank 2 |ranks 0, 2 ", text)
    if known:
        assert all(call in text for call in said), text


@pytest.mark.parametrize("what", DIFFERENT)
def test_calls_that_differ_are_noticed_without_being_asked_for(what, tmp_path):
    """By the words that small chunks carry, by ranks that wait, or by a look at the boards once in a while."""
    usual, other, *said = DIFFERENT[what]

    def body(comm):
        for call in (usual, other):
            call(comm)
        began = time.monotonic()
        text = error_of(lambda: [(other if comm.rank == 1 else usual)(comm) for _ in range(20)], bc.CallMismatch)
        return text, time.monotonic() - began

    told = as_threads(3, tmp_path, body)
    assert len({text for text, _ in told}) == 1 and max(took for _, took in told) < SOON_S
    assert all(call in told[0][0] for call in said)


def test_messages_that_differ_are_named_on_both_ranks(tmp_path):
    def body(comm):
        return error_of(lambda: [comm.send(np.ones(7, F), 1) if comm.rank == 0 else comm.recv(np.ones(9, F), 0) for _ in range(9)], bc.CallMismatch)

    first, second = as_threads(2, tmp_path, body)
    assert first == second and "a message from rank 0 to rank 1" in first and "sendrecv(7 x float32)" in first


def test_a_call_too_many_is_told_from_a_late_rank(tmp_path):
    def body(comm):
        comm.all_reduce(np.ones(10))
        if comm.rank == 0:
            return error_of(lambda: comm.all_reduce(np.ones(10)), bc.CallMismatch)
        comm.close()
        return None

    text, _, _ = as_threads(3, tmp_path, body)
    assert re.search(r"rank [12] \(pid \d+\) closed the communicator after call 1: all_reduce\(10 x float64, sum\); rank 0 waits for it in call 2", text)


def test_an_argument_that_is_refused_leaves_the_communicator_usable(tmp_path):
    def body(comm):
        for wrong in (lambda: comm.all_reduce(np.zeros(3, np.complex64)), lambda: comm.all_reduce(np.zeros(3), op="bxor"), lambda: comm.broadcast([1], 0)):
            error_of(wrong)
        return comm.all_reduce(np.ones(3)).tolist()

    assert as_threads(2, tmp_path, body) == [[2, 2, 2]] * 2


# -- leaving --------------------------------------------------------------------------------------------------------


def endless(comm, tell):
    tell("up")
    while True:
        comm.all_reduce(np.ones(1000, F))


def wait_in_a_call(comm, tell):
    """All but rank 1 wait for it in a call; it sleeps."""
    comm.all_reduce(np.ones(10, F))
    tell("up")
    if comm.rank == 1:
        time.sleep(60)
    comm.all_reduce(np.ones(10, F))


def all_up(job):
    for rank in range(job.world_size):
        assert job.heard(rank) == ("told", "up")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_death_is_named_by_all_although_a_child_lives(victim, tmp_path):
    """A forked child has copies of the sockets; they must not speak for its parent."""

    def body(comm, tell):
        child = os.fork() if comm.rank == victim else None
        if child == 0:
            time.sleep(30)
            os._exit(0)
        tell(child)
        endless(comm, tell)

    with Job(3, tmp_path, body) as job:
        children = [job.heard(rank)[1] for rank in range(3)]
        all_up(job)
        time.sleep(0.1)
        when = job.signal(victim, signal.SIGKILL)
        try:
            for rank in {0, 1, 2} - {victim}:
                kind, text, then = job.ending(rank)
                assert kind == "RankFailed" and re.match(rf"rank {victim} \(pid {job.pid(victim)}\) died (during|after) call \d+: all_reduce\(1000 x float32, sum\)", text), text
                assert then - when < SOON_S
        finally:
            os.kill(children[victim], signal.SIGKILL)


def test_what_a_forked_child_may_do(tmp_path):
    def body(comm, tell):
        comm.barrier()
        child = os.fork()
        if child == 0:
            text = error_of(comm.barrier) + error_of(lambda: comm.send(np.ones(1), 1 - comm.rank)) + error_of(lambda: comm.shrink())
            comm.close()
            left = [name for name in open_files() if "blinkcoll" in name]
            own = bc.Communicator(0, 1, None)
            good = text.count("its parent's") == 3 and not left and own.all_reduce(np.ones(2)).tolist() == [1, 1]
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), comm.all_reduce(np.ones(2)).tolist()

    with Job(2, tmp_path, body) as job:
        assert [job.ending(rank)[:2] for rank in range(2)] == [("result", (0, [2, 2]))] * 2


def test_a_rank_that_becomes_another_program_has_left(tmp_path):
    def body(comm, tell):
        comm.barrier()
        if comm.rank == 1:
            os.execv("/bin/sleep", ["sleep", "30"])
        comm.all_reduce(np.ones(5))

    with Job(3, tmp_path, body) as job:
        for rank in (0, 2):
            kind, text, _ = job.ending(rank)
            assert kind == "RankFailed" and text.startswith(f"rank 1 (pid {job.pid(1)}) left after call 1: barrier()"), text


@pytest.mark.parametrize("how", ["interpreter", "_exit"])
def test_an_end_in_the_middle_of_a_call(how, tmp_path):
    """A call in the background is under way when rank 1 ends, in order or at once."""
    script = f"""
import os, sys, threading, time
import numpy as np, blinkcoll as bc
rank = int(sys.argv[1])
comm = bc.Communicator(rank, 2, bc.FileStore({str(tmp_path)!r}), timeout_s=20)
comm.barrier()
if rank == 1:
    comm.all_reduce(np.ones(10), async_op=True)
    time.sleep(0.3)
    sys.exit(0) if {how!r} == "interpreter" else os._exit(0)
time.sleep(0.6)
try:
    comm.barrier()
except bc.ExecutionError as error:
    print(type(error).__name__, error)
"""
    ranks = [subprocess.Popen([sys.executable, "-c", script, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") for rank in range(2)]
    ended = [process.communicate(timeout=60) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0] and ended[1] == ("", ""), ended
    if how == "interpreter":
        assert ended[0][0].startswith("Aborted rank 1's interpreter ended (during call 2: all_reduce("), ended[0]
    else:
        assert re.match(r"RankFailed rank 1 \(pid \d+\) died during call 2: all_reduce\(", ended[0][0]), ended[0]


# -- abort and shrink -----------------------------------------------------------------------------------------------


def test_abort_ends_calls_on_all_ranks(tmp_path):
    def body(comm):
        comm.barrier()
        if comm.rank == 0:
            threading.Timer(0.2, comm.abort, ["enough"]).start()
        box = np.zeros(3)
        message = comm.recv(box, (comm.rank + 1) % 3, async_op=True)  # nobody sends
        began = time.monotonic()
        text = error_of(lambda: comm.all_reduce(np.ones(5)) if comm.rank != 2 else message.wait(), bc.Aborted)
        assert time.monotonic() - began < SOON_S and "of no further use" in error_of(comm.barrier, bc.Aborted)
        error_of(message.wait, bc.Aborted)
        return text

    assert set(as_threads(3, tmp_path, body)) == {"rank 0 called abort(): enough (during call 2: all_reduce(...))"}


def test_all_ranks_of_a_broken_communicator_may_go_on_in_a_new_one(tmp_path):
    def body(comm):
        if comm.rank == 1:
            comm.abort()
        error_of(comm.barrier, bc.Aborted)
        with comm.shrink() as again:
            return again.rank, again.all_reduce(np.full(2, again.rank)).tolist()

    assert as_threads(3, tmp_path, body) == [(rank, [3, 3]) for rank in range(3)]


def test_shrink_names_who_did_not_come(tmp_path):
    def body(comm):
        comm.barrier()
        if comm.rank == 2:
            time.sleep(1.5)
            return None
        return error_of(lambda: comm.shrink(timeout_s=0.5), bc.WaitTimeout)

    first, second, _ = as_threads(3, tmp_path, body)
    assert first == "rank 0: after 0.5 s rank 2 of 3 had not come" and second in (f"rank 0 gave up: {first}", "rank 1: did not find rank 0 within 0.5 s")


def test_closing_ends_the_calls_of_other_threads(tmp_path):
    def body(comm):
        comm.all_reduce(np.ones(5))
        if comm.rank == 1:
            time.sleep(0.6)
            return error_of(lambda: comm.all_reduce(np.ones(5)), bc.CallMismatch)
        texts = []
        thread = threading.Thread(target=lambda: texts.append(error_of(lambda: comm.all_reduce(np.ones(5)))))
        thread.start()
        time.sleep(0.2)
        comm.close()
        thread.join(SOON_S)
        error_of(comm.barrier)
        return texts

    first, second = as_threads(2, tmp_path, body)
    assert first == ["this communicator was closed"] and re.match(r"rank 0 \(pid \d+\) closed the communicator during call 2", second)


def test_a_message_to_a_dead_rank_fails(tmp_path):
    def body(comm, tell):
        comm.barrier()
        tell("up")
        if comm.rank == 1:
            time.sleep(60)
        comm.recv(np.zeros(10), 1)

    with Job(3, tmp_path, body) as job:
        all_up(job)
        time.sleep(0.3)
        job.signal(1, signal.SIGKILL)
        for rank in (0, 2):
            kind, text, _ = job.ending(rank)
            assert kind == "RankFailed" and f"rank 1 (pid {job.pid(1)}) died after call 1: barrier()" in text


# -- signals --------------------------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_call_on_all_ranks(tmp_path):
    with Job(3, tmp_path, wait_in_a_call) as job:
        all_up(job)
        time.sleep(0.3)
        when = job.signal(0, signal.SIGINT)
        kind, _, then = job.ending(0)
        assert kind == "KeyboardInterrupt" and then - when < SOON_S
        kind, text, then = job.ending(2)
        assert kind == "Aborted" and text == "rank 0: KeyboardInterrupt (during call 2: all_reduce(10 x float32, sum))" and then - when < SOON_S


def test_signals_that_are_handled_do_no_harm(tmp_path):
    def body(comm, tell):
        count = 0

        def handler(*_):
            nonlocal count
            count += 1

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        for i in range(30):
            assert (comm.all_reduce(np.full(200_000, comm.rank + i, np.int64)) == 3 + 3 * i).all()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return count > 0

    with Job(3, tmp_path, body) as job:
        assert [job.ending(rank)[:2] for rank in range(3)] == [("result", True)] * 3


def test_a_stopped_rank_is_late_and_not_dead(tmp_path):
    def body(comm, tell):
        comm.all_reduce(np.ones(10, F))
        tell("up")
        while comm.rank == 1 and not (tmp_path / "go").exists():
            time.sleep(0.05)
        return comm.all_reduce(np.ones(1000, F))[0]

    with Job(3, tmp_path, body, timeout_s=20) as job:
        all_up(job)
        job.signal(1, signal.SIGSTOP)
        time.sleep(0.7)
        shown, plain = (subprocess.run([*STATUS, str(job.pid(2)), *more], cwd="/", capture_output=True, text=True, check=True).stdout for more in (["--json"], []))
        (tmp_path / "go").touch()
        job.signal(1, signal.SIGCONT)
        assert [job.ending(rank)[:2] for rank in range(3)] == [("result", 3.0)] * 3
        (told,) = json.loads(shown)
        assert [rank["pid"] for rank in told["ranks"]] == [job.pid(rank) for rank in range(3)] and told["failure"] == ""
    late, waiting = told["ranks"][1], [told["ranks"][0], told["ranks"][2]]
    assert late["process"] == "stopped" and late["calls_begun"] == 1 and late["wait"] is None
    for rank in waiting:
        assert (rank["process"], rank["calls_begun"], rank["calls_ended"], rank["call"]) == ("sleeping", 2, 1, "all_reduce(1000 x float32, sum)")
        assert rank["wait"]["peer"] == 1 and 0.3 < rank["wait"]["since_s"] < 15
    assert re.search(r"rank 1  pid \d+  stopped; idle after call 1: all_reduce\(10 x float32, sum\), behind", plain), plain
    assert re.search(r"waits \d+\.\d s for a chunk of rank 1 \(channel 0, step \d+, iteration 0; \d+ needed, \d+ there\)", plain), plain


def test_setting_up_does_not_wait_for_ever_for_a_stopped_rank(tmp_path):
    """Rank 1 takes no message: programs for many ranks are larger than what a socket holds."""

    def body(comm, tell):
        tell("up")
        if comm.rank == 1:
            time.sleep(60)
        time.sleep(0.3)
        for root in range(4):
            comm.broadcast(np.ones(10), root)

    with Job(4, tmp_path, body, timeout_s=1) as job:
        all_up(job)
        when = job.signal(1, signal.SIGSTOP)
        for rank in (0, 2, 3):
            kind, text, then = job.ending(rank)
            assert kind in ("WaitTimeout", "Aborted") and "rank 1" in text and then - when < 2 * SOON_S


def test_a_timeout_names_who_never_came_and_all_fail_alike(tmp_path):
    with Job(3, tmp_path, wait_in_a_call, timeout_s=0.7) as job:
        all_up(job)
        job.signal(1, signal.SIGSTOP)
        texts = [job.ending(rank) for rank in (0, 2)]
        assert {kind for kind, *_ in texts} == {"WaitTimeout"} and texts[0][1] == texts[1][1]
        assert f"rank 1 (pid {job.pid(1)}), stopped, never came; it was last seen after call 1: all_reduce(10 x float32, sum)" in texts[0][1]


def test_status_refuses_what_is_no_process():
    ended = subprocess.run([*STATUS, "999999999"], cwd="/", capture_output=True, text=True)
    assert ended.returncode == 1 and "process 999999999: No such file or directory" in ended.stderr
    assert subprocess.run(STATUS, cwd="/", capture_output=True).returncode == 2


# -- watching costs nothing -----------------------------------------------------------------------------------------


def test_idle_communicators_share_one_thread_that_sleeps(tmp_path):
    def body(comm, tell):
        more = [bc.Communicator(comm.rank, 2, bc.FileStore(tmp_path / str(i))) for i in range(20)]
        comm.barrier()
        threads = [thread.name for thread in threading.enumerate()]
        began = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - began
        switches = sum(map(sleeps, os.listdir("/proc/self/task")))
        time.sleep(0.5)
        switches = sum(map(sleeps, os.listdir("/proc/self/task"))) - switches
        for other in more:
            other.close()
        return threads, spent, switches

    with Job(2, tmp_path, body) as job:
        for rank in range(2):
            kind, (threads, spent, switches), _ = job.ending(rank)
            assert kind == "result" and threads.count("blinkcoll-watch") == 1 and len(threads) == 2
            assert spent < 0.1 and switches < 10


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_many_idle_communicators_take_two_descriptors_and_little_memory_each(tmp_path, count):
    def body(comm, tell):
        descriptors, shared = len(os.listdir("/proc/self/fd")), resident_shared()
        more = [bc.Communicator(comm.rank, 2, bc.FileStore(tmp_path / "more"), name=str(i)) for i in range(count)]
        sums = [float(other.all_reduce(np.ones(4))[0]) for other in more]
        descriptors, shared = len(os.listdir("/proc/self/fd")) - descriptors, resident_shared() - shared
        comm.barrier()
        began = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - began
        for other in more:
            other.close()
        return sums, descriptors, shared, spent

    with Job(2, tmp_path, body) as job:
        for rank in range(2):
            kind, (sums, descriptors, shared, spent), _ = job.ending(rank)
            assert kind == "result" and sums == [2.0] * count
            assert descriptors <= 2 * count + 8 and shared <= 100 * count and spent < 0.1


def resident_shared():
    """KiB of shared memory that this process has touched."""
    return int(re.search(r"^RssShmem:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)[1])


def sleeps(thread):
    """How often a thread of this process has gone to sleep."""
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/self/task/{thread}/status").read_text(), re.M)[1])


def test_nothing_is_left_in_a_process_that_closed_its_communicators(tmp_path):
    def body(comm, tell):
        def state():
            names = sorted(re.sub(r"\d+", "", name) for name in open_files())
            return names, len(re.findall("memfd:blinkcoll", Path("/proc/self/maps").read_text())), threading.active_count()

        before = state()
        for i in range(3):
            with bc.Communicator(comm.rank, 2, bc.FileStore(tmp_path / str(i))) as other:
                other.all_reduce(np.ones(100_000))
                other.sendrecv = other.send(np.ones(3), 1) if comm.rank == 0 else other.recv(np.ones(3), 0)
        dropped = bc.Communicator(comm.rank, 2, bc.FileStore(tmp_path / "dropped"))
        dropped.barrier(async_op=True).wait()
        del dropped
        time.sleep(0.2)
        return before, state()

    with Job(2, tmp_path, body) as job:
        for rank in range(2):
            kind, states, _ = job.ending(rank)
            assert kind == "result" and states[0] == states[1]


def test_waits_go_by_a_clock_that_never_jumps():
    """Nothing that waits reads the time of day."""
    sources = [*Path(bc.__file__).parent.glob("runtime/*.py"), *(Path(__file__).parents[2] / "csrc" / "host").glob("*")]
    assert len(sources) > 20
    for path in sources:
        assert not re.search(r"time\.time\(|system_clock|CLOCK_REALTIME|gettimeofday", path.read_text()), path
