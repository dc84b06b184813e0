"""Tables in files: what is read, and what is said of files that cannot be."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_models.data import DataLoader
from reference_models.files import CsvFile, MappedDataset
from reference_models.transforms import column_means, impute

again = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25)
numbers = st.floats(-1e6, 1e6, width=32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.csv"


@again
@given(st.data(), st.integers(1, 9), st.integers(2, 5), st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_table_is_read_as_python_wrote_it(path, data, rows, columns, header, ending):
    table = data.draw(st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    text = io.StringIO(newline="")
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    csv.writer(text, lineterminator=ending, quoting=quoting).writerows([["name, or so"] * columns] * header + table)
    path.write_bytes(text.getvalue().encode())
    samples = CsvFile(path, header=header).read()
    expected = torch.tensor(table, dtype=torch.float32)
    assert torch.equal(samples.inputs, expected[:, :-1])
    assert torch.equal(samples.labels, expected[:, -1])


@again
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 9))
def test_chunks_are_the_table_in_pieces_as_numpy_reads_it(path, rows, size, seed):
    table = np.random.default_rng(seed).normal(size=(rows, 3))
    np.savetxt(path, table, delimiter=",", header="a,b,c", comments="")
    chunks = list(CsvFile(path).chunks(size))
    assert [len(chunk) for chunk in chunks] == [size] * (rows // size) + [rows % size] * (rows % size > 0)
    assert np.allclose(
        torch.cat([chunk.inputs for chunk in chunks]), np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)[:, :2]
    )


def test_a_chunk_is_read_before_the_rest_of_the_file_is_looked_at(path):
    path.write_text("1,2\n3,4\nbroken,5\n")
    chunks = CsvFile(path, header=False).chunks(2)
    assert next(chunks).labels.tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"data.csv:3: expected a number, got 'broken'"):
        next(chunks)


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_names_of_columns_are_the_header(path, start):
    path.write_text(f'{start}length,"width, at most", species \n1,2,3\n', encoding="utf-8")
    assert CsvFile(path).names == ("length", "width, at most", "species")
    assert CsvFile(path, header=False).names == ()


def test_classes_are_numbered_as_they_are_given(path):
    path.write_text("x,species\n1,virginica\n2, setosa\n3,virginica\n")
    samples = CsvFile(path, classes=("setosa", "virginica")).read()
    assert (samples.labels.tolist(), samples.labels.dtype) == ([1, 0, 1], torch.int64)


@pytest.mark.parametrize("cell", ["", "  ", "NA", "nan", "NaN", "n/a", "null", "?"])
def test_a_missing_number_is_nan_and_can_be_imputed(path, cell):
    path.write_text(f"a,b,label\n1,5,0\n{cell},6,1\n3,7,1\n")
    inputs = CsvFile(path).read().inputs
    assert inputs.isnan().nonzero().tolist() == [[1, 0]]
    assert impute(inputs, column_means(inputs))[:, 0].tolist() == [1, 2, 3]


def test_blank_lines_and_a_missing_last_line_end_do_not_count(path):
    path.write_text("a,b\n\n1,2\n\n\n3,4")
    assert CsvFile(path).read().inputs.tolist() == [[1], [3]]


def test_other_delimiters_and_ways_to_write_numbers_are_read(path):
    path.write_text("+1e3;-.5;inf\n")
    samples = CsvFile(path, header=False, delimiter=";").read()
    assert (samples.inputs.tolist(), samples.labels.tolist()) == ([[1000, -0.5]], [math.inf])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.csv: expected rows, got a header at most"),
        (b"\n\n", "data.csv: expected rows, got a header at most"),
        (b"a,b\n", "data.csv: expected rows, got a header at most"),
        (b"a\n1\n", "data.csv:1: expected a feature and a label, at least 2 cells, got 1"),
        (b"a,b,c\n1,2,3\n4,5\n", "data.csv:3: expected 3 cells, got 2"),
        (b"a,b\n1,2\n\n3,4,5\n", "data.csv:4: expected 2 cells, got 3"),
        (b"a,b\r\n1,2\r\nx,4\r\n", "data.csv:3: expected a number, got 'x'"),
        (b"a,b\n1_000,2\n", "data.csv:2: expected a number, got '1_000'"),
        (b"a,b\n1,\n", "data.csv:2: expected a label, got ''"),
        (b"a,b\n1,setosa\n", "data.csv:2: expected a number, got 'setosa'"),
        (b'a,b\n1,2\n"3,4\n', "data.csv:3: expected CSV, got unexpected end of data"),
        (b'a,b\n"1"x,2\n', "data.csv:2: expected CSV, got"),
        (b'a,b\n"1\n1",2\n', r"data.csv:3: expected a number, got '1\\n1'"),
        (b"a,b\n1,2\n\xff,4\n", r"data.csv:3: expected a number, got '\\\\xff'"),
        ("größe,b\n1,2\nä,4\n".encode("latin-1"), r"data.csv:3: expected a number, got '\\\\xe4'"),
        ("a,b\n1,2\n".encode("utf-16"), "data.csv:3: expected 2 cells, got 1"),
    ],
    ids=[
        *("empty", "blank", "header only", "one column", "short row", "long row", "text", "underscore", "no label"),
        *("class", "open quote", "after a quote", "line in a cell", "no utf-8", "latin-1", "utf-16"),
    ],
)
def test_a_broken_table_is_named_with_its_line(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        CsvFile(path).read()


def test_an_empty_file_without_a_header_is_said_to_be_empty(path):
    path.write_text("")
    with pytest.raises(ValueError, match=r"data.csv: expected rows, got an empty file"):
        CsvFile(path, header=False).read()


def test_a_class_that_was_not_named_is_refused(path):
    path.write_text("1,setosa\n2,Setosa\n")
    with pytest.raises(ValueError, match=r"data.csv:2: expected one of setosa, virginica, got 'Setosa'"):
        CsvFile(path, header=False, classes=("setosa", "virginica")).read()


def test_chunks_have_rows(path):
    with pytest.raises(ValueError, match="expected `rows` of at least 1, got 0"):
        next(CsvFile(path).chunks(0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
def test_a_mapped_dataset_serves_the_rows_of_its_file(tmp_path, dtype):
    array = np.arange(24).reshape(4, 2, 3).astype(dtype)
    np.save(tmp_path / "inputs.npy", array)
    dataset = MappedDataset(tmp_path / "inputs.npy", torch.arange(4))
    assert isinstance(dataset.inputs, np.memmap)
    inputs, labels = next(iter(DataLoader(dataset, 3)))
    assert np.array_equal(inputs.numpy(), array[:3])
    assert labels.tolist() == [0, 1, 2]


def test_what_is_done_to_a_mapped_row_leaves_the_file_alone(tmp_path):
    np.save(tmp_path / "inputs.npy", np.ones((2, 3)))
    dataset = MappedDataset(tmp_path / "inputs.npy", torch.arange(2))
    dataset[0][0].fill_(5)
    assert dataset[0][0].eq(1).all()
    assert np.load(tmp_path / "inputs.npy").max() == 1


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "torn"])
def test_what_is_no_array_cannot_be_mapped(tmp_path, content):
    (tmp_path / "inputs.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"inputs.npy: expected an array of numbers"):
        MappedDataset(tmp_path / "inputs.npy", torch.zeros(1))


@pytest.mark.parametrize("shape", [(3, 2), ()])
def test_a_mapped_file_has_a_row_per_label(tmp_path, shape):
    np.save(tmp_path / "inputs.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"inputs.npy: expected 2 rows, one per label, got shape"):
        MappedDataset(tmp_path / "inputs.npy", torch.zeros(2))
