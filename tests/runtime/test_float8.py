"""Eight-bit floating point between host ranks: moved as it is, never reduced."""

from __future__ import annotations

import numpy as np
import pytest
from runtime.oracle import expected_outputs
from runtime.ranks import as_threads

import blinkcoll as bc

N, ROOT = 3, 1


def of_ml_dtypes(name):
    kind = getattr(pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed"), name)
    return lambda bits: bits.view(kind), lambda array: array.view(np.uint8)


def of_torch(name):
    torch = pytest.importorskip("torch", reason="torch is an optional extra")
    return lambda bits: torch.from_numpy(bits).view(getattr(torch, name)), lambda tensor: tensor.view(torch.uint8).numpy()


def copies(comm, collective, mine, made, bits):
    """One call out of place (broadcast: in place); the bits of its result, None where this rank has none."""
    empty = lambda size: made(np.zeros(size, np.uint8))  # noqa: E731
    if collective == "broadcast":
        return bits(comm.broadcast(made(mine.copy()) if comm.rank == ROOT else empty(900), ROOT))
    if collective == "gather":
        out = empty(900)
        comm.gather(made(mine), ROOT, out)
        return bits(out) if comm.rank == ROOT else None
    if collective == "scatter":
        out = empty(300)
        comm.scatter(made(mine) if comm.rank == ROOT else None, ROOT, out)
        return bits(out)
    out = empty(900)
    return bits(comm.all_gather(made(mine), out) if collective == "allgather" else comm.all_to_all(made(mine), out))


@pytest.mark.parametrize("library", [of_ml_dtypes, of_torch])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_all_bits_arrive_as_they_are(name, library, tmp_path):
    made, bits = library(name)
    rng = np.random.default_rng(8)
    sizes = {"broadcast": 900, "scatter": 900, "alltoall": 900, "allgather": 300, "gather": 300}
    inputs = {c: [rng.integers(0, 256, size, dtype=np.uint8) for _ in range(N)] for c, size in sizes.items()}

    def body(comm):
        got = {c: copies(comm, c, inputs[c][comm.rank], made, bits) for c in sizes}
        whole = made(inputs["alltoall"][comm.rank].copy())
        assert bits(comm.all_to_all(whole)).tobytes() == got["alltoall"].tobytes(), "in place"
        box = made(np.zeros(300, np.uint8))
        if comm.rank == 0:
            comm.send(made(inputs["gather"][0]), 2)
        elif comm.rank == 2:
            comm.recv(box, 0)
        return got, bits(box)

    results = as_threads(N, tmp_path, body)
    for collective, arrays in inputs.items():
        for rank, want in enumerate(expected_outputs(collective, ROOT, arrays, None)):
            got = results[rank][0][collective]
            assert (got is None) == (want is None) and (want is None or got.tobytes() == want.tobytes()), (collective, rank)
    assert results[2][1].tobytes() == inputs["gather"][0].tobytes()


@pytest.mark.parametrize("library", [of_ml_dtypes, of_torch])
@pytest.mark.parametrize("collective", ["all_reduce", "reduce", "reduce_scatter"])
def test_reductions_are_refused_by_name(collective, library, tmp_path):
    made, _ = library("float8_e4m3fn")

    def body(comm):
        arguments = (0,) if collective == "reduce" else ()
        with pytest.raises(bc.ExecutionError, match=r"float8_e4m3fn cannot be reduced \(float8 is copied only"):
            getattr(comm, collective)(made(np.zeros(4, np.uint8)), *arguments)

    as_threads(2, tmp_path, body)


def test_two_kinds_of_float8_are_not_mixed(tmp_path):
    made, _ = of_ml_dtypes("float8_e4m3fn")
    other, _ = of_ml_dtypes("float8_e5m2")

    def body(comm):
        with pytest.raises(bc.ExecutionError, match="array is float8_e4m3fn, out is float8_e5m2"):
            comm.all_gather(made(np.zeros(4, np.uint8)), other(np.zeros(8, np.uint8)))

    as_threads(2, tmp_path, body)
