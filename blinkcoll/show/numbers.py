"""Exact rates as people read them."""

from __future__ import annotations

from fractions import Fraction


def gb_s(rate: Fraction) -> str:
    """``60``, ``22.5``, or ``480/7 (68.57)`` where no short decimal is exact."""
    if rate.denominator == 1:
        return str(rate.numerator)
    if 1000 % rate.denominator == 0:
        return f"{float(rate):g}"
    return f"{rate} ({float(rate):.2f})"


def count(n: int, noun: str) -> str:
    """``1 tree``, ``2 trees``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def size_text(nbytes: int) -> str:
    """``8 B``, ``64 KiB``, ``1 GiB``; one decimal where it is no whole number of the unit."""
    unit = min(max(nbytes, 1).bit_length() - 1, 30) // 10
    value = nbytes / (1 << 10 * unit)
    return f"{value:.0f} {_UNITS[unit]}" if value == int(value) else f"{value:.1f} {_UNITS[unit]}"


_UNITS = ("B", "KiB", "MiB", "GiB")
