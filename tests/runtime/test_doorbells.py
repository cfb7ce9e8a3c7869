"""A rank that falls asleep just when its counter is raised is woken: no ring is lost, whoever does the fencing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import blinkcoll as bc
from blinkcoll import _core
from blinkcoll.runtime.waiting import agree_on_waiting

SOURCE = Path(__file__).resolve().parents[2]
ROUNDS, SEEDS, SECONDS = 50_000, range(3), 5

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to build with")


def outcomes(folder, fenced, *options, seeds=SEEDS):
    """The exit codes of doorbells.cpp for some seeds, up to the first that is not 0."""
    binary = folder / "doorbells"
    subprocess.run(["g++", "-std=c++17", "-O2", "-pthread", *options, f"-I{SOURCE / 'csrc'}", str(SOURCE / "tests" / "csrc" / "doorbells.cpp"), "-o", str(binary)], check=True)
    codes: list[int] = []
    while len(codes) < len(seeds) and not any(codes):
        codes.append(subprocess.run([binary, str(int(fenced)), str(ROUNDS), str(seeds[len(codes)]), str(SECONDS)], timeout=120, stdout=subprocess.DEVNULL).returncode)
    if 5 in codes:
        pytest.skip("this kernel has no membarrier(2), or refuses it")
    return codes


@needs_compiler
@pytest.mark.parametrize("fenced", [False, True])
def test_no_ring_is_lost(tmp_path, fenced):
    assert outcomes(tmp_path, fenced) == [0] * len(SEEDS)


@needs_compiler
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: nothing happens at once")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="how long a store waits depends on the machine")
def test_without_its_fence_a_sleeper_loses_rings(tmp_path):
    assert outcomes(tmp_path, True, "-DBC_WITHOUT_FENCES", seeds=range(30))[-1] == 4


class Meeting:
    """Ranks' answers as rank 0 hears them."""

    rank = 0

    def __init__(self, *others):
        self.others, self.world_size, self.told = others, len(others) + 1, None

    def answers(self, doing, timeout_s):
        return dict(enumerate(self.others, 1))

    def tell_all(self, message):
        self.told = message


@pytest.mark.parametrize(("cores", "crowded"), [([[1], [2]], False), ([[0], [0]], True), ([[0, 1], [1]], True), ([[0, 1], [1, 2]], False)])
def test_ranks_that_are_bound_to_cores_of_their_own_are_not_crowded(monkeypatch, cores, crowded):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    group = Meeting(*({"fences": True, "cores": own} for own in cores))
    assert agree_on_waiting(group, 1).crowded == crowded
    assert group.told["waiting"]["crowded"] == crowded


def test_one_rank_without_fences_leaves_all_without():
    assert not agree_on_waiting(Meeting({"fences": True, "cores": [0]}, {"fences": False, "cores": [1]}), 1).fenced


#: The C library's syscall(), but membarrier(2) takes as long as FENCE_US says, and does nothing else.
SHIM = r"""
#include <cstdarg>
#include <cstdlib>
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>
extern "C" long syscall(long number, ...) {
  va_list rest;
  va_start(rest, number);
  long a[6];
  for (long& one : a) one = va_arg(rest, long);
  va_end(rest);
  if (number == SYS_membarrier) {
    if (const int us = atoi(getenv("FENCE_US"))) usleep(unsigned(us));
    return 0;
  }
  static const auto next = reinterpret_cast<long (*)(long, ...)>(dlsym(RTLD_NEXT, "syscall"));
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""


@needs_compiler
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: nobody is ever interrupted")
@pytest.mark.parametrize(("fence_us", "prompt"), [(0, True), (3000, False)])
def test_fences_that_take_long_are_not_used(fence_us, prompt, tmp_path):
    (tmp_path / "shim.cpp").write_text(SHIM)
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", str(tmp_path / "shim.cpp"), "-o", str(tmp_path / "shim.so"), "-ldl"], check=True)
    code = "from blinkcoll import _core; print(_core.join_fences() and _core.fences_are_prompt())"
    environment = os.environ | {"LD_PRELOAD": str(tmp_path / "shim.so"), "FENCE_US": str(fence_us)}
    said = []
    while str(prompt) not in said and len(said) < (5 if prompt else 1):  # other work may keep its two threads off their cores
        ran = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
        said.append(ran.stdout.strip())
    assert said[-1] == str(prompt)


@pytest.mark.parametrize("missing", ["join_fences", "fences_are_prompt"])
def test_a_group_without_fences_works(missing, monkeypatch, tmp_path):
    import threading

    import numpy as np

    monkeypatch.setattr(_core, missing, lambda: False)
    sums = []

    def rank(number):
        with bc.Communicator(number, 3, bc.FileStore(tmp_path)) as comm:
            assert not comm._host.waiting.fenced
            for count in (1, 5000):
                sums.append(comm.all_reduce(np.full(count, number + 1.0)).tolist() == [6.0] * count)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [True] * 6
