"""What a call word holds, in words; the bits are those of ``csrc/host/callword.h``, a word for a call."""

from __future__ import annotations

from .launch import DTYPES

#: Numbers of ``enum CollectiveCode``.
COLLECTIVES = {
    "barrier": 1, "broadcast": 2, "reduce": 3, "allreduce": 4, "allgather": 5, "reducescatter": 6, "gather": 7, "scatter": 8, "alltoall": 9,
    "sendrecv": 10, "alltoallv": 11,
}  # fmt: skip
_METHODS = {"allreduce": "all_reduce", "allgather": "all_gather", "reducescatter": "reduce_scatter", "alltoall": "all_to_all", "alltoallv": "all_to_all"}
_REDUCING = {"reduce", "allreduce", "reducescatter"}
_OPS = ("sum", "prod", "min", "max", "band", "bor", "bxor", "avg", "premul_sum")
_OPAQUE = ("bytes", "2-byte elements", "4-byte elements", "8-byte elements", "16-byte elements")
UNKNOWN_COUNT = (1 << 42) - 1


def call_base(collective: str, root: int | None) -> int:
    """What is the same in all calls of a collective with a root; the rest each call adds (``call_word`` of the header)."""
    return COLLECTIVES[collective] | (0 if root is None else root + 1) << 12


def describe(word: int) -> str:
    """A call as its caller would write it, with how many elements of what: ``all_reduce(1000 x float32, sum)``.

    The count is the whole collective's: of all ranks' parts where each has a part.
    """
    code, op, dtype, root, count = word & 15, word >> 4 & 15, word >> 8 & 15, (word >> 12 & 1023) - 1, word >> 22
    name = next((name for name, number in COLLECTIVES.items() if number == code), None)
    if name is None:
        return "no call" if word == 0 else f"an unknown call ({word:#x})"
    said = ["..."] if count == UNKNOWN_COUNT and name != "barrier" else []  # it was being set up
    if count != UNKNOWN_COUNT and name != "barrier":
        said.append(f"{count} x {_dtype(dtype)}")
        if name in _REDUCING:
            said.append(_OPS[op] if op < len(_OPS) else f"operation {op}")
    if root >= 0:
        said.append(f"root {root}")
    return f"{_METHODS.get(name, name)}({', '.join(said)})"


def _dtype(number: int) -> str:
    if number == 0:
        return _OPAQUE[0]
    if number > len(DTYPES):
        return _OPAQUE[number - len(DTYPES)]
    return list(DTYPES)[number - 1]
