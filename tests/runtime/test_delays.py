"""Every rank held up at random wherever it looks at what another publishes, or publishes something, call after call.

The host executor, with ranks as threads of a small C++ program; by default a sample of seeds, with ``-m slow`` 1,000 for each
program and under the thread sanitizer too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from runtime.image import BASE, make_image
from runtime.oracle import assert_outputs, make_inputs

import blinkcoll as bc
from blinkcoll.packing import make_plan
from blinkcoll.schedules import (
    lower,
    lower_both_ways,
    lower_direct,
    lower_one_shot,
    lower_rings,
    lower_star,
    lower_two_shot,
)
from blinkcoll.topology import host_topology

SOURCE = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to build with"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the image's address is chosen for x86-64"),
]


def _programs():
    """By name, with as few slots as each can do with."""
    hosts = host_topology(3)
    yield "one-shot", lower_one_shot(hosts, slots=1)
    yield "two-shot", lower_two_shot(hosts, slots=1)
    yield "two-shot, staged", lower_two_shot(hosts, slots=2, staged=True)
    yield "star", lower_star(hosts, "broadcast", 1, slots=1)
    yield "everybody to everybody", lower(make_plan(hosts, "allgather"), slots=1)
    yield "ring", lower_rings(hosts, [[0, 1, 2]], slots=2)
    part = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    for collective, root in (("allreduce", None), ("broadcast", 1), ("reduce", 2), ("allgather", None), ("alltoall", None)):
        yield f"dgx1 {collective}", bc.schedule(bc.plan(part, collective, root=root), nbytes=1 << 20, protocol="simple")
    for collective in ("allreduce", "reduce", "broadcast", "allgather", "reducescatter", "gather", "scatter", "alltoall"):
        yield f"direct {collective}", lower_direct(hosts, collective, 1 if collective in ("reduce", "broadcast", "gather", "scatter") else None)
    for collective in ("broadcast", "gather", "scatter", "allgather"):
        yield f"both ways {collective}", lower_both_ways(hosts, collective, 1 if collective in ("broadcast", "gather", "scatter") else None, pieces=2)


PROGRAMS = dict(_programs())
#: Where slots have counters of their own; those of direct programs carry nothing.
HEADED = [name for name, program in PROGRAMS.items() if program.carrying]


@pytest.fixture(scope="module")
def binaries(tmp_path_factory):
    """A sanitizer (or none) to a binary, built on first use; ``weakened``: with publish() before the data is surely there."""
    folder = tmp_path_factory.mktemp("delayed")
    built: dict[str, Path] = {}

    def compiled(kind: str, csrc: Path, sources: list[Path], target: Path, *options: str) -> Path:
        flags = ["-fsanitize=thread"] if kind == "tsan" else []
        subprocess.run(["g++", "-std=c++17", "-g", "-O1", "-pthread", "-ffp-contract=off", "-DBC_DELAYS", *flags, f"-I{csrc}", *map(str, sources), *options, "-o", str(target)], check=True)
        return target

    def build(kind: str) -> Path:
        if kind not in built:
            csrc = SOURCE / "csrc"
            if kind == "weakened":  # publishes one chunk more than there is
                csrc = folder / "csrc"
                shutil.copytree(SOURCE / "csrc", csrc)
                text = (csrc / "host" / "platform.h").read_text()
                assert text.count("raise(word, value, fenced_);") == 1
                (csrc / "host" / "platform.h").write_text(text.replace("raise(word, value, fenced_);", "raise(word, value + 1, fenced_);"))
            arithmetic = "arithmetic" + ("-tsan" if kind == "tsan" else "")
            if arithmetic not in built:  # what takes the compiler longest, and knows of no delays
                built[arithmetic] = compiled(kind, csrc, [SOURCE / "csrc" / "host" / "reduce_avx2.cpp"], folder / f"{arithmetic}2.o", "-c")
                compiled(kind, csrc, [SOURCE / "csrc" / "host" / "reduce_avx512.cpp"], folder / f"{arithmetic}512.o", "-c")
                compiled(kind, csrc, [SOURCE / "csrc" / "host" / "movers.cpp"], folder / f"{arithmetic}.o", "-c")
            sources = [csrc / "host" / name for name in ("run.cpp", "board.cpp", "farmovers.cpp")] + [SOURCE / "tests" / "csrc" / "delayed_ranks.cpp"]
            built[kind] = compiled(kind, csrc, [*sources, *folder.glob(f"{arithmetic}[.25]*o")], folder / kind)
        return built[kind]

    return build


def run(binary: Path, folder: Path, program, calls: int, seed: int, timeout_s: float, patience_s: float = 60.0, headed_bytes: int = 0, skewed: bool = False, spots: int = 1) -> None:
    """So many calls, each with delays of its own; the last result is checked against numpy.

    ``headed_bytes``: chunks are so large, and slots have counters in front; ``skewed``: data in slots begin like what they are copied from;
    ``spots``: and have room for so many chunks.
    """
    count = 303
    inputs = make_inputs(program.collective, program.root, program.nranks, count, lambda rank, size: np.random.default_rng([seed, rank]).integers(-99, 99, size).astype(np.float32))
    chunk_bytes = headed_bytes or (48 if skewed else 64 if program.carrying else 1 << 30)
    image = make_image(folder, program, inputs, chunk_bytes=chunk_bytes, in_place=False, timeout_s=patience_s, headed=headed_bytes > 0, skewed=skewed, spots=spots)
    outputs = [str(v) for at, nbytes in image.outputs for v in (BASE + at, nbytes)]
    done = subprocess.run([binary, image.path, str(image.nranks), str(calls), str(seed), *outputs], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-3000:]}"
    assert_outputs(program.collective, program.root, inputs, image.results(), lambda arrays: np.sum(arrays, axis=0))
    image.path.unlink()


@pytest.mark.parametrize("name", PROGRAMS)
def test_delays_change_nothing(name, binaries, tmp_path):
    run(binaries("plain"), tmp_path, PROGRAMS[name], calls=60, seed=1000, timeout_s=120)


@pytest.mark.parametrize("nbytes", [32, 64])
@pytest.mark.parametrize("name", ["one-shot", "two-shot, staged", "dgx1 broadcast"])
def test_delays_change_nothing_where_slots_have_their_own_counters(name, nbytes, binaries, tmp_path):
    """Chunks of 32 bytes lie beside the counter, larger ones behind it."""
    run(binaries("plain"), tmp_path, PROGRAMS[name], calls=60, seed=1000, timeout_s=120, headed_bytes=nbytes)


@pytest.mark.parametrize("name", ["one-shot", "two-shot, staged", "ring", "dgx1 broadcast"])
def test_delays_change_nothing_where_data_begin_anywhere_in_slots(name, binaries, tmp_path):
    run(binaries("plain"), tmp_path, PROGRAMS[name], calls=60, seed=1000, timeout_s=120, skewed=True, spots=3)


@pytest.mark.slow
@pytest.mark.parametrize("spots", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "tsan"])
@pytest.mark.parametrize("name", HEADED)
def test_a_thousand_seeds_of_delays_change_nothing_where_data_begin_anywhere_in_slots(name, kind, spots, binaries, tmp_path):
    run(binaries(kind), tmp_path, PROGRAMS[name], calls=1000, seed=30_000, timeout_s=900, skewed=True, spots=spots)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "tsan"])
@pytest.mark.parametrize("nbytes", [32, 64])
@pytest.mark.parametrize("name", HEADED)
def test_a_thousand_seeds_of_delays_change_nothing_where_slots_have_their_own_counters(name, nbytes, kind, binaries, tmp_path):
    run(binaries(kind), tmp_path, PROGRAMS[name], calls=1000, seed=20_000, timeout_s=900, headed_bytes=nbytes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "tsan"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_thousand_seeds_of_delays_change_nothing(name, kind, binaries, tmp_path):
    run(binaries(kind), tmp_path, PROGRAMS[name], calls=1000, seed=10_000, timeout_s=900)


def test_what_is_published_too_early_is_noticed(binaries, tmp_path):
    binary = binaries("weakened")
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        run(binary, tmp_path, PROGRAMS["two-shot"], calls=300, seed=0, timeout_s=60, patience_s=2.0)
