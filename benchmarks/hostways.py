"""Each way that calls of host ranks may go, on its own, beside what ranks choose and OpenMPI.

    python benchmarks/hostways.py [-n 2] [--collectives broadcast,...] [--sizes 64K,1M,...] [--rounds 7] [--near US]

needs what host.py does, and tells apart where cores are as that does. Each way has a communicator of its own; turns alternate; medians over
rounds of the slowest rank's time a call, in us.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics

import host

STORES = ("caches", "slots past", "outputs past", "all past", "by size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2)
    parser.add_argument("--collectives", default="allreduce,broadcast,allgather,alltoall,gather")
    parser.add_argument("--sizes", default="64K,1M,16M")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--near", type=float, metavar="US", help="report times apart that were taken while an all-reduce of 4 bytes takes less")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    host.run_under_mpi(options.n, __file__)


def work(options: argparse.Namespace) -> None:
    from mpi4py import MPI

    import blinkcoll as bc

    world = MPI.COMM_WORLD
    small = bc.Communicator(world.rank, world.size, bc.FileStore(f"{options.worker}/small"))
    if world.rank == 0:
        print(f"# {world.size} ranks on {os.cpu_count()} cores; measured; us a call")
    for name in options.collectives.split(","):
        for nbytes in map(host.size_of, options.sizes.split(",")):
            measure(name, nbytes, world, small, f"{options.worker}/{name}{nbytes}", options)
    small.close()


def measure(name: str, nbytes: int, world, small, folder: str, options: argparse.Namespace) -> None:
    count = max(nbytes // 4 // world.size, 1) * world.size
    buffers = host.buffers_of(count, world.size)
    first, labels = communicator(name, 4 * count, buffers, world, f"{folder}-0", 0)
    comms = [first, *(communicator(name, 4 * count, buffers, world, f"{folder}-{way}", way)[0] for way in range(1, len(labels)))]
    comms.append(communicator(name, 4 * count, buffers, world, f"{folder}-chosen", None)[0])
    calls = dict(zip([*labels, "chosen"], (host.ours(name, buffers, comm) for comm in comms), strict=True))
    calls["OpenMPI"] = host.theirs(name, buffers, world)
    reps = {label: host.repeats(call, world) for label, call in calls.items()}
    took: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.rounds):
        for label, call in calls.items():
            place = host.placement(options, world, small)
            once = host.timed(call, reps[label], world) * 1e6
            if host.placement(options, world, small) == place:
                took.setdefault(place, {}).setdefault(label, []).append(once)
    for comm in comms:
        comm.close()
    if world.rank == 0:
        for place, ways in sorted(took.items()):
            print(f"{name:>13} {4 * count:>9} {place:5} " + ", ".join(f"{label} {statistics.median(ways[label]):.1f}" for label in calls if label in ways), flush=True)


def communicator(name: str, nbytes: int, buffers, world, folder: str, way: int | None):
    """One that goes that way at every size that has it (None: that chooses); and what the ways of this size are called."""
    import blinkcoll as bc
    from blinkcoll.runtime import hostprograms

    real, labels = hostprograms._in_all_ways, []

    def planned(*args):
        parts = real(*args)
        if way is None:
            return parts
        groups = [list(group) for _, group in itertools.groupby(parts, key=lambda part: part.most_bytes)]
        labels.extend(label(part) for part in next(group for group in groups if nbytes <= group[0].most_bytes))
        return [group[min(way, len(group) - 1)] for group in groups]

    hostprograms._in_all_ways = planned
    try:
        comm = bc.Communicator(world.rank, world.size, bc.FileStore(folder))
        host.ours(name, buffers, comm)()  # plans
    finally:
        hostprograms._in_all_ways = real
    return comm, world.bcast(labels)


def label(part) -> str:
    if not part.pooled:
        return f"{part.program.algorithm} {'+'.join(map(str, part.program.weights))}"
    return f"slots ({STORES[part.stores]}{', spread' if part.spread else ''})"


if __name__ == "__main__":
    main()
