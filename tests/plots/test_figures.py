"""Figures of runs, odd ones too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_meta, make_run

from tensorscope import RunError, open_run
from tensorscope.plots.curves import curves, quantity
from tensorscope.plots.figures import KINDS, save_figure
from tensorscope.plots.gradients import gradients
from tensorscope.run import schema
from tensorscope.run.writer import Writer


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loss", "loss"),
        ("test_loss", "loss"),
        ("val/loss", "loss"),
        ("train.accuracy", "accuracy"),
        ("val", "val"),
        ("learning_rate", "learning_rate"),
        ("contest", "contest"),
    ],
)
def test_a_quantity_is_the_name_without_the_split(name: str, said: str) -> None:
    assert quantity(name) == said


def test_curves_of_one_quantity_share_a_panel(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    for step in range(200):
        writer.frame(schema.SCALARS, step, ("loss", "accuracy"), lambda step=step: np.array([1 / (step + 1), 0.5]))
    writer.frame(schema.SCALARS, 199, ("val_loss",), lambda: np.array([0.1]))
    writer.close()
    figure = curves(open_run(tmp_path / "run"))
    labels = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert labels == [["loss", "val_loss"], ["accuracy"]]


@pytest.mark.parametrize("values", [[math.nan], [math.inf, 1.0], [1.0], [0.0] * 300, [1e300, -1e300]])
def test_curves_of_odd_values_are_drawn(values: list[float], tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    for step, value in enumerate(values):
        writer.frame(schema.SCALARS, step, ("loss",), lambda value=value: np.array([value]))
    writer.close()
    save_figure(open_run(tmp_path / "run"), "curves", tmp_path / "x.svg")
    assert "<svg" in (tmp_path / "x.svg").read_text()


@pytest.mark.parametrize("steps", [1, 2, 60])
def test_gradients_are_drawn_with_a_mark_where_they_are_not_finite(steps: int, tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", steps=steps, nan_from=steps - 1))
    figure = gradients(run)
    (line,) = figure.axes[0].lines
    assert len(line.get_xdata()) == 3
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][:2] == ["conv1", "relu1"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_run_has_nothing_to_draw_and_says_so(kind: str, tmp_path: Path) -> None:
    Writer(tmp_path / "run", made_meta()).close()
    with pytest.raises(RunError, match=r"has no curves|holds no gradients"):
        save_figure(open_run(tmp_path / "run"), kind, tmp_path / "x.png")
