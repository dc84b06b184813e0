"""How the viewer looks, pinned as pictures in three sizes (`pytest --snapshot-update` makes them anew)."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_runs import LAYERS, made_graph, make_run
from textual.pilot import Pilot
from viewer_pilot import add, add_findings, add_reports, press, until, until_said, viewer

from tensorscope import explain
from tensorscope.reports import ShapeReport
from tui.widgets.shapes import ShapeList

EXAMPLE = Path(__file__).parents[2] / "examples" / "explain_the_flatten.py"
SIZES = [(80, 24), (120, 40), pytest.param((200, 50), marks=pytest.mark.slow)]
# What is looked at: the keys that lead there from the first view, each with what is on the screen then.
PLACES = {
    "overview": (("", "NaN, first at step 37"),),
    "gauges": (("m", "tracing (ms)"),),
    "layers": (("2", "✗ 3"),),
    "costs": (("2", "grad rms"), ("c", "100%")),
    "gradients": (("3", "conv1:grad · step 59"),),
    "findings": (("4", "hint: look there"),),
    "facts": (("6", "train.py --lr 1e-4"),),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that went wrong, at a path that is the same everywhere."""
    monkeypatch.chdir(tmp_path)
    folder = make_run(Path("runs/cnn"), nan_from=37, status="died", told=True)
    add(folder, "document", "graph", made_graph().to_json())
    add_findings(folder)
    return folder


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("place", PLACES)
def test_a_view_looks_as_it_did(
    place: str, size: tuple[int, int], run: Path, snap_compare: Callable[..., bool]
) -> None:
    async def go(pilot: Pilot[Any]) -> None:
        await until_said(pilot, "accuracy")
        for key, words in PLACES[place]:
            press(pilot, *key)
            await until_said(pilot, words)

    assert snap_compare(viewer(run), terminal_size=size, run_before=go)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_site_looks_as_it_did(size: tuple[int, int], run: Path, snap_compare: Callable[..., bool]) -> None:
    async def go(pilot: Pilot[Any]) -> None:
        await until_said(pilot, "accuracy")
        press(pilot, "3")
        await until_said(pilot, "conv1:grad · step 59")
        press(pilot, "enter")
        await until_said(pilot, "conv1:grad  mean", "6 histograms", "step 50")

    assert snap_compare(viewer(run), terminal_size=size, run_before=go)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_parameter_looks_as_it_did(size: tuple[int, int], run: Path, snap_compare: Callable[..., bool]) -> None:
    async def go(pilot: Pilot[Any]) -> None:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "grad rms")
        press(pilot, *["down"] * 3, "enter")
        await until_said(pilot, "conv1.weight  mean", "ratio", "6 histograms")

    assert snap_compare(viewer(run), terminal_size=size, run_before=go)


def explained_example() -> ShapeReport:
    """What is said of the example's bug; the example is copied here so that its path is the same everywhere."""
    source = shutil.copy(EXAMPLE, Path.cwd() / "model.py")
    model = runpy.run_path(str(source))["SimpleCNN"]()
    with pytest.raises(RuntimeError) as caught:
        model(torch.rand(4, 1, 28, 28))
    report = explain(caught.value)
    assert report is not None
    return report


@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_report_looks_as_it_did(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snap_compare: Callable[..., bool]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("runs/cnn"), steps=0, layers=LAYERS[:8], status="died")
    add_reports(run, explained_example())

    async def go(pilot: Pilot[Any]) -> None:
        await until_said(pilot, "✗ `fc1` got 1600 features", "Open")

    assert snap_compare(viewer(run), terminal_size=size, run_before=go)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("keys", ["", "o"], ids=["modules", "operations"])
def test_shapes_look_as_they_did(
    keys: str, size: tuple[int, int], run: Path, snap_compare: Callable[..., bool]
) -> None:
    add_reports(run)

    async def go(pilot: Pilot[Any]) -> None:
        await until_said(pilot, "✗ `fc1` got 1600 features")
        press(pilot, "5")
        await until(pilot, lambda: pilot.app.screen.query_one(ShapeList).has_focus)
        press(pilot, *keys)
        await until_said(pilot, "✗ fc1", "13 operations" if keys else "11 module calls")

    assert snap_compare(viewer(run), terminal_size=size, run_before=go)


def test_the_list_of_runs_looks_as_it_did(run: Path, snap_compare: Callable[..., bool]) -> None:
    make_run(run.parent / "cnn-2")

    async def go(pilot: Pilot[Any]) -> None:
        await until_said(pilot, "2 runs")

    assert snap_compare(viewer(run.parent), terminal_size=(80, 24), run_before=go)
