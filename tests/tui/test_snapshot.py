"""What is asked of a run, and what comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_runs import make_run
from viewer_pilot import add_findings

from tensorscope.events import Kind, Site
from tensorscope.run.reader import Run
from tui.charts.plot import Series
from tui.detail import AskDetail
from tui.snapshot import AskDiagnosis, AskLayers, AskOverview, AskTable, by_quantity


def names(*scalars: str) -> list[tuple[str, ...]]:
    series = (Series(name, np.zeros(0, np.int64), np.zeros(0)) for name in scalars)
    return [tuple(one.name for one in group) for group in by_quantity(series)]


def test_one_quantity_of_several_data_sets_is_one_chart() -> None:
    assert names("loss", "accuracy", "test_loss", "val_accuracy") == [
        ("loss", "test_loss"),
        ("accuracy", "val_accuracy"),
    ]
    assert names("train/loss", "val/loss", "lr") == [("train/loss", "val/loss"), ("lr",)]
    assert names("loss.eval", "lossy", "val") == [("loss.eval",), ("lossy",), ("val",)]


def test_losses_come_first() -> None:
    assert names("accuracy", "lr", "loss") == [("loss",), ("accuracy",), ("lr",)]


def test_the_overview_of_an_earlier_step_ends_there(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "run"))
    (loss,), _ = AskOverview(until=20).answer(run).charts
    assert loss.steps[-1] == 20
    assert AskOverview().answer(run).charts[0][0].steps[-1] == 59


def test_the_layers_of_an_earlier_step_are_those_of_that_step(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "run", nan_from=37))
    assert AskLayers().answer(run).stats[Site("fc1")].nonfinite == 3
    assert AskLayers(until=36).answer(run).stats[Site("fc1")].nonfinite == 0


def test_a_table_is_of_the_first_family_that_was_recorded(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "run", nan_from=37))
    found = AskTable("", 40).answer(run)
    assert found.family == "gradients of outputs"
    assert [str(site) for site in found.sites][:2] == ["conv1:grad", "relu1:grad"]
    assert np.isinf(found.values[found.sites.index(Site("fc1").grad), -1])
    assert AskTable("parameters", 40, until=10).answer(run).steps[-1] == 10


def test_the_detail_of_a_site_holds_its_gradient_and_its_findings(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_findings(folder)
    found = AskDetail(Site("fc1"), "std").answer(Run(folder))
    assert found.tensor.stats is not None
    assert found.gradient.curve is not None
    assert [finding.rule for finding in found.findings] == ["nan_inf"]
    assert AskDetail(Site("", Kind.INPUT), "std").answer(Run(folder)).gradient.curve is None


def test_findings_come_worst_first(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_findings(folder)
    assert [finding.rule for finding in AskDiagnosis().answer(Run(folder)).findings] == ["nan_inf", "dead_relu"]
