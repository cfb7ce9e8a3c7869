"""The command line: one command a file. Results on stdout, diagnostics on stderr; exit 1 failed, 2 usage."""

from __future__ import annotations

import atexit
import gc
import os
import sys

import typer

from .. import __version__
from ..errors import BlinkcollError
from . import topo
from .bench import bench
from .plan import plan
from .probe import probe
from .show import show
from .simulate import simulate
from .status import status
from .verify import verify

app = typer.Typer(
    name="blinkcoll", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Topology-aware collectives: plan, prove, simulate and run them.",
)  # fmt: skip
app.command()(bench)
app.command()(plan)
app.command()(simulate)
app.command()(probe)
app.command()(verify)
app.command()(show)
app.command()(status)
app.add_typer(topo.app, name="topo")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; errors that blinkcoll raises on purpose are one line, not a traceback."""
    # Plans and programs are many small objects without cycles: looking for cycles as often as Python does took an eighth of bench's
    # time, and looking through what is imported a part of the rest.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # comes with HiGHS, multiplies nothing here, and its threads wait by spinning
    gc.freeze()
    gc.set_threshold(500_000, 50, 1000)
    atexit.register(gc.freeze)  # or Python looks for cycles once more as it ends
    try:
        app()
    except BlinkcollError as error:
        sys.stderr.write(f"blinkcoll: {error}\n")
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe has gone: not an error of ours
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        sys.stderr.write(f"blinkcoll: {error.filename or 'output'}: {error.strerror}\n")
        sys.exit(1)
