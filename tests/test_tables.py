"""How a table of shapes reads: constraints as sentences, shapes with formulas, repetitions once."""

from __future__ import annotations

import json
import pickle

import pytest

from tensorscope.events import Finding, Severity
from tensorscope.tables import Constraint, Row, ShapeTable, TensorShape
from tensorscope.tables.layout import amount, shown_lines


@pytest.mark.parametrize(
    ("names", "low", "high", "more", "text"),
    [
        (("batch",), 1, None, {}, "batch is free"),
        (("batch",), 1, None, {"tried": 4096}, "batch is free (tried up to 4096)"),
        (("channels",), 3, 3, {}, "channels = 3"),
        (("seq",), 1, 256, {}, "seq ≤ 256"),
        (("length",), 3, None, {}, "length ≥ 3"),
        (("height", "width"), 28, 31, {}, "height and width: 28 to 31"),
        (("height", "width"), 28, 31, {"equal": True}, "height = width, 28 to 31"),
        (("a", "b", "c"), 1, None, {"equal": True}, "a = b = c, any size"),
        (("a", "b"), 1, 8, {"equal": True}, "a = b, ≤ 8"),
        (("a", "b"), 5, 5, {}, "a and b = 5"),
        (("height",), 2, None, {"step": 2}, "height: even"),
        (("height",), 1, None, {"step": 2}, "height: odd"),
        (("height",), 8, None, {"step": 8}, "height: multiple of 8"),
        (("height", "width"), 32, None, {"step": 16}, "height and width: multiples of 16, from 32"),
        (("height",), 16, 64, {"step": 16}, "height: multiple of 16, up to 64"),
        (("height",), 32, 64, {"step": 16}, "height: multiple of 16, from 32 to 64"),
        (("height",), 5, None, {"step": 4, "tried": 97}, "height: 1 more than multiple of 4, from 5 (tried up to 97)"),
    ],
)
def test_a_constraint_reads_as_a_sentence(names, low, high, more, text: str) -> None:
    made = Constraint.of(names, low, high, **more)
    assert made == text
    assert (made.names, made.low, made.high) == (names, low, high)


def test_a_constraint_survives_pickling() -> None:
    made = pickle.loads(pickle.dumps(Constraint.of(("seq",), 1, 256)))
    assert (made, made.high, made.step) == ("seq ≤ 256", 256, 1)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 "), (999, "999 "), (1000, "1 k"), (21_900_000, "21.9 M"), (4.2e11, "420 G")]
)
def test_counts_have_three_digits_and_a_unit(number: float, text: str) -> None:
    assert amount(number) == text


LONG = TensorShape((2, 5, 5), ("batch", "((height-3)//2-5)//2+1", "((width-3)//2-5)//2+1"), "float32")
SHORT = TensorShape((2, 16), ("batch", ""), "float32")


def table(*rows: Row, **more) -> ShapeTable:
    top = Row("", "Net", 0, "", outputs=(SHORT,), parameters=1234, trainable=1234, flops=21_900_000)
    x = TensorShape((2, 28), ("batch", "height"), "float32")
    return ShapeTable("Net", {"x": x}, {"batch": 2, "height": 28}, (top, *rows), **more)


def block(place: int, **changes) -> list[Row]:
    path = f"layers.{place}"
    facts = {"outputs": (SHORT,), "parameters": 500, "flops": 1000} | changes
    return [
        Row(path, "Block", 1, path, **facts),
        Row(f"{path}.up", "Linear", 2, "up", outputs=(SHORT,), parameters=300),
        Row(f"{path}.down", "Linear", 2, "down", outputs=(SHORT,), parameters=200),
    ]


def test_the_whole_text() -> None:
    finding = Finding("softmax_wrong_dim", "head", Severity.WARNING, "softmax over the batch", 0, 0, hint="use -1")
    made = table(
        Row("conv", "Conv2d", 1, "conv", outputs=(LONG,), parameters=320, flops=664_000),
        *(row for place in range(12) for row in block(place)),
        Row("head", "Linear", 1, "head", 2, outputs=(SHORT,), shared=(("head.weight", "conv.weight"),), varying=True),
        constraints=(Constraint.of(("batch",), 1, None), Constraint.of(("height",), 28, 31)),
        findings=(finding,),
        notes=("`x` is taken to be int64",),
    )
    assert (
        str(made)
        == """\
Net · 1,234 parameters · 21.9 MFLOPs
  x (batch, height) float32 → (batch, 16) float32
  at batch=2, height=28

module                          output           params  FLOPs
conv Conv2d                     (batch, 5ᵃ, 5ᵇ)     320  664 k
layers.0 … 11 (12 alike) Block  (batch, 16)         500    1 k
  up Linear                     (batch, 16)         300
  down Linear                   (batch, 16)         200
head Linear ×2                  (batch, 16) …      tied
  ᵃ 5 = ((height-3)//2-5)//2+1
  ᵇ 5 = ((width-3)//2-5)//2+1

constraints
  batch is free
  height: 28 to 31

notes
  `x` is taken to be int64

warning softmax_wrong_dim in head
  softmax over the batch
  hint: use -1"""
    )


def test_blocks_that_differ_are_told_one_by_one() -> None:
    rows = [row for place in range(3) for row in block(place, parameters=500 + (place == 1))]
    labels = [line.label for line in shown_lines(table(*rows))[0] if line.depth == 0]
    assert labels == ["layers.0", "layers.1", "layers.2"]


def test_layers_that_alternate_are_told_once() -> None:
    kinds = ("Linear", "ReLU")
    rows = [Row(str(i), kinds[i % 2], 1, str(i), outputs=(SHORT,)) for i in range(1000)]
    assert [line.label for line in shown_lines(table(*rows))[0]] == ["0, 2 … 998 (500 alike)", "1, 3 … 999 (500 alike)"]


def test_many_formulas_have_marks_of_their_own() -> None:
    shapes = [TensorShape((i,), (f"height//{i + 1000}+123456",), "float32") for i in range(60)]
    _, legend = shown_lines(table(*(Row(str(i), f"T{i}", 1, str(i), outputs=(s,)) for i, s in enumerate(shapes))))
    assert len(legend) == 60


def test_no_line_is_wider_than_a_page_where_that_can_be() -> None:
    path = "a_module_with_quite_a_long_name_for_a_module"
    rows = [Row(path, "AndQuiteALongTypeAsWell", 1, path, outputs=(LONG,), parameters=10**9, flops=10**12)]
    assert max(map(len, str(table(*rows)).splitlines())) <= 80


def test_html_escapes_what_it_shows() -> None:
    made = table(Row("a", "<b>", 1, "a<script>", outputs=(LONG,)), notes=("1 < 2",))
    text = made._repr_html_()
    assert "<script>" not in text
    assert "a&lt;script&gt;" in text
    assert "1 &lt; 2" in text


def test_json_reads_back() -> None:
    data = json.loads(table(*block(0), constraints=(Constraint.of(("batch",), 1, None),)).to_json())
    assert data["rows"][1]["outputs"][0]["formulas"] == ["batch", ""]
    assert data["constraints"][0]["text"] == "batch is free"
