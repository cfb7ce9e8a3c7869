"""Intervals cut into segments: how parts that are planned one by one (roots, ways, trees) become parts that agree in all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
#: Lengths and what holds along them, one after the other.
Line = list[tuple[Fraction, T]]


class Supply(Generic[T]):
    """A line that is used up from its beginning."""

    def __init__(self, line: Iterable[tuple[Fraction, T]]) -> None:
        self.left: Line[T] = list(line)

    def take(self, length: Fraction) -> Line[T]:
        """The next ``length`` of it."""
        taken: Line[T] = []
        while length > 0:
            whole, value = self.left.pop(0)
            part = min(whole, length)
            taken.append((part, value))
            length -= part
            if whole > part:
                self.left.insert(0, (whole - part, value))
        return taken


def overlay(lines: Sequence[Line[T]]) -> Line[tuple[T, ...]]:
    """Lines of one length cut wherever one of them is: what holds along each piece, by line."""
    supplies = [Supply(line) for line in lines]
    pieces: Line[tuple[T, ...]] = []
    while all(supply.left for supply in supplies):
        length = min(supply.left[0][0] for supply in supplies)
        pieces.append((length, tuple(supply.take(length)[0][1] for supply in supplies)))
    assert not any(supply.left for supply in supplies), "lines of unequal lengths"
    return pieces


def paired(first: Line[A], second: Line[B]) -> Line[tuple[A, B]]:
    """Two lines of one length cut wherever one of them is."""
    a, b, pieces = Supply(first), Supply(second), list[tuple[Fraction, tuple[A, B]]]()
    while a.left and b.left:
        length = min(a.left[0][0], b.left[0][0])
        pieces.append((length, (a.take(length)[0][1], b.take(length)[0][1])))
    assert not a.left and not b.left, "lines of unequal lengths"
    return pieces
