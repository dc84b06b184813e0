"""A run that was never closed is diagnosed by the viewer; a closed one brings its findings along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_runs import made_meta, make_run, stats_row

from tensorscope import open_run
from tensorscope.events import Site
from tensorscope.run import schema
from tensorscope.run.writer import Writer
from tui import verdict
from tui.verdict import findings_of


def test_a_killed_run_is_diagnosed(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", nan_from=40, status="running"))
    assert run.findings == []
    assert [finding.rule for finding in findings_of(run)] == ["nan_inf"]


def test_a_closed_run_is_taken_at_its_word(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", nan_from=40))
    assert findings_of(run) == run.findings == []


def test_a_live_run_is_not_diagnosed_at_every_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(verdict.time, "monotonic", lambda: clock[0])
    writer = Writer(tmp_path / "run", made_meta())
    weight = writer.site(Site("fc"))
    output = writer.site(Site(""))

    def write(step: int, bad: int) -> None:
        rows = np.array([stats_row(np.random.default_rng(0), 1.0, nonfinite=bad)] * 2)
        writer.frame(schema.STATS, step, (weight, output), lambda: rows)
        writer.flush()

    run = open_run(tmp_path / "run")
    write(0, bad=0)
    assert findings_of(run) == []
    write(1, bad=5)
    assert findings_of(run) == [], "too soon to look again"
    clock[0] += verdict.PAUSE_SECONDS
    assert [finding.site for finding in findings_of(run)] == ["fc"]
    writer.close()
