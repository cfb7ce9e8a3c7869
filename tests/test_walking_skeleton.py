"""One chunk's way from a topology file to three executors, in one test that can be read from top to bottom."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from emulator import EmulatedDevices, load_ptxrun

import blinkcoll as bc
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import encode, program_text
from blinkcoll.simulator.baselines import baseline_program


def test_from_a_layout_to_the_same_sums_on_three_executors():
    load_ptxrun()

    # The machine, and the part of it that the scheduler gave us. Rank 0 is GPU 0, rank 1 GPU 1, rank 2 GPU 4.
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])

    # No ring of NVLinks joins these three (1 and 4 share no link), so a ring goes over PCIe. A tree does not have to.
    plan = bc.plan(topology, "allreduce")
    assert plan.rate == plan.bound == Fraction(20)
    plan.check()
    plan.certificate.check(topology)

    # Lowered to what each rank executes; verified; the same as text, JSON and bytes.
    program = plan.schedule(nbytes=64 << 20)
    bc.verify(program)
    assert "reduce f · input + slot c0 + slot c1 ÷ d → output, slot c2, slot c3" in program_text(program)
    assert bc.Program.from_json(program.to_json()) == program
    code = encode(program)

    # Simulated, beside a ring in rank order at the same rates.
    ours = bc.simulate(program, 64 << 20)
    ring = bc.simulate(baseline_program("baidu-ring", topology, "allreduce", None, 64 << 20), 64 << 20)
    assert 0.95 * 20 < ours.algbw <= 20
    assert ring.algbw < ours.algbw / 3

    # The same bytes on three executors: threads, processes, and the CUDA kernel's PTX in an emulator.
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(1003).astype(np.float32) for _ in range(3)]
    expected = (inputs[0] + inputs[1]) + inputs[2]  # the order of the sources in rank 0's step
    common = {"max_count": 1003, "chunk_bytes": 512}
    for executor in (
        ThreadExecutor(program, **common),
        ProcessExecutor(program, **common),
        CudaExecutor(program, layer=EmulatedDevices(seed=1, mode="weak"), arch="sm_70", threads=64, **common),
    ):
        with executor:
            assert executor.code == code and executor.program_hash == program.hash
            for output in executor.run(inputs):
                assert np.array_equal(output.view(np.uint32), expected.view(np.uint32))
