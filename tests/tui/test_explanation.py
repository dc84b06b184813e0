"""A report laid out in lines for the viewer."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_report

from tensorscope.reports import Fix, Operand, OriginStep, ShapeReport, Where
from tui.explanation import Line, laid_out, wrong_size

AT_80 = """\
✗ `fc1` got 1600 features and takes 4096
at         model.py:23  in SimpleCNN.forward
           │ x = self.fc1(x.flatten(1))
module     fc1 (Linear)
fix        ✓ `nn.Linear(1600, 128)` at model.py:12 (tried: the program then
             runs through)
           ? resize the images to 38 × 38 (not tried)
op         linear
           input   (batch=4, ‹1600›)  float32  cpu
           weight  (128, 4096)        float32  cpu
got        1600 = 64 · 5 · 5
           64  conv2.out_channels
           5   height: 28 → conv1 26 → pool1 13 → conv2 11 → pool2 5
           5   width, likewise
path         x        (4, 1, 28, 28)   input
           → conv1    (4, 32, 26, 26)  conv2d      model.py:21
           → relu1    (4, 32, 26, 26)  relu        model.py:21
           → pool1    (4, 32, 13, 13)  max_pool2d  model.py:21
           → conv2    (4, 64, 11, 11)  conv2d      model.py:22
           → relu2    (4, 64, 11, 11)  relu        model.py:22
           → pool2    (4, 64, 5, 5)    max_pool2d  model.py:22
           → flatten  (4, ‹1600›)                  model.py:23
           ✗ fc1
would fit  images of height and width 38 to 41
error      RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x1600 and
           4096x128)
note       the forward was replayed without data
"""


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line.pieces)


def text(report: ShapeReport, width: int = 78, height: int = 20) -> str:
    return "".join(f"{text_of(line).rstrip()}\n" for line in laid_out(report, width, height))


def test_a_report_reads_well_at_80_columns_without_colour() -> None:
    assert text(made_report()) == AT_80


def test_parts_stand_apart_where_the_screen_has_room() -> None:
    airy = text(made_report(), height=100)
    assert airy.count("\n\n") == 7
    assert airy.replace("\n\n", "\n") == AT_80


def test_a_line_leads_to_its_own_module_or_else_to_the_one_that_failed() -> None:
    places = {text_of(line).split()[1]: line.place for line in laid_out(made_report(), 78, 20) if line.place}
    assert places == {name: name for name in ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2")}


def test_the_offending_size_is_marked_as_far_back_as_it_goes() -> None:
    steps = [("relu", "relu", (4, 9)), ("linear", "fc", (4, 9)), ("mean", "", (4, 7)), ("input", "", (4, 9, 7))]
    origin = tuple(OriginStep(op, module, dims, module or op) for op, module, dims in steps)
    lines = text(made_report(origin=origin, formula="9 = fc.out_features", terms=())).splitlines()
    path = [line for line in lines if line[11:13] in {"→ ", "  "} and "(4, " in line]
    assert [("‹9›" in line) for line in path] == [False, False, True, True]


def test_ways_to_several_operands_stand_below_each_other() -> None:
    origin = (
        OriginStep("linear", "key", (2, 5), "key", operand="k"),
        OriginStep("linear", "query", (2, 4), "query", operand="q"),
        OriginStep("input", "", (2, 3), "x", operand="q"),
    )  # fmt: skip
    path = text(made_report(origin=origin, formula=None, terms=(), module="", op="add")).partition("path")[2]
    assert [line.split() for line in path.splitlines()[:6]] == [
        ["key", "(2,", "5)", "linear"], ["=", "k"],
        ["x", "(2,", "3)", "input"], ["→", "query", "(2,", "4)", "linear"], ["=", "q"],
        ["✗", "add"],
    ]  # fmt: skip


def test_without_a_formula_its_only_term_says_the_size() -> None:
    assert wrong_size(made_report(formula=None, terms=(("4", "`a.out_features`"),))) == 4


def test_a_size_that_two_axes_have_is_not_marked() -> None:
    operands = (Operand("input", (1600, 1600), "float32", "cpu"),)
    assert "‹" not in text(made_report(operands=operands, origin=()))


@pytest.mark.parametrize(
    ("formula", "got", "size"),
    [
        ("1600 = 64 · 5 · 5", "", 1600),
        (None, "4  `a.out_features`", 4),
        (None, "float64", None),
        (None, "4 of them", 4),
        ("height // 2 = 7", "", None),
        (None, "", None),
    ],
)
def test_the_size_is_what_the_formula_is_about(formula: str | None, got: str, size: int | None) -> None:
    assert wrong_size(made_report(formula=formula, terms=(), got=got)) == size


def test_a_report_that_knows_little_is_short() -> None:
    assert text(ShapeReport("`x` broke", "RuntimeError: x", "add"), height=1) == (
        "✗ `x` broke\nop         add\nerror      RuntimeError: x\n"
    )


def test_a_long_path_is_cut_in_its_middle() -> None:
    module = "encoder." + "block." * 20 + "attention"
    report = made_report(module=module, origin=(OriginStep("linear", module, (4, 1600), module),))
    line = next(line for line in text(report, 60).splitlines() if line.startswith("path"))
    assert "path         enco" in line
    assert "…" in line
    assert "(4, ‹1600›)" in line


texts = st.text(string.printable + "→·ä数", max_size=60)
sizes = st.lists(st.integers(0, 10**12), max_size=6).map(tuple)
operands = st.builds(Operand, texts, sizes, texts, texts)
places = st.none() | st.builds(Where, texts, st.integers(1, 10**6), texts, texts)
steps = st.builds(OriginStep, texts, texts, sizes, texts, places, operand=texts)
reports = st.builds(
    ShapeReport,
    texts, texts, texts, texts, texts,
    operands=st.lists(operands, max_size=3).map(tuple),
    where=places,
    origin=st.lists(steps, max_size=4).map(tuple),
    formula=st.none() | texts,
    terms=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    got=texts,
    fits=texts,
    fixes=st.lists(st.builds(Fix, texts, st.booleans()), max_size=3).map(tuple),
    notes=st.lists(texts, max_size=2).map(tuple),
)  # fmt: skip


@given(reports, st.integers(1, 130), st.integers(0, 60))
def test_whatever_a_report_says_it_is_laid_out_in_single_lines(report: ShapeReport, width: int, height: int) -> None:
    lines = laid_out(report, width, height)
    assert lines
    assert not any("\n" in text_of(line) for line in lines)


@given(reports, st.integers(40, 130))
def test_nothing_of_the_prose_is_lost_at_any_width(report: ShapeReport, width: int) -> None:
    words = set("".join(text(report, width)).split())
    for word in (word for fix in report.fixes for word in fix.text.split() if len(word) < 20):
        assert word in words


def test_every_line_of_a_plain_report_keeps_to_the_width() -> None:
    report = replace(made_report(), operands=made_report().operands[:1])
    for width in range(56, 130):
        assert max(len(text_of(line).rstrip()) for line in laid_out(report, width, 20)) <= width
