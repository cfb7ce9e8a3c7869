"""What the documents show is what the product prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import blinkcoll as bc
from blinkcoll.schedules import encode, program_text

ROOT = Path(__file__).resolve().parent.parent


def test_the_architecture_page_shows_the_real_program():
    program = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").schedule(nbytes=64 << 20, max_channels=2)
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert program_text(program) in page
    assert f"`encode` makes {len(encode(program))} bytes" in page
    assert f"chunks of {program.chunk_bytes:,} bytes" in page
    for record in bc.simulate(program, 64 << 20, trace=True).trace:
        if record.iteration == 5:
            assert f"| {record.start_us:.1f} | {record.end_us:.1f} |" in page


def test_the_readme_shows_the_real_output():
    command = [str(Path(sys.executable).parent / "blinkcoll"), "bench", "--topo", "dgx1-v100", "--gpus", "0,1,4", "-b", "64K", "-f", "8"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed in (ROOT / "README.md").read_text(encoding="utf-8")
