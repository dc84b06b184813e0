"""What the list of runs says."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import make_run
from textual.widgets import Input
from viewer_pilot import press, said, until, until_said, viewer

from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen


async def test_runs_are_listed_with_how_they_are_doing(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    make_run(tmp_path / "bad", nan_from=5, status="died")
    async with viewer(tmp_path).run_test(size=(100, 20), notifications=True) as pilot:
        await until_said(pilot, "2 runs", "✓ good", "finished", "✗ bad", "died", "SimpleCNN", "NaN", "2 h ago")


async def test_what_cannot_be_read_says_why_and_stays_closed(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "rank0.sqlite").write_bytes(b"nonsense" * 100)
    async with viewer(tmp_path).run_test(size=(100, 20), notifications=True) as pilot:
        await until_said(pilot, "? broken", "is not a tensorscope run")
        press(pilot, "enter")
        await until_said(pilot, "broken cannot be opened")
        assert isinstance(pilot.app.screen, RunsScreen)


async def test_an_empty_folder_says_how_to_make_a_run_and_finds_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a short path, so that no line is broken
    async with viewer(Path("runs")).run_test(size=(100, 24), notifications=True) as pilot:
        await until_said(pilot, "does not exist yet", "tensorscope.trace(model")
        make_run(tmp_path / "runs" / "first")
        await until_said(pilot, "1 run", "✓ first")
        await until(pilot, lambda: "tensorscope.trace" not in said(pilot))


async def test_typing_narrows_the_list(tmp_path: Path) -> None:
    for name in ("mnist-1", "mnist-2", "gpt"):
        make_run(tmp_path / name, steps=3)
    async with viewer(tmp_path).run_test(size=(80, 20), notifications=True) as pilot:
        await until_said(pilot, "3 runs")
        press(pilot, "slash")
        await until(pilot, lambda: pilot.app.screen.query_one(Input).has_focus)
        press(pilot, *"mni 2")
        await until_said(pilot, "1 of 3 runs", "mnist-2")
        assert "gpt" not in said(pilot)
        press(pilot, *"xyz")
        await until_said(pilot, "no run matches the filter")
        press(pilot, "escape")
        await until_said(pilot, "gpt", "mnist-1", "3 runs")


async def test_enter_opens_a_run_and_escape_returns_to_the_list(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    async with viewer(tmp_path).run_test(size=(80, 24), notifications=True) as pilot:
        await until_said(pilot, "✓ good")
        press(pilot, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await until_said(pilot, "accuracy")
        press(pilot, "escape")
        await until_said(pilot, "1 run")
