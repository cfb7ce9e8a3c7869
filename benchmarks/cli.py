"""How long the first command takes: ``python benchmarks/cli.py``. Median of five, each a new process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import blinkcoll'": [sys.executable, "-c", "import blinkcoll"],
    "blinkcoll bench --topo dgx1-v100": [str(Path(sys.executable).parent / "blinkcoll"), "bench", "--topo", "dgx1-v100"],
    "blinkcoll plan --topo dgx1-v100": [str(Path(sys.executable).parent / "blinkcoll"), "plan", "--topo", "dgx1-v100"],
}


def main() -> None:
    for name, command in COMMANDS.items():
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")
            times.append(time.perf_counter() - began)
        print(f"{name:<36} {statistics.median(times):6.3f} s  ({min(times):.3f} to {max(times):.3f})")


if __name__ == "__main__":
    main()
