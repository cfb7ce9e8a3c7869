"""The host executor and the kernel's own source, built for the host under sanitizers and run on real programs.

Python prepares a memory image for a fixed address: launch records, arenas, data. A small C++ program maps it, runs all
ranks at once and leaves the results in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from runtime.handmade import HANDMADE
from runtime.image import make_image
from runtime.inputs import assert_result, integers
from runtime.oracle import assert_outputs

import blinkcoll as bc
from blinkcoll.schedules import lower_nvls, lower_rings

SOURCE = Path(__file__).resolve().parents[2]
BUILDS = {"tsan": ["-fsanitize=thread"], "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]}

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to build with sanitizers"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the image's address is chosen for x86-64"),
]


@pytest.fixture(scope="module")
def binaries(tmp_path_factory):
    """(what, sanitizer) to a binary, built on first use."""
    folder = tmp_path_factory.mktemp("sanitized")
    built: dict[tuple[str, str], Path] = {}

    def build(what: str, sanitizer: str) -> Path:
        if (what, sanitizer) not in built:
            target = folder / f"{what}-{sanitizer}"
            csrc = SOURCE / "csrc"
            command = ["g++", "-std=c++17", "-g", "-O1", "-pthread", "-ffp-contract=off", *BUILDS[sanitizer], f"-I{csrc}", f"-I{SOURCE / 'tests' / 'csrc'}"]
            command += ["-DKERNEL_ON_HOST"] if what == "kernel" else [*map(str, (csrc / "host").glob("*.cpp"))]
            subprocess.run([*command, str(SOURCE / "tests" / "csrc" / "run_image.cpp"), "-o", str(target)], check=True)
            built[what, sanitizer] = target
        return built[what, sanitizer]

    return build


def run_image(binary: Path, folder: Path, program, inputs: list[np.ndarray], *, threads: int, **options) -> list[np.ndarray]:
    image = make_image(folder, program, inputs, **options)
    done = subprocess.run([binary, image.path, str(image.nranks), str(threads)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-6000:]}"
    outputs = image.results()
    image.path.unlink()
    return outputs


@pytest.mark.parametrize("gpus", [[0, 1, 4], [0, 2, 4, 6], [0, 1, 2, 3, 4, 5]], ids=str)
@pytest.mark.parametrize("sanitizer", BUILDS)
@pytest.mark.parametrize("what", ["host", "kernel"])
def test_trees_under_sanitizers(what, sanitizer, gpus, binaries, tmp_path):
    topology = bc.load_topology("dgx1-v100").subset(gpus)
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="simple")
    for seed, in_place in ((0, False), (1, True)):
        inputs = integers(topology.nranks, 1021, seed)
        outputs = run_image(binaries(what, sanitizer), tmp_path, program, inputs, chunk_bytes=128, threads=3, in_place=in_place)
        assert_result("allreduce", None, inputs, outputs, f"in place {in_place}")


@pytest.mark.parametrize("sanitizer", BUILDS)
@pytest.mark.parametrize(("what", "protocol"), [("host", "LL"), ("kernel", "LL"), ("kernel", "LL128")])
def test_lines_under_sanitizers(what, protocol, sanitizer, binaries, tmp_path):
    """The kernel's movers of lines; the host executor runs the same bytes by the simple protocol."""
    topology = bc.load_topology("dgx1-v100").subset([0, 2, 4, 6])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 10, protocol=protocol)
    for count, in_place in ((1021, False), (1021, True), (3, True)):
        inputs = integers(topology.nranks, count, count)
        outputs = run_image(binaries(what, sanitizer), tmp_path, program, inputs, chunk_bytes=512, threads=8 if protocol == "LL128" else 3, in_place=in_place)
        assert_result("allreduce", None, inputs, outputs, f"count {count}, in place {in_place}")


@pytest.mark.parametrize("name", HANDMADE)
@pytest.mark.parametrize("sanitizer", BUILDS)
@pytest.mark.parametrize("what", ["host", "kernel"])
def test_handmade_programs_under_sanitizers(what, sanitizer, name, binaries, tmp_path):
    program = HANDMADE[name]
    inputs = integers(program.nranks, 301, 0)
    outputs = run_image(binaries(what, sanitizer), tmp_path, program, inputs, chunk_bytes=64, threads=3, in_place=False)
    assert_result(program.collective, program.root, inputs, outputs, name)


@pytest.mark.parametrize("sanitizer", BUILDS)
def test_slots_whose_data_begin_anywhere_under_sanitizers(sanitizer, binaries, tmp_path):
    for name, program in HANDMADE.items():
        inputs = integers(program.nranks, 301, 0)
        outputs = run_image(binaries("host", sanitizer), tmp_path, program, inputs, chunk_bytes=48, threads=1, in_place=False, skewed=True, spots=3)
        assert_result(program.collective, program.root, inputs, outputs, name)


@pytest.mark.parametrize("chunk_bytes", [32, 64])
@pytest.mark.parametrize("sanitizer", BUILDS)
def test_slots_with_counters_of_their_own_under_sanitizers(sanitizer, chunk_bytes, binaries, tmp_path):
    """Whether data lie beside the counter or behind it."""
    for name, program in HANDMADE.items():
        inputs = integers(program.nranks, 301, 0)
        outputs = run_image(binaries("host", sanitizer), tmp_path, program, inputs, chunk_bytes=chunk_bytes, threads=1, in_place=False, headed=True)
        assert_result(program.collective, program.root, inputs, outputs, name)


@pytest.mark.parametrize("sanitizer", BUILDS)
@pytest.mark.parametrize("what", ["host", "kernel"])
def test_rings_under_sanitizers(what, sanitizer, binaries, tmp_path):
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 2, 3, 4])
    program = lower_rings(topology, [[0, 1, 2, 3, 4]], slots=2)
    inputs = integers(5, 777, 0)
    outputs = run_image(binaries(what, sanitizer), tmp_path, program, inputs, chunk_bytes=64, threads=4, in_place=False)
    assert_result("allreduce", None, inputs, outputs, "ring")


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "reduce"])
@pytest.mark.parametrize("sanitizer", BUILDS)
@pytest.mark.parametrize("what", ["host", "kernel"])
def test_multicast_under_sanitizers(what, sanitizer, collective, registered, binaries, tmp_path):
    """The kernel by its multimem path, but for the ends that fill no 16 bytes; the host rank by rank."""
    root = None if collective == "allreduce" else 1
    plan = bc.plan(bc.load_topology("hgx-h100").subset([0, 1, 2]), collective, root=root, method="nvls")
    program = lower_nvls(plan, max_channels=3, slots=2, registered=registered)
    for seed, in_place in ((0, False), (1, True)):
        inputs = integers(3, 303, seed)
        outputs = run_image(binaries(what, sanitizer), tmp_path, program, inputs, chunk_bytes=128, threads=3, in_place=in_place, mapped=what == "kernel")
        assert_result(collective, root, inputs, outputs, f"in place {in_place}")


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", ["allgather", "reducescatter"])
@pytest.mark.parametrize("what", ["host", "kernel"])
def test_shards_that_are_no_multiple_of_16_bytes_under_sanitizers(what, collective, registered, binaries, tmp_path):
    """Shards of 303 floats begin 4, 8 and 12 bytes beside what vectors need, and ranks' own shards elsewhere than those of all."""
    plan = bc.plan(bc.load_topology("hgx-h100").subset([0, 1, 2]), collective, method="nvls")
    program = lower_nvls(plan, max_channels=3, slots=2, registered=registered)
    for seed, in_place in ((0, False), (1, True)):
        inputs = integers(3, 303 if collective == "allgather" else 909, seed)
        outputs = run_image(binaries(what, "asan"), tmp_path, program, inputs, chunk_bytes=128, threads=3, in_place=in_place, mapped=what == "kernel")
        assert_outputs(collective, None, inputs, outputs, lambda arrays: np.sum(arrays, axis=0, dtype=np.float64).astype(np.float32), f"in place {in_place}")


@pytest.mark.parametrize("sanitizer", BUILDS)
def test_boards_under_sanitizers(sanitizer, tmp_path):
    """Ranks that call, look and fail at once; four threads, 20 000 calls."""
    csrc, binary = SOURCE / "csrc", tmp_path / "boards"
    command = ["g++", "-std=c++17", "-g", "-O1", "-pthread", *BUILDS[sanitizer], f"-I{csrc}", str(csrc / "host" / "board.cpp")]
    subprocess.run([*command, str(SOURCE / "tests" / "csrc" / "boards.cpp"), "-o", str(binary)], check=True)
    done = subprocess.run([binary], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_thread_sanitizer_would_notice(binaries, tmp_path):
    """The same source with release and acquire weakened is reported, so silence means something."""
    weakened = tmp_path / "csrc"
    shutil.copytree(SOURCE / "csrc", weakened)
    platform = weakened / "host" / "platform.h"
    text = platform.read_text()
    assert "__ATOMIC_RELEASE" in text and "__ATOMIC_ACQUIRE" in text
    platform.write_text(text.replace("__ATOMIC_RELEASE", "__ATOMIC_RELAXED").replace("__ATOMIC_ACQUIRE", "__ATOMIC_RELAXED"))
    binary = tmp_path / "weakened"
    subprocess.run(
        ["g++", "-std=c++17", "-g", "-O1", "-pthread", *BUILDS["tsan"], f"-I{weakened}", *map(str, (weakened / "host").glob("*.cpp")),
         str(SOURCE / "tests" / "csrc" / "run_image.cpp"), "-o", str(binary)], check=True,
    )  # fmt: skip
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="simple")
    with pytest.raises(AssertionError, match="ThreadSanitizer: data race"):
        run_image(binary, tmp_path, program, integers(3, 1021, 0), chunk_bytes=64, threads=1, in_place=False)
