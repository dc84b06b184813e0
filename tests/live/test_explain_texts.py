"""Whole reports as a reader sees them at 80 columns, word for word; `make golden` rewrites them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tensorscope import explain
from tensorscope.reports import WIDTH

TEXTS = Path(__file__).with_name("explain_texts")
NAMES = sorted(file.stem for file in TEXTS.glob("*.py"))


def crashed(program: Path) -> BaseException:
    """What a script ends with when it is run as `python script.py`, no frame of ours in its traceback."""
    try:
        runpy.run_path(str(program), run_name="__main__")
    except Exception as error:
        step = error.__traceback__
        while step is not None and step.tb_frame.f_code.co_filename != str(program):
            step = step.tb_next
        return error.with_traceback(step)
    raise AssertionError("the program runs through")


@pytest.fixture(scope="module")
def reports() -> dict[str, str]:
    """The texts made so far: a report takes a second."""
    return {}


@pytest.fixture
def text(name: str, reports: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A program's report; places in it are as seen from the folder that the program is in."""
    monkeypatch.chdir(TEXTS)
    if name not in reports:
        reports[name] = str(explain(crashed(TEXTS / f"{name}.py")))
    return reports[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_report_reads_as_it_did(name: str, text: str, pytestconfig: pytest.Config) -> None:
    golden = TEXTS / f"{name}.txt"
    if pytestconfig.getoption("update_snapshots", default=False):
        golden.write_text(f"{text}\n", encoding="utf-8")
    assert f"{text}\n" == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_report_fits_a_plain_terminal(name: str, text: str) -> None:
    lines = text.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
    assert [line for line in lines if line != line.rstrip()] == []
    assert "\x1b" not in text
    assert "\t" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_report_names_places_by_the_programs_file_alone(name: str, text: str) -> None:
    places = re.findall(r"(\S+\.py):\d+", text)
    assert set(places) == {f"{name}.py"}


def test_there_is_a_text_for_each_program_and_no_other() -> None:
    assert sorted(file.stem for file in TEXTS.glob("*.txt")) == NAMES
