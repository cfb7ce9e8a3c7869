"""Where each rank's input, output and scratch lie, for one call of a collective.

An executor gives a rank three *regions* of memory. A buffer that holds the rank's own shard only is as large as that; the
launch tables take it by the address at which the whole of the data would begin (``csrc/blinkcoll/launch.h``), so steps
address every buffer alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ExecutionError
from ..schedules import Program
from ..schedules.contract import elements, first_element, view

Regions = tuple[int, int, int]


def region_elements(program: Program, rank: int, max_count: int, uneven: bool) -> Regions:
    """The most elements that a rank's input, output and scratch hold; where calls may be uneven, one rank may have all."""
    n, root = program.nranks, program.root
    if rank >= n:
        return 0, 0, max_count  # a relay has no part in the collective
    if uneven:
        size = [0 if view(program.collective, buffer, rank, root) == "none" else max_count for buffer in ("input", "output")]
    else:
        size = [elements(program.collective, buffer, rank, root, n, max_count) for buffer in ("input", "output")]
    return size[0], size[1], max_count


@dataclass(frozen=True)
class RankBuffers:
    """What a rank's buffers hold in a call: how many elements, from which element of the whole on.

    ``shared`` is the region (0 input, 1 output) that both lie in when called in place; None where they are apart.
    """

    input: int
    output: int
    input_first: int
    output_first: int
    shared: int | None

    def addresses(self, regions: Regions, elem_size: int) -> Regions:
        """Input, output and scratch as the launch tables take them."""
        begins = [regions[0] - self.input_first * elem_size, regions[1] - self.output_first * elem_size]
        if self.shared is not None:
            begins = [begins[self.shared]] * 2
        return begins[0], begins[1], regions[2]

    def input_at(self, regions: Regions, elem_size: int) -> int:
        """Where the input's elements are to be put."""
        return self.addresses(regions, elem_size)[0] + self.input_first * elem_size

    def output_at(self, regions: Regions, elem_size: int) -> int:
        """Where the output's elements are to be found."""
        return self.addresses(regions, elem_size)[1] + self.output_first * elem_size


def buffers_of(program: Program, rank: int, count: int, in_place: bool, bounds: Sequence[int] | None = None) -> RankBuffers:
    """A rank's buffers for ``count`` elements in all, where shard s is ``bounds[s]`` to ``bounds[s + 1]`` (None: equal ones)."""
    n, root, name = program.nranks, program.root, program.collective
    if rank >= n:
        return RankBuffers(0, 0, 0, 0, None)
    views = [view(name, buffer, rank, root) for buffer in ("input", "output")]
    shared = None
    if in_place and "none" not in views:
        shared = 1 if views[1] == "whole" else 0
    return RankBuffers(
        input=elements(name, "input", rank, root, n, count, bounds),
        output=elements(name, "output", rank, root, n, count, bounds),
        input_first=first_element(name, "input", rank, root, n, count, bounds),
        output_first=first_element(name, "output", rank, root, n, count, bounds),
        shared=shared,
    )


def check_count(program: Program, count: int, uneven: bool = False) -> None:
    """Shards that are the ranks' own are exactly equal, unless the call says how large they are.

    Raises
    ------
    ExecutionError
        Where ``count`` is negative, beyond 2^40, or no multiple of the number of ranks for a collective with a shard
        a rank.
    """
    if not 0 <= count <= 1 << 40:
        raise ExecutionError(f"count is {count}, expected 0 to 2^40 elements")
    if program.equal_shards and not uneven and count % program.nranks:
        raise ExecutionError(f"{program.collective} of {count} elements: not a multiple of {program.nranks} ranks, each of which has an equal shard; unequal ones need counts")
