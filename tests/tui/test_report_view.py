"""What the viewer says of a run that met a shape error."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from made_runs import LAYERS, made_report, make_run
from textual.widgets import Input
from viewer_pilot import add, add_findings, add_reports, make_live, press, said, until, until_said, viewer

from tensorscope.run.reader import open_run
from tui.screens.run import RunScreen
from tui.widgets.layers import LayerTree
from tui.widgets.report import ReportLines
from tui.widgets.shapes import ShapeList


@pytest.fixture
def died(tmp_path: Path) -> Path:
    """A run that died of a shape error at its last step."""
    folder = make_run(tmp_path / "run", status="died")
    add_reports(folder)
    return folder


async def test_a_run_that_died_of_a_shape_error_opens_on_its_report(died: Path) -> None:
    async with viewer(died).run_test(size=(80, 24), notifications=True) as pilot:
        await until_said(
            pilot, "7 Report ✗1", "✗ `fc1` got 1600 features and takes 4096", "│ x = self.fc1(x.flatten(1))"
        )
        for words in ("✓ `nn.Linear(1600, 128)` at model.py:12", "(not tried)", "‹1600›", "64 · 5 · 5"):
            assert words in said(pilot)
        press(pilot, "end")
        await until_said(pilot, "would fit  images of height and width 38 to 41", "replayed without data")


async def test_a_run_that_went_on_after_an_error_opens_on_its_curves(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_reports(folder)
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy", "7 Report ✗1", "✗ `fc1` got 1600")
        press(pilot, "7")
        await until_said(pilot, "✓ `nn.Linear(1600, 128)`")


async def test_a_run_without_an_error_has_no_report_to_show(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "7", "question_mark")
        await until_said(pilot, "Keys", "Shapes")
        assert "Report" not in said(pilot)


async def test_a_run_that_died_before_its_first_step_shows_report_shapes_and_layers(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=0, layers=LAYERS[:8], status="died")
    add_reports(folder)
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "✗ `fc1` got 1600 features")
        press(pilot, "5")
        await until_said(pilot, "known of a first forward that did not end", "✗ fc1", "raised", "MaxPool2d")
        press(pilot, "1")
        await until_said(pilot, "the run died before its first step")
        press(pilot, "2")
        await until_said(pilot, "conv1 Conv2d")


async def test_enter_leads_to_the_layer_of_the_line(died: Path) -> None:
    async with viewer(died).run_test(size=(80, 24), notifications=True) as pilot:
        await until_said(pilot, "✗ `fc1` got 1600 features")
        press(pilot, "enter")
        await until_said(pilot, "grad rms", "fc1 Linear")
        tree = pilot.app.screen.query_one(LayerTree)
        await until(pilot, lambda: tree.shown and tree.shown[tree.cursor].path == "fc1")
        assert next(line for line in said(pilot).splitlines() if "fc1 Linear" in line).count("✗")
        press(pilot, "7")
        lines = pilot.app.screen.query_one(ReportLines)
        await until(pilot, lambda: lines.has_focus)
        press(pilot, *["down"] * 16)
        await until(pilot, lambda: lines.place(lines.cursor) == "relu1")
        press(pilot, "enter")
        await until(pilot, lambda: tree.shown[tree.cursor].path == "relu1")


async def test_of_several_reports_the_newest_is_shown_and_a_key_leads_to_the_others(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", status="died")
    add_reports(folder, made_report(title="the first error"), made_report(title="the second error"))
    async with viewer(folder).run_test(size=(100, 40), notifications=True) as pilot:
        await until_said(pilot, "✗ the second error", "report 1 of 2", "Other report")
        press(pilot, "right")
        await until_said(pilot, "✗ the first error", "report 2 of 2")
        press(pilot, "left", "left")
        await until_said(pilot, "✗ the first error", "report 2 of 2")


async def test_a_report_beside_findings_is_a_view_of_its_own(died: Path) -> None:
    add_findings(died)
    async with viewer(died).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "4 Findings ✗2", "7 Report ✗1")
        press(pilot, "4")
        await until_said(pilot, "hint: look there")
        assert "got 1600 features" not in said(pilot)


async def test_a_live_run_that_dies_says_where_to_look_and_leaves_the_view_as_it_is(tmp_path: Path) -> None:
    folder = make_live(tmp_path / "run")
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "● running", "accuracy")
        add_reports(folder)
        add(folder, "meta", "status", json.dumps("died"))
        await until_said(pilot, "✗ died", "Key 7 shows why", "accuracy")
        assert open_run(folder).status == "died"


async def test_a_live_run_that_dies_in_its_first_forward_shows_its_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=0, status="running")
    add(folder, "meta", "created", json.dumps(time.time()))
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "nothing is measured yet")
        add_reports(folder)
        add(folder, "meta", "status", json.dumps("died"))
        await until_said(pilot, "✗ `fc1` got 1600 features")


@pytest.mark.parametrize("size", [(40, 15), (10, 3)])
async def test_a_tiny_terminal_is_no_reason_to_crash(died: Path, size: tuple[int, int]) -> None:
    async with viewer(died).run_test(size=size, notifications=True) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.views["report"].display)
        press(pilot, "end", "5")
        await until(pilot, lambda: screen.views["shapes"].display)
        await until(pilot, lambda: screen.query_one(ShapeList).has_focus)
        press(pilot, "end", "o", "slash")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input))
        press(pilot, "q", "q")
        await pilot.resize_terminal(120, 40)
        await until_said(pilot, "no call matches")


async def test_a_resized_screen_lays_the_report_out_anew(died: Path) -> None:
    async with viewer(died).run_test(size=(80, 24), notifications=True) as pilot:
        await until_said(pilot, "✗ `fc1` got 1600 features", "  runs through)")
        await pilot.resize_terminal(120, 50)
        await until_said(pilot, "(tried: the program then runs through)", "would fit")
