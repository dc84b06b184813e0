"""A report's text at eighty columns, fact by fact, and its way through JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_report

from tensorscope.reports import WIDTH, Fix, Operand, OriginStep, ShapeReport, Where, nearby, shape_text

REPORT = made_report()

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=200)
dims = st.lists(st.integers(0, 10**12), max_size=6).map(tuple)
wheres = st.builds(Where, words, st.integers(0, 10**6), words, words)
operands = st.builds(Operand, words, dims, words, words)
steps = st.builds(OriginStep, words, words, dims, words, st.none() | wheres, operand=words)
fixes = st.builds(Fix, words, st.booleans(), st.sampled_from(["program", "line"]), words)
reports = st.builds(
    ShapeReport,
    title=words,
    error=words,
    op=words,
    module=words,
    module_type=words,
    operands=st.lists(operands, max_size=3).map(tuple),
    where=st.none() | wheres,
    origin=st.lists(steps, max_size=4).map(tuple),
    formula=st.none() | words,
    terms=st.lists(st.tuples(words, words), max_size=3).map(tuple),
    got=words,
    fits=words,
    fixes=st.lists(fixes, max_size=5).map(tuple),
    notes=st.lists(words, max_size=3).map(tuple),
)


def text_of(**changes: Any) -> str:
    empty = ShapeReport("it does not fit", "", "")
    return str(replace(empty, **changes))


# -- the text --


def test_a_report_of_nothing_is_its_title() -> None:
    assert text_of() == "it does not fit"


def test_facts_come_in_one_order_and_only_if_they_are_known() -> None:
    labels = ["at", "in", "op", "got", "path", "would fit", "error", "note"]
    assert list(REPORT.facts()) == labels
    assert list(ShapeReport("t", "E: m", "add").facts()) == ["op", "error"]


@pytest.mark.parametrize(
    ("module", "kind", "function", "expected"),
    [
        ("fc", "Linear", "Net.forward", "`fc` (Linear), called in Net.forward"),
        ("blocks.0", "Block", "Block.forward", "`blocks.0` (Block.forward)"),
        ("", "Net", "Net.forward", "Net.forward"),
        ("", "Net", "", "Net"),
        ("", "", "train", "train"),
        ("fc", "Linear", "", "`fc` (Linear)"),
        ("", "", "", None),
    ],
)
def test_who_failed_and_in_which_function(module: str, kind: str, function: str, expected: str | None) -> None:
    report = ShapeReport("t", "", "", module=module, module_type=kind, where=Where("m.py", 1, "", function))
    assert report.facts().get("in") == expected


def test_a_line_of_code_stands_beside_its_place_if_there_is_room() -> None:
    code = "x = " + "y + " * 14 + "z"
    assert Where("m.py", 3, "x = f(y)").code in text_of(where=Where("m.py", 3, "x = f(y)")).splitlines()[1]
    lines = text_of(where=Where("model.py", 3, code)).splitlines()
    assert (lines[1].strip(), lines[2].strip()) == ("at  model.py:3", code)


def test_terms_stand_in_a_column() -> None:
    facts = ShapeReport("t", "", "", formula="1600 = 64 · 25", terms=(("64", "channels"), ("5", "height"))).facts()
    assert facts["got"].splitlines() == ["1600 = 64 · 25", "64  channels", "5   height"]


def test_the_way_is_told_oldest_first_one_line_an_operand() -> None:
    way = tuple(
        OriginStep("o", "", (size,), f"op{size}", operand=name) for size, name in ((3, "q"), (2, "q"), (5, "k"))
    )
    assert ShapeReport("t", "", "", origin=way).facts()["path"].splitlines() == [
        "q: op2 (2,) → op3 (3,)",
        "k: op5 (5,)",
    ]


def test_only_the_first_line_of_torchs_error_is_told() -> None:
    assert ShapeReport("t", "RuntimeError: one\ntwo", "").facts()["error"] == "RuntimeError: one"


def test_one_hint_and_at_most_three_others() -> None:
    found = text_of(fixes=tuple(Fix(f"`fix {n}`") for n in range(6))).splitlines()
    assert [line.partition("`")[0] for line in found if "fix" in line] == ["hint: ", "  or: ", "  or: ", "  or: "]


@pytest.mark.parametrize(
    ("fix", "expected"),
    [
        (Fix("`f(x)`", verified=True), "`f(x)` (tried: the program then runs through)"),
        (Fix("`f(x)`", verified=True, scope="line"), "`f(x)` (tried: the line then runs)"),
        (Fix("`f(x)`", where="m.py:3"), "`f(x)` at m.py:3 (not tried)"),
    ],
)
def test_a_fix_says_where_it_goes_and_whether_it_was_tried(fix: Fix, expected: str) -> None:
    assert str(fix) == expected


@given(reports)
def test_a_text_has_no_trailing_spaces_whatever_is_in_it(report: ShapeReport) -> None:
    assert [line for line in str(report).split("\n") if line != line.rstrip()] == []


short = st.text("abc` ().,:=·→", max_size=60).map(str.strip)


@given(st.lists(short, max_size=12).map(" ".join), st.lists(short, max_size=30).map(" ".join))
def test_a_text_of_words_fits_the_width(title: str, said: str) -> None:
    report = ShapeReport(title, f"Error: {said}", "op", fits=said, fixes=(Fix(said),), notes=(said,))
    assert [line for line in str(report).splitlines() if len(line) > WIDTH and " " in line.strip()] == []


def test_a_word_longer_than_a_line_stays_whole() -> None:
    path = "a/" * 60 + "model.py"
    assert f"{path}:3" in text_of(where=Where(path, 3, "x = 1"))


# -- shapes and places --


@pytest.mark.parametrize(
    ("sizes", "names", "expected"),
    [
        ((4, 1600), (), "(4, 1600)"),
        ((4, 1600), ("batch", ""), "(batch=4, 1600)"),
        ((), (), "()"),
        ((0,), ("batch",), "(batch=0)"),
        ((2, 3), ("", ""), "(2, 3)"),
    ],
)
def test_a_shape_with_or_without_names(sizes: tuple[int, ...], names: tuple[str, ...], expected: str) -> None:
    assert shape_text(sizes, names) == expected


def test_names_and_sizes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        shape_text((2, 3), ("batch",))


def test_a_path_below_the_working_folder_is_told_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert nearby(str(tmp_path / "src" / "model.py")) == os.path.join("src", "model.py")
    assert nearby(str(tmp_path.parent / "model.py")) == str(tmp_path.parent / "model.py")
    assert nearby(f"{tmp_path}er/model.py") == f"{tmp_path}er/model.py"
    assert nearby("<stdin>") == "<stdin>"


def test_a_report_can_be_printed_where_the_working_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert "model.py" in str(REPORT)


# -- JSON --


@given(reports)
def test_a_report_survives_json(report: ShapeReport) -> None:
    assert ShapeReport.from_json(report.to_json()) == report


def test_names_of_axes_survive_json() -> None:
    report = replace(REPORT, operands=(Operand("x", (2, 3), "float32", "cpu", ("batch", "")),))
    assert ShapeReport.from_json(report.to_json()) == report


@pytest.mark.parametrize("text", ["{}", "[]", "3", "null", '{"title": 1}', '{"operands": [3]}', "not json", ""])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        ShapeReport.from_json(text)


def test_reports_load_no_torch() -> None:
    code = "import sys, tensorscope.reports; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
