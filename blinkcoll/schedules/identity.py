"""Caches of what is computed once a program: by the objects that it is made of, not by what they say.

Comparing programs, or hashing their content, takes as long as most of what there is to compute. A program's copies with
another ``chunk_bytes`` share those objects.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from .program import Program

P = ParamSpec("P")
R = TypeVar("R")

#: Programs that a cache keeps.
_MOST = 256


class Identity:
    """A program as a key."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.parts: tuple[object, ...] = (program.ranks, program.connections, program.weights, program.topology)
        self.values: tuple[object, ...] = (program.nshards, program.collective)

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.parts)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity) or self.values != other.values:
            return False
        return all(mine is theirs for mine, theirs in zip(self.parts, other.parts, strict=True))


class ButProtocols(Identity):
    """A program as a key for what does not depend on its connections' protocols."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.parts = (program.ranks, program.weights, program.topology)
        self.values += tuple((c.src, c.dst, c.path, c.slots, c.transport) for c in program.connections)


def once_a_program(
    function: Callable[Concatenate[Program, P], R], key: type[Identity] = Identity
) -> Callable[Concatenate[Program, P], R]:
    """``function`` with its answers kept, for the programs asked for last; other arguments are compared as they are."""

    @lru_cache(maxsize=_MOST)
    def kept(identity: Identity, *args: Any, **kwargs: Any) -> R:
        return function(identity.program, *args, **kwargs)

    @wraps(function)
    def asked(program: Program, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return kept(key(program), *args, **kwargs)  # type: ignore[arg-type]  # P's arguments are hashable: they are compared

    return asked
