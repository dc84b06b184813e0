"""What the screen of a run says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import make_run
from viewer_pilot import add, add_findings, make_live, press, said, until, until_said, viewer

from tui.screens.run import VIEWS, RunScreen
from tui.screens.site import SiteScreen
from tui.widgets.curve import Curve
from tui.widgets.heatmap import Heatmap
from tui.widgets.layers import LayerTree


async def test_a_run_opens_on_its_curves_and_last_values(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "finished", "SimpleCNN", "step 59", "Last values", "loss", "0.970")
        assert "Nothing wrong was found." in said(pilot)


async def test_nan_is_counted_with_its_first_step(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", nan_from=37, status="died")
    add(folder, "meta", "error", json.dumps("ValueError: loss is NaN\nmore lines"))
    async with viewer(folder).run_test(size=(80, 24), notifications=True) as pilot:
        await until_said(pilot, "died", "× 23 NaN, first at step 37", "ValueError: loss is NaN")
        assert "more lines" not in said(pilot)


async def test_number_keys_and_clicks_switch_the_views(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "Enlarge")
        for key, text in (("2", "grad rms"), ("3", "NaN or Inf"), ("4", "Every rule was silent"), ("1", "accuracy")):
            press(pilot, key)
            await until_said(pilot, text)
        await pilot.click("ViewTabs", offset=(18, 0))
        await until_said(pilot, "grad rms")


async def test_the_crosshair_says_the_values_of_its_step_in_all_charts(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "left")
        await until(pilot, lambda: said(pilot).count("step 59") >= 3)
        press(pilot, "home")
        await until(pilot, lambda: said(pilot).count("step 0 ·") == 2)
        await pilot.hover(Curve, offset=(40, 5))
        await until(pilot, lambda: said(pilot).count("step 0 ·") == 0)


async def test_curves_can_be_drawn_on_a_logarithmic_scale_and_enlarged(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "l")
        await until_said(pilot, "loss (log)", "accuracy (log)")
        press(pilot, "enter")
        await until(pilot, lambda: "accuracy (log)" not in said(pilot))
        press(pilot, "escape")
        await until_said(pilot, "accuracy (log)")


async def test_layers_show_their_numbers_and_fold(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run", nan_from=37)).run_test(size=(140, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "conv1 Conv2d", "batch=64, channels=32", "60%", "✗ 3")
        tree = pilot.app.screen.query_one(LayerTree)
        before = tree.count()
        press(pilot, "e")
        await until(pilot, lambda: tree.count() == before - 4)
        press(pilot, "e", "down", "down", "left")
        await until(pilot, lambda: tree.count() == before - 1)
        press(pilot, "right", "home")
        await until(pilot, lambda: tree.count() == before and tree.cursor == 0)


async def test_enter_opens_a_layer_and_escape_returns(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "conv1 Conv2d")
        press(pilot, "down", "down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SiteScreen))
        await until_said(pilot, "conv1  Conv2d", "float32 cpu", "distribution over time", "conv1:grad", "step 50")
        press(pilot, "s")
        await until_said(pilot, "conv1  std")
        press(pilot, "escape")
        await until_said(pilot, "grad rms")


async def test_the_field_says_what_its_cursor_is_on_and_opens_it(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run", nan_from=37)).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "3")
        await until_said(pilot, "conv1:grad · step 59 · rms 0.")
        press(pilot, "down", "down", "down", "down", "down", "down", "down")
        await until_said(pilot, "fc1:grad · step 59 · NaN or Inf")
        assert "×××" in said(pilot)
        press(pilot, "g")
        await until_said(pilot, "gradients of parameters")
        press(pilot, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SiteScreen))


async def test_many_sites_share_lines_until_zoomed(tmp_path: Path) -> None:
    layers = tuple(f"layers.{n}.mlp" for n in range(40))
    async with viewer(make_run(tmp_path / "run", layers=layers, steps=12)).run_test(
        size=(100, 30), notifications=True
    ) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "3")
        await until_said(pilot, "layers.0.mlp", "layers.38.mlp", "▀")
        press(pilot, "z")
        await until(pilot, lambda: "layers.38.mlp" not in said(pilot) and "layers.1.mlp" in said(pilot))
        field = pilot.app.screen.query_one(Heatmap)
        for _ in range(4):
            press(pilot, "pagedown")
        await until_said(pilot, "layers.39.mlp:grad · step 11")
        assert field.zoomed


async def test_without_colours_a_field_is_drawn_in_shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with viewer(make_run(tmp_path / "run", nan_from=37)).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "3")
        await until_said(pilot, "░", "▓", "█", "×××")


async def test_findings_come_worst_first_with_evidence_and_lead_to_their_layer(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_findings(folder)
    add(folder, "note", 1, 5, 0.0, "hook of `relu1` failed")
    async with viewer(folder).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "4 Findings ✗2", "▲ 1 note")
        press(pilot, "4")
        await until_said(pilot, "hook of `relu1` failed", "12–59")
        text = said(pilot)
        assert text.index("not finite come from") < text.index("52% of the units")
        await until_said(pilot, "hint: look there", "nonfinite", "3.00")
        press(pilot, "enter")
        await until_said(pilot, "grad rms")
        tree = pilot.app.screen.query_one(LayerTree)
        await until(pilot, lambda: tree.shown and tree.shown[tree.cursor].path == "fc1")


async def test_a_paused_run_can_be_stepped_through(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run", nan_from=37)).run_test(size=(120, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "space")
        await until_said(pilot, "‖ at step 59")
        press(pilot, *["left_square_bracket"] * 23)
        await until_said(pilot, "‖ at step 36")
        await until(pilot, lambda: "NaN, first" not in said(pilot))
        press(pilot, "2")
        await until(pilot, lambda: "grad rms" in said(pilot) and "✗ 3" not in said(pilot))
        press(pilot, "right_square_bracket")
        await until_said(pilot, "‖ at step 37", "✗ 3")
        press(pilot, "space")
        await until(pilot, lambda: "‖" not in said(pilot))


async def test_help_is_made_of_the_keys_that_work_here(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(100, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "question_mark")
        await until_said(pilot, "Keys", "Log scale", "Step back", "Quit", "Everywhere")
        press(pilot, "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))


async def test_the_command_palette_finds_actions_and_layers(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(100, 40), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "ctrl+p")
        await until_said(pilot, "Log scale")
        press(pilot, *"conv2")
        await until_said(pilot, "open this tensor")
        press(pilot, "down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SiteScreen))


@pytest.mark.parametrize("size", [(40, 15), (10, 3)])
async def test_a_tiny_terminal_is_no_reason_to_crash(tmp_path: Path, size: tuple[int, int]) -> None:
    async with viewer(make_run(tmp_path / "run", nan_from=3)).run_test(size=size, notifications=True) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.snapshot is not None)
        for name in ("layers", "gradients", "findings", "overview"):
            press(pilot, str(VIEWS.index(name) + 1), "l", "left")
            await until(pilot, lambda name=name: screen.views[name].display)
        tree = screen.query_one(LayerTree)
        press(pilot, "2")
        await until(pilot, lambda: tree.shown and tree.has_focus)
        press(pilot, "home", "right", "down", "down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, SiteScreen))
        press(pilot, "g")
        await pilot.resize_terminal(120, 40)
        await until_said(pilot, "distribution over time")


async def test_a_thousand_sites_are_drawn_by_the_screenful(tmp_path: Path) -> None:
    layers = tuple(f"layers.{n}" for n in range(450))
    async with viewer(make_live(tmp_path / "run", layers=layers, steps=3)).run_test(
        size=(100, 30), notifications=True
    ) as pilot:
        await until_said(pilot, "accuracy")
        press(pilot, "2")
        await until_said(pilot, "grad rms")
        tree = pilot.app.screen.query_one(LayerTree)
        drawn: list[int] = []
        pieces = tree.pieces
        tree.pieces = lambda index, width: drawn.append(index) or pieces(index, width)  # type: ignore[method-assign]
        await until(pilot, lambda: tree.shown and tree.has_focus)
        press(pilot, "end")
        await until_said(pilot, "449")
        assert len(drawn) < 200
