import re

from blinkcoll.topology.source import Source
from blinkcoll.topology.text_matrix import read_matrices

CELL = re.compile(r"X|NV[0-9]+|SYS")


def test_a_table_ends_where_its_cells_do():
    source = Source("t", "noise\n\tGPU0\tGPU1\tCPU Affinity\nGPU0\tX\tNV2\t0-9\t0\nGPU1\tNV2\tX\t0-9\t0\n\nGPU1 is hot\n")
    (table,) = read_matrices(source, CELL)
    assert table.line == 2
    assert table.cells == {("GPU0", "GPU0"): "X", ("GPU0", "GPU1"): "NV2", ("GPU1", "GPU0"): "NV2", ("GPU1", "GPU1"): "X"}
    assert table.rest["GPU1"] == ["0-9", "0"]


def test_cells_that_ran_together_are_taken_apart():
    (table,) = read_matrices(Source("t", "  GPU0 GPU1 NIC0 NIC1\nGPU0  X NV2SYS SYS 0-9 0\n"), CELL)
    assert [table.cells["GPU0", c] for c in table.columns] == ["X", "NV2", "SYS", "SYS"]
    assert table.rest["GPU0"] == ["0-9", "0"]


def test_an_empty_field_between_tabs_is_kept():
    (table,) = read_matrices(Source("t", "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\nGPU0\tX\tSYS\t\t1\t\tN/A\n"), CELL)
    assert table.rest["GPU0"] == ["", "1", "", "N/A"]


def test_rubbish_in_a_row_is_remembered_with_its_line():
    (table,) = read_matrices(Source("t", "\tGPU0\tGPU1\nGPU0\tX\tNVblah\n"), CELL)
    assert table.rubbish == [("GPU0", "NVblah", 2)]


def test_a_line_of_words_is_no_table():
    assert read_matrices(Source("t", "GPU0 and GPU1 are slow\nGPU0 X\n"), CELL) == []
