"""Nobody but the partition says where a chunk lies: with another tiling in its place everything follows.

The tiling put in place is the mirror image: shares and chunks in the reverse order. Then an all-reduce of data must be, bit
for bit, the mirror image of the all-reduce of the data's mirror image; whoever worked out an offset by himself would still
have the old one.
"""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from runtime.test_sanitizers import SOURCE, run_image

import blinkcoll as bc
from blinkcoll._core import Partition
from blinkcoll.runtime.threads import ThreadExecutor

MIRRORED = {
    "    return {from, to - from};\n": "    return {count - to, to - from};\n",
    "    return {whole.offset + begin, left < chunk_elements ? left : chunk_elements};\n": (
        "    u64 length = left < chunk_elements ? left : chunk_elements;\n    return {whole.offset + left - length, length};\n"
    ),
}


def build(folder, what: str, changes: dict[str, str]):
    csrc = folder / "csrc"
    shutil.copytree(SOURCE / "csrc", csrc)
    header = csrc / "blinkcoll" / "partition.h"
    text = header.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    header.write_text(text)
    command = ["g++", "-std=c++17", "-O1", "-pthread", "-ffp-contract=off", f"-I{csrc}", f"-I{SOURCE / 'tests' / 'csrc'}"]
    command += ["-DKERNEL_ON_HOST"] if what == "kernel" else [*map(str, (csrc / "host").glob("*.cpp"))]
    subprocess.run([*command, str(SOURCE / "tests" / "csrc" / "run_image.cpp"), "-o", str(folder / "binary")], check=True)
    return folder / "binary"


@pytest.mark.parametrize("what", ["host", "kernel"])
def test_executors_follow_another_tiling(what, tmp_path):
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 2, 3])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="simple", max_channels=8)
    assert len(set(program.weights)) > 1 or len(program.weights) > 2, "several shares, added up in different orders"
    rng = np.random.default_rng(5)
    inputs = [(rng.standard_normal(1024) * 10.0 ** rng.integers(-4, 5, 1024)).astype(np.float32) for _ in range(4)]
    with ThreadExecutor(program, max_count=1024, chunk_bytes=64) as executor:
        straight = executor.run(inputs)[0]
        mirrored = executor.run([i[::-1].copy() for i in inputs])[0][::-1]
    assert not np.array_equal(straight, mirrored), "the orders of adding up differ from share to share, or this shows nothing"
    outputs = run_image(build(tmp_path, what, MIRRORED), tmp_path, program, inputs, chunk_bytes=64, threads=3, in_place=False)
    assert all(np.array_equal(out.view(np.uint32), mirrored.view(np.uint32)) for out in outputs)


@pytest.mark.parametrize("collective", ["allreduce", "allgather"])
def test_the_simulator_moves_the_partition_s_chunks(collective):
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 2, 3, 4])
    program = bc.plan(topology, collective).schedule(nbytes=1 << 20)
    count = 5 * 9973
    partition = Partition(count, 4, program.nshards, program.weights, 1000, program.equal_shards)
    trace = bc.simulate(program, 4 * count, chunk_bytes=1000, trace=True).trace
    assert len(trace) > 100
    for record in trace:
        step = program.ranks[record.rank][record.channel].steps[record.step]
        assert record.nbytes == 4 * partition.chunk_range(step.shard, step.share, record.iteration)[1]
