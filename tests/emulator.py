"""The device layer implemented by a PTX emulator, found through BLINKCOLL_PTXRUN (the folder that holds ptxrun.py)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest


def load_ptxrun():
    folder = os.environ.get("BLINKCOLL_PTXRUN")
    if not folder:
        pytest.skip("BLINKCOLL_PTXRUN does not name the folder of the PTX emulator")
    if "ptxrun" not in sys.modules:
        spec = importlib.util.spec_from_file_location("ptxrun", Path(folder) / "ptxrun.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["ptxrun"] = module
        spec.loader.exec_module(module)
    return sys.modules["ptxrun"]


class EmulatedDevices:
    """GPUs of one emulated node: `mode` is sc, weak or race; the seed fixes every interleaving."""

    whole_lines = False  # every thread runs on its own, and stores tear at 8 bytes

    def __init__(self, seed: int, mode: str, max_instructions: int = 2_000_000_000, **options) -> None:
        self.machine = load_ptxrun().Machine(seed, mode, **options)
        self.max_instructions = max_instructions
        self._buffers = {}

    def allocate(self, nbytes, device, name):
        buffer = self.machine.alloc(nbytes, device=device, name=name)
        self._buffers[buffer.addr] = buffer
        return buffer.addr

    def allocate_host(self, nbytes, cpu, name):
        # No emulated device owns it: a number beyond all of them.
        return self.allocate(nbytes, 1000, name)

    def free(self, address):
        self._buffers.pop(address).free()

    def _at(self, address, nbytes):
        for start, buffer in self._buffers.items():
            if start <= address and address + nbytes <= start + buffer.nbytes:
                return buffer.np[address - start : address - start + nbytes]
        raise ValueError(f"{address:#x} + {nbytes} lies in no allocation")

    def write(self, address, data):
        self._at(address, len(data))[:] = np.frombuffer(data, dtype=np.uint8)

    def read(self, address, nbytes):
        return self._at(address, nbytes).tobytes()

    def load(self, ptx):
        return self.machine.load(ptx)

    def launch(self, module, kernel, *, device, grid, block, argument):
        self.machine.launch(module, kernel, grid, block, [argument], device=device)

    def synchronize(self):
        self.machine.run(max_instr=self.max_instructions)
