"""Collectives of host ranks: blinkcoll beside OpenMPI (and gloo, where torch is there) in the same processes.

    python benchmarks/host.py [-n 2] [--collectives allreduce,...] [--sizes 4,1K,64K,1M,16M,64M] [--rounds 7] [--gloo]

needs ``mpirun`` and ``mpi4py``. Rounds of the libraries alternate; the table has medians over rounds of the slowest rank's
time a call, plain numpy float32 arrays, in place where MPI has ``IN_PLACE``. ``ratio`` is the median over rounds of blinkcoll's
time over OpenMPI's. ``floor`` is the time that the bytes that must move take at the rate at which numpy copies just before and after
each round: each rank's output written once and what it is made of read once, all ranks on the cores there are.

Virtual machines move their cores while programs run. With ``--near US`` each round is sorted by whether a 4-byte all-reduce
of blinkcoll takes less than so long before and after it; rounds during which that changed are left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

COLLECTIVES = ("allreduce", "reduce", "broadcast", "allgather", "reducescatter", "gather", "scatter", "alltoall", "barrier")
ROOT = 0
WARM = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2)
    parser.add_argument("--collectives", default=",".join(COLLECTIVES))
    parser.add_argument("--sizes", default="4,1K,64K,1M,16M,64M")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gloo", action="store_true")
    parser.add_argument("--near", type=float, metavar="US", help="report rounds apart in which an all-reduce of 4 bytes takes less, before and after")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    run_under_mpi(options.n, __file__)


def run_under_mpi(n: int, script: str) -> None:
    """The script again, with the same arguments and ``--worker FOLDER``, as n ranks; ends with how they did."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mpirun", "--oversubscribe", "-n", str(n), sys.executable, script, *sys.argv[1:], "--worker", folder]
        if os.geteuid() == 0:
            command.insert(1, "--allow-run-as-root")
        sys.exit(subprocess.run(command).returncode)


def work(options: argparse.Namespace) -> None:
    from mpi4py import MPI

    import blinkcoll as bc

    world = MPI.COMM_WORLD
    comm = bc.Communicator(world.rank, world.size, bc.FileStore(options.worker))
    gloo = start_gloo(options.worker, world) if options.gloo else None
    rate = copy_rate(world)
    if world.rank == 0:
        print(f"# {world.size} ranks on {os.cpu_count()} cores; measured; all ranks together copy {rate:.1f} GB/s ({MPI.Get_library_version().splitlines()[0].split(',')[0]})")
        print(f"# {'collective':>13} {'size':>9} {'blinkcoll us':>13} {'OpenMPI us':>11} {'ratio':>6}" + (f" {'gloo us':>10}" if gloo else "") + f" {'bytes moved':>12} {'floor us':>9} {'rounds':>6}")
    for name in options.collectives.split(","):
        for nbytes in map(size_of, options.sizes.split(",")) if name != "barrier" else (4,):
            measure(name, nbytes, world, comm, gloo, options)
    comm.close()


def measure(name: str, nbytes: int, world, comm, gloo, options: argparse.Namespace) -> None:
    n = world.size
    count = max(nbytes // 4, 1)
    if name in ("allgather", "reducescatter", "gather", "scatter", "alltoall"):
        count = max(count // n, 1) * n
    buffers = buffers_of(count, n)
    calls = {"blinkcoll": ours(name, buffers, comm), "OpenMPI": theirs(name, buffers, world)}
    if gloo is not None and (call := gloo(name, count)) is not None:
        calls["gloo"] = call
    reps = {library: repeats(call, world) for library, call in calls.items()}
    rounds: dict[str, list[tuple[dict[str, float], float]]] = {}
    for number in range(options.rounds):
        before, rate = placement(options, world, comm), copy_rate(world)
        turns = list(calls) if number % 2 == 0 else list(reversed(calls))
        took = {library: timed(calls[library], reps[library], world) for library in turns}
        rate = (rate + copy_rate(world)) / 2
        if placement(options, world, comm) == before:
            rounds.setdefault(before, []).append((took, rate))
    if world.rank == 0:
        for place, kept in sorted(rounds.items()):
            report(name, count * 4, n, place, kept, gloo is not None)
        if not rounds:
            print(f"  {name:>13} {count * 4:>9} cores were moved in every round")


def buffers_of(count: int, n: int) -> tuple[np.ndarray, ...]:
    """The same memory for all. Not zeros: pages of those that were never written are one, and some CPUs write lines of zeros twice as fast (Zen 4, past the caches)."""
    rng = np.random.default_rng(0)
    return tuple(rng.random(c, np.float32) for c in (count, count, count // n))


def report(name: str, nbytes: int, n: int, place: str, rounds: list[tuple[dict[str, float], float]], gloo: bool) -> None:
    us = {library: statistics.median(took[library] for took, _ in rounds) * 1e6 for library in ("blinkcoll", "OpenMPI", "gloo") if library in rounds[0][0]}
    ratio = statistics.median(took["blinkcoll"] / took["OpenMPI"] for took, _ in rounds)
    must, rate = moved(name, nbytes, n), statistics.median(rate for _, rate in rounds)
    row = f"  {name:>13} {nbytes:>9} {us['blinkcoll']:>13.2f} {us['OpenMPI']:>11.2f} {ratio:>6.2f}"
    print(row + (f" {us.get('gloo', float('nan')):>10.2f}" if gloo else "") + f" {must:>12.0f} {must / (rate * 1e3):>9.2f} {len(rounds):>6} {place}", flush=True)


def timed(call: Callable[[], object], reps: int, world) -> float:
    """Seconds a call, of the slowest rank; what a call finds in the caches is what the one before left there."""
    for _ in range(WARM):
        call()
    world.Barrier()
    began = time.perf_counter()
    for _ in range(reps):
        call()
    return world.allreduce((time.perf_counter() - began) / reps, op=_max())


def placement(options: argparse.Namespace, world, comm) -> str:
    """Where the cores are to each other just now, by what a small call takes."""
    if not options.near:
        return ""
    a = np.zeros(1, np.float32)
    once = min(timed(lambda: comm.all_reduce(a), 200, world) for _ in range(3))
    return "near" if once * 1e6 < options.near else "apart"


def moved(name: str, nbytes: int, n: int) -> float:
    """Bytes written by all ranks together, at least: each output once."""
    own = nbytes / n
    return {
        "allreduce": n * nbytes, "reduce": nbytes, "broadcast": (n - 1) * nbytes, "allgather": (n - 1) * nbytes, "reducescatter": nbytes,
        "gather": nbytes - own, "scatter": nbytes - own, "alltoall": n * nbytes, "barrier": 0,
    }[name]  # fmt: skip


def repeats(call: Callable[[], object], world) -> int:
    """As many as take about 30 ms, the same on all ranks."""
    call()
    began = time.perf_counter()
    for _ in range(3):
        call()
    once = world.allreduce((time.perf_counter() - began) / 3, op=_max())
    return max(2, min(5000, int(0.03 / once)))


def _max():
    from mpi4py import MPI

    return MPI.MAX


def ours(name: str, buffers, comm) -> Callable[[], object]:
    a, b, own = buffers
    return {
        "allreduce": lambda: comm.all_reduce(a),
        "reduce": lambda: comm.reduce(a, ROOT),
        "broadcast": lambda: comm.broadcast(a, ROOT),
        "allgather": lambda: comm.all_gather(a),
        "reducescatter": lambda: comm.reduce_scatter(a),
        "gather": (lambda: comm.gather(a, ROOT)) if comm.rank == ROOT else (lambda: comm.gather(own, ROOT)),
        "scatter": (lambda: comm.scatter(a, ROOT)) if comm.rank == ROOT else (lambda: comm.scatter(own, ROOT)),
        "alltoall": lambda: comm.all_to_all(a, b),
        "barrier": comm.barrier,
    }[name]


def theirs(name: str, buffers, world) -> Callable[[], object]:
    from mpi4py import MPI

    a, b, own = buffers
    at_root = world.rank == ROOT
    return {
        "allreduce": lambda: world.Allreduce(MPI.IN_PLACE, a),
        "reduce": (lambda: world.Reduce(MPI.IN_PLACE, a, root=ROOT)) if at_root else (lambda: world.Reduce(a, None, root=ROOT)),
        "broadcast": lambda: world.Bcast(a, root=ROOT),
        "allgather": lambda: world.Allgather(MPI.IN_PLACE, a),
        "reducescatter": lambda: world.Reduce_scatter_block(MPI.IN_PLACE, a),
        "gather": (lambda: world.Gather(MPI.IN_PLACE, a, root=ROOT)) if at_root else (lambda: world.Gather(own, None, root=ROOT)),
        "scatter": (lambda: world.Scatter(a, MPI.IN_PLACE, root=ROOT)) if at_root else (lambda: world.Scatter(None, own, root=ROOT)),
        "alltoall": lambda: world.Alltoall(a, b),
        "barrier": world.Barrier,
    }[name]


def start_gloo(folder: str, world) -> Callable[[str, int], Callable[[], object] | None]:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=world.rank, world_size=world.size)
    torch.set_num_threads(1)

    def make(name: str, count: int) -> Callable[[], object] | None:
        a = torch.zeros(count)
        calls = {
            "allreduce": lambda: dist.all_reduce(a), "reduce": lambda: dist.reduce(a, ROOT), "broadcast": lambda: dist.broadcast(a, ROOT), "barrier": dist.barrier,
        }  # fmt: skip
        return calls.get(name)

    return make


def copy_rate(world) -> float:
    """GB/s that all ranks together copy, each its own 64 MiB, all at once."""
    a, b = np.ones(64 << 20, np.uint8), np.zeros(64 << 20, np.uint8)
    best = 0.0
    for _ in range(5):
        world.Barrier()
        began = time.perf_counter()
        np.copyto(b, a)
        took = world.allreduce(time.perf_counter() - began, op=_max())
        best = max(best, world.size * a.nbytes / took / 1e9)
    return best


def size_of(text: str) -> int:
    return int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)


if __name__ == "__main__":
    main()
