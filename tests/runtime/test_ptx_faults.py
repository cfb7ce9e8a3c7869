"""The emulator's judgement is worth something: kernels with one order left out are caught, and waits end."""

from __future__ import annotations

import re

import pytest
from emulator import EmulatedDevices, load_ptxrun
from runtime.handmade import HANDMADE
from runtime.inputs import integers

import blinkcoll as bc
from blinkcoll.errors import WaitTimeout
from blinkcoll.runtime.cuda import executor as cuda
from blinkcoll.runtime.cuda.kernel import ARCHITECTURES, kernel_ptx


@pytest.fixture(scope="module", autouse=True)
def _emulator():
    load_ptxrun()


def _program():
    return bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4, 5]), "allreduce").schedule(nbytes=1 << 20, protocol="simple", max_channels=4)


def _run(seed: int, mode: str, program=None, **options) -> bool:
    """Whether the result is right."""
    program = program or _program()
    inputs = integers(program.nranks, 515, seed)
    layer = EmulatedDevices(seed, mode)
    with cuda.CudaExecutor(program, layer=layer, arch="sm_80", threads=32, max_count=515, chunk_bytes=64, **options) as executor:
        outputs = executor.run(inputs)
    return all((o == sum(inputs)).all() for o in outputs)


@pytest.mark.parametrize(
    ("pattern", "replacement", "program"),
    [
        pytest.param(r"st\.release\.sys", "st.relaxed.sys", None, id="publish without release"),
        pytest.param(r"ld\.acquire\.sys", "ld.relaxed.sys", None, id="look without acquire"),
        pytest.param(r"st\.release\.sys", "st.release.cta", None, id="release of too small a scope"),
        pytest.param(r"bar\.sync\s+0;|barrier\.sync\s+0;", "", None, id="no barrier before the signal"),
        pytest.param(r"st\.release\.gpu", "st.relaxed.gpu", "split root", id="progress without release"),
        pytest.param(r"st\.release\.gpu", "st.release.cta", "relay", id="progress of too small a scope"),
    ],
)
def test_a_missing_order_is_caught(pattern, replacement, program, monkeypatch):
    ptx, hits = re.subn(pattern, replacement, kernel_ptx("sm_80"))
    assert hits, f"{pattern} does not occur in the kernel's PTX"
    monkeypatch.setattr(cuda, "kernel_ptx", lambda *variant, **options: ptx)
    caught = 0
    for seed in range(8):
        try:
            caught += not _run(seed, "race", HANDMADE.get(program), timeout_s=1)
        except (load_ptxrun().PtxError, WaitTimeout):
            caught += 1
    assert caught == 8, f"only {caught} of 8 race-mode runs noticed"


def test_a_wait_ends_and_says_who_was_missing(monkeypatch):
    """Rank 3's kernel is never launched."""
    monkeypatch.setattr(cuda.CudaExecutor, "_launch", _all_but_rank_3(cuda.CudaExecutor._launch))
    # The clock of the emulator counts instructions: 5e-4 s are 500,000 of them.
    with pytest.raises(WaitTimeout, match=r"rank 3 \(gpu5\): waited for, and left no word(.|\n)*rank \d \(gpu\d\), channel \d+.*waiting for chunk 1 of c\d+ from rank"):
        _run(0, "sc", timeout_s=5e-4)


def _all_but_rank_3(launch):
    return lambda self, record, rank: None if rank == 3 else launch(self, record, rank)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_that_is_claimed_compiles_and_runs(arch):
    ptx = kernel_ptx(arch)
    assert f".target {arch}" in ptx
    # Slots change while the kernel runs: the read-only path must not be used.
    assert "ld.global.nc" not in ptx
    assert ("ld.acquire.sys" in ptx) == (arch != "sm_60"), "sm_60 has no acquire loads; all others use them"
    inputs = integers(4, 203, 1)
    with cuda.CudaExecutor(_program(), layer=EmulatedDevices(1, "race"), arch=arch, threads=32, max_count=203, chunk_bytes=64) as executor:
        assert all((o == sum(inputs)).all() for o in executor.run(inputs))
