"""What a trace reads off by itself, as the screen of a run shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_runs import made_graph, make_run
from viewer_pilot import add, press, said, until, until_said, viewer

from tui.screens.run import VIEWS, RunScreen
from tui.screens.site import SiteScreen
from tui.widgets.layers import LayerTree
from tui.widgets.sheets import METER, meter


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "run", told=True)
    add(folder, "document", "graph", made_graph().to_json())
    return folder


async def test_gauges_that_move_are_drawn_unasked_and_the_others_when_asked_for(run: Path) -> None:
    async with viewer(run).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "━━ lr  ╍╍ lr[1]", "gradients clipped by", "every 8th step", "5 % budget")
        assert "tracing (ms)" not in said(pilot)
        press(pilot, "m")
        await until_said(pilot, "step (ms)", "memory (MB)")
        press(pilot, "m")
        await until(pilot, lambda: "memory (MB)" not in said(pilot))


async def test_the_newest_gauges_stand_beside_the_charts(run: Path) -> None:
    async with viewer(run).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "Gauges", "699 MB", "1.35e-4", "5% of it")


async def test_a_run_without_gauges_says_nothing_of_them(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "Last values")
        assert "Gauges" not in said(pilot)


async def test_the_crosshair_is_on_the_same_step_in_the_gauges(run: Path) -> None:
    async with viewer(run).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "gradients clipped by")
        press(pilot, "home")
        await until(pilot, lambda: said(pilot).count("step 0 ·") == 4)


async def test_layers_show_what_they_cost(run: Path) -> None:
    async with viewer(run).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "grad rms", "update")
        press(pilot, "c")
        await until_said(pilot, "forward", "FLOPs", "weights", "medians of recent steps")
        text = said(pilot)
        assert "grad rms" not in text
        assert re.search(r"SimpleCNN .* 11\.\d ms  19\.\d ms +100% ████████ .* 1\.3k  5\.12 kB", text)
        assert re.search(r"conv1 Conv2d .* 50\d µs  1\.0\d ms +5% ▍ .* 320  1\.28 kB  5\.54 MB", text)
        press(pilot, "c")
        await until_said(pilot, "grad rms")


async def test_without_times_there_are_no_columns_for_them(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "grad rms")
        assert "update" not in said(pilot)
        press(pilot, "c")
        await until_said(pilot, "FLOPs", "modules were not timed")
        assert "forward" not in said(pilot)


async def test_a_parameter_shows_how_large_its_last_update_was(run: Path) -> None:
    async with viewer(run).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "1e-6    1")
        line = next(line for line in said(pilot).splitlines() if "weight" in line)
        assert re.search(r" 1\.\de-4 ┈┈┈●┊┈┈┈┈ ", line)


def test_the_scale_of_updates_has_1e_3_in_its_middle() -> None:
    places = {ratio: meter(ratio).find("●") for ratio in (1e-9, 1e-6, 1e-3, 1.0, 50.0, 0.0, float("nan"))}
    assert list(places.values()) == [0, 0, METER // 2, METER - 1, METER - 1, -1, -1]


@pytest.mark.parametrize(("width", "together"), [(120, 3), (80, 2), (60, 1)])
async def test_a_parameter_stands_beside_its_gradient_and_update_or_takes_turns(
    run: Path, width: int, together: int
) -> None:
    names = ("conv1.weight  mean", "conv1.weight:grad  mean", "conv1.weight:update  mean")
    async with viewer(run).run_test(size=(width, 40), notifications=True) as pilot:
        await until_said(pilot, "step 59")
        press(pilot, "2")
        tree = pilot.app.screen.query_one(LayerTree)
        await until(pilot, lambda: tree.shown and tree.has_focus)
        press(pilot, "down", "down", "down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SiteScreen))
        await until_said(pilot, "ratio 1.", names[0])
        await until(pilot, lambda: sum(name in said(pilot) for name in names) == together)
        await until(pilot, lambda: ("Next tensor" in said(pilot)) == (together < 3))
        if together < 3:
            press(pilot, *["g"] * (3 - together))
            await until_said(pilot, names[2])


async def test_the_update_is_drawn_over_the_weights_on_a_logarithmic_scale(run: Path) -> None:
    async with viewer(run).run_test(size=(160, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "grad rms")
        press(pilot, "down", "down", "down", "enter")
        await until_said(pilot, "update / weight, rms (log)")
        press(pilot, "s")
        await until_said(pilot, "conv1.weight:update  std")


async def test_a_layer_has_no_place_for_an_update(run: Path) -> None:
    async with viewer(run).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "grad rms")
        press(pilot, "down", "down", "enter")
        await until_said(pilot, "conv1:grad  mean", "6 histograms")
        assert "update" not in said(pilot)


async def test_a_run_says_where_it_comes_from(run: Path) -> None:
    async with viewer(run).run_test(size=(200, 50), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "6")
        await until_said(
            pilot, "every 8th step, 5 % budget", "train.py --lr 1e-4", "c0ffeec0ffee on main, 1 changed file: train.py",
            "Optimizer: AdamW", "lr is 1.35e-4 now", "atlas", "2 × Some GPU", "frozen: conv1", "64 in a step",
        )  # fmt: skip


@pytest.mark.parametrize("size", [(40, 15), (10, 3)])
async def test_a_tiny_terminal_shows_what_fits(run: Path, size: tuple[int, int]) -> None:
    async with viewer(run).run_test(size=size, notifications=True) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.snapshot is not None)
        press(pilot, "m")
        for name in ("layers", "facts", "overview"):
            press(pilot, str(VIEWS.index(name) + 1), "c")
            await until(pilot, lambda name=name: screen.views[name].display)
        await pilot.resize_terminal(200, 50)
        await until_said(pilot, "memory (MB)")


async def test_without_colours_everything_can_still_be_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with viewer(run).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "gradients clipped by")
        press(pilot, "2")
        await until_said(pilot, "┈┈┈●┊┈┈┈┈")
        press(pilot, "c")
        await until_said(pilot, "100% ████████")
        press(pilot, "6")
        await until_said(pilot, "Optimizer: AdamW")
