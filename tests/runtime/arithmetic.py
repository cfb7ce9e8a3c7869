"""Reductions by numpy, in the order of sources that a program gives, for every dtype and operation the executors have."""

from __future__ import annotations

import numpy as np

REALS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
PAIRS = [
    *((d, op) for d in REALS for op in ("sum", "prod", "min", "max", "avg", "premul_sum")),
    *((d, op) for d in INTEGERS for op in ("sum", "prod", "min", "max", "band", "bor", "bxor", "avg")),
    *(("bool", op) for op in ("sum", "prod", "min", "max", "band", "bor", "bxor")),
]
FACTORS = (0.5, -1.25, 3.0, 0.1, 2.0, 1.0, -0.3, 7.0)


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """float32 to bfloat16, to nearest, ties to even, by exact comparison of the two neighbours in float64."""
    down = values.view(np.uint32) & np.uint32(0xFFFF0000)
    up = down + np.uint32(0x10000)
    low, high = down.view(np.float32).astype(np.float64), up.view(np.float32).astype(np.float64)
    exact = values.astype(np.float64)
    to_low, to_high = np.abs(exact - low), np.abs(high - exact)
    even = (down >> 16) % 2 == 0
    return np.where((to_low < to_high) | ((to_low == to_high) & even), down >> 16, up >> 16).astype(np.uint16)


def make_input(dtype: str, rank: int, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, rank])
    if dtype == "bool":
        return rng.integers(0, 2, size).astype(np.bool_)
    if dtype in INTEGERS:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)
    values = rng.standard_normal(size) * 10.0 ** rng.integers(-2, 3, size)
    return bfloat16_bits(values.astype(np.float32)) if dtype == "bfloat16" else values.astype(dtype)


def _wide(dtype: str, array: np.ndarray) -> np.ndarray:
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype == "float16" else array


def _narrow(dtype: str, array: np.ndarray) -> np.ndarray:
    return bfloat16_bits(array) if dtype == "bfloat16" else array.astype(dtype)


def _pair(dtype: str, op: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if dtype == "bool":
        table = {"sum": np.logical_or, "bor": np.logical_or, "max": np.logical_or, "bxor": np.logical_xor}
        return table.get(op, np.logical_and)(a, b)
    table = {"prod": np.multiply, "min": np.minimum, "max": np.maximum, "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}
    return table.get(op, np.add)(a, b)


def reduce_as(tree, dtype: str, op: str, inputs: list[np.ndarray]) -> np.ndarray:
    """The sum that `tree` writes down: a rank, or a tuple of such whose values are combined in order in one step.

    A step takes values up as float32 (half precision) and rounds once, when it stores.
    """
    with np.errstate(all="ignore"):
        total = _step(tree, dtype, op, inputs, len(inputs))
        if op == "avg":
            wide = _wide(dtype, total) if dtype not in ("float16", "bfloat16") else total
            if dtype in INTEGERS:
                quotient = np.abs(wide.astype(object)) // len(inputs) * np.where(wide < 0, -1, 1)
                return quotient.astype(dtype)
            total = wide / wide.dtype.type(len(inputs))
        return _narrow(dtype, total)


def _step(tree, dtype, op, inputs, n):
    total = None
    for part in tree:
        if isinstance(part, tuple):
            value = _wide(dtype, _narrow(dtype, _step(part, dtype, op, inputs, n)))
        else:
            value = _wide(dtype, inputs[part])
            if op == "premul_sum":
                value = value * value.dtype.type(FACTORS[part])
        total = value if total is None else _pair(dtype, op, total, value)
    return total
