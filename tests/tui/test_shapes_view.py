"""What the viewer says of the shapes of the first forward."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_graph, make_run
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input
from viewer_pilot import add, add_reports, make_live, press, said, until, until_said, viewer

from tui.screens.runs import RunsScreen
from tui.shapetrace import of_graph
from tui.widgets.layers import LayerTree
from tui.widgets.shapes import ShapeList, _longest, widths_for


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with its graph."""
    folder = make_run(tmp_path / "run", steps=3)
    add(folder, "document", "graph", made_graph().to_json())
    return folder


async def search(pilot: Pilot[Any], words: str) -> None:
    """Type into the search; keys that come before it has the focus mean something else."""
    press(pilot, "slash")
    await until(pilot, lambda: isinstance(pilot.app.focused, Input))
    press(pilot, *words)


async def test_every_call_is_listed_with_its_dims(run: Path) -> None:
    async with viewer(run).run_test(size=(80, 24), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        await until_said(pilot, "dims in", "11 module calls of the first forward")
        rows = [line.split() for line in said(pilot).splitlines() if " → (" in line]
        assert ["pool2", "MaxPool2d", "(64,", "64,", "11,", "11)", "→", "(64,", "64,", "5,", "5)"] in rows
        press(pilot, "down")
        await until_said(pilot, "conv1  Conv2d", "(batch=64, channels=1, height=28, width=28) float32")


async def test_a_wide_screen_names_the_axes(run: Path) -> None:
    async with viewer(run).run_test(size=(200, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        named = "(batch=64, channels=32, height=26, width=26)"
        await until_said(pilot, f"{named} → (batch=64, channels=32, height=13, width=13)")


async def test_every_operation_can_be_listed_and_the_cursor_stays_in_its_module(run: Path) -> None:
    async with viewer(run).run_test(size=(100, 24), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        await until_said(pilot, "11 module calls")
        press(pilot, "down", "down", "down", "o")
        await until_said(pilot, "13 operations of the first forward", "max_pool2d", "pool1  pad  model.py:23")
        press(pilot, "o")
        await until_said(pilot, "11 module calls", "pool1  MaxPool2d")


async def test_a_search_narrows_the_list_and_escape_shows_all_again(run: Path) -> None:
    async with viewer(run.parent).run_test(size=(100, 24), notifications=True) as pilot:
        await until_said(pilot, "1 run")
        press(pilot, "enter")
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        await until_said(pilot, "11 module calls")
        await search(pilot, "conv 11")
        await until_said(pilot, "1 of 11 module calls", "conv2")
        press(pilot, *"x")
        await until_said(pilot, "no call matches the search")
        press(pilot, "escape")
        await until_said(pilot, "\n 11 module calls")
        press(pilot, "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_enter_leads_to_the_layer(run: Path) -> None:
    async with viewer(run).run_test(size=(100, 24), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        await until_said(pilot, "11 module calls")
        press(pilot, *["down"] * 4, "enter")
        await until_said(pilot, "grad rms")
        tree = pilot.app.screen.query_one(LayerTree)
        await until(pilot, lambda: tree.shown and tree.shown[tree.cursor].path == "conv2")


async def test_the_call_that_raised_is_marked_and_gone_to(run: Path) -> None:
    add_reports(run)
    async with viewer(run).run_test(size=(100, 24), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        await until_said(pilot, "✗ fc1", "fc1  Linear")


async def test_the_shapes_of_a_live_run_appear_with_its_graph(tmp_path: Path) -> None:
    folder = make_live(tmp_path / "run", steps=2)
    async with viewer(folder).run_test(size=(100, 24), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        await until_said(pilot, "known of a first forward")
        add(folder, "document", "graph", made_graph().to_json())
        await until_said(pilot, "11 module calls of the first forward")


async def test_without_any_shape_it_is_said_when_they_come(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=2)
    with sqlite3.connect(folder / "rank0.sqlite") as db:
        db.execute("DELETE FROM shape")
    db.close()
    async with viewer(folder).run_test(size=(100, 24), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "5")
        await until_said(pilot, "no shapes are known yet", "recorded with the first forward")


async def test_ten_thousand_calls_are_drawn_by_the_screenful(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=1)
    add(folder, "document", "graph", made_graph(blocks=5000).to_json())
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        calls = pilot.app.screen.query_one(ShapeList)
        drawn: list[int] = []
        pieces = calls.pieces
        calls.pieces = lambda index, width: drawn.append(index) or pieces(index, width)  # type: ignore[method-assign]
        press(pilot, "5")
        await until_said(pilot, "10 001 module calls")
        await until(pilot, lambda: calls.has_focus)
        press(pilot, "end")
        await until_said(pilot, "blocks.4999.down")
        await search(pilot, "4321")
        await until_said(pilot, "2 of 10 001 module calls", "blocks.4321.up")
        assert len(drawn) < 300


@pytest.mark.parametrize("width", range(30, 230, 7))
def test_columns_share_whatever_width_there_is(width: int) -> None:
    calls = ShapeList()
    calls.rows = list(of_graph(made_graph()).ops)
    calls._longest = _longest(calls.rows)
    to = widths_for(width, calls._longest)
    assert min(to.path, to.taken, to.given) > 0
    for index in range(len(calls.rows)):
        text = "".join(text for text, _ in calls.pieces(index, width))
        assert cell_len(text.rstrip()) <= width
