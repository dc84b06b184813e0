"""`tensorscope info`, and the accounts of runs of several ranks and parts."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_graph, made_meta, make_run

from tensorscope.events import Kind, Site
from tensorscope.run import schema
from tensorscope.run.writer import Writer
from tui.cli import main


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    monkeypatch.setattr(sys, "argv", ["tensorscope", *args])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    caught = capsys.readouterr()
    return code, caught.out, caught.err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "run", told=True, status="interrupted")
    writer = Writer(folder, made_meta(), resume=40)
    writer.document("graph", made_graph().to_json())
    writer.close(status="finished")
    return folder


def write_ranks(folder: Path) -> Path:
    """Two ranks whose parameter differs from step 3 on; the second has died."""
    for rank in (0, 1):
        writer = Writer(folder, made_meta(rank=rank, world_size=2), rank)
        site = writer.site(Site("fc.weight", Kind.PARAMETER))
        for step in range(6):
            value = 1.0 + rank * (step > 2)
            row = np.array([[4.0, value, 0.0, value, value, 0.0, 0.0, np.nan]])
            writer.frame(schema.STATS, step, (site,), lambda row=row: row)
        writer.close(status="died" if rank else "finished")
    return folder


def test_info_tells_how_a_run_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(monkeypatch, capsys, "info", str(make_run(tmp_path / "run", told=True)))
    assert (code, err) == (0, "")
    for words in (
        "every 8th step, 5 % budget; 60 of 60 steps", "samples  30", "64 in a step", "train.py --lr 1e-4",
        "c0ffeec0ffee on main, 1 changed file: train.py", "Optimizer: AdamW", "lr 0.0001 · betas 0.9, 0.999",
        "lr is 1.35e-4 now", "2 parameters and 1 outside the model: fc1.weight, fc2.weight",
        "training, except pool1; frozen: conv1", "2 × Some GPU",
    ):  # fmt: skip
        assert words in out
    assert re.search(r"^<root> +SimpleCNN +11\.\d ms +19\.\d ms +100% +1\.3k +5\.12 kB +█{10} *$", out, re.MULTILINE)
    assert re.search(r"^conv1 +Conv2d +50\d µs +1\.0\d ms +5% +320 +1\.28 kB +5\.54 MB +▌ *$", out, re.MULTILINE)
    assert "\x1b" not in out


def test_info_speaks_json_without_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", told=True)
    code, out, _ = said(monkeypatch, capsys, "info", "--json", str(folder))
    facts = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert code == 0
    assert (facts["status"], facts["steps"], facts["measured"], facts["dropped"]) == ("finished", 60, 60, 0)
    assert facts["speed"]["samples_per_step"] == 64
    assert facts["speed"]["step_seconds"] == pytest.approx(0.021, rel=0.05)
    assert facts["modules"]["conv1"]["output_bytes"] == 64 * 32 * 26 * 26 * 4
    assert facts["optimizers"][0]["type"] == "AdamW"
    assert facts["meta"]["git"]["dirty"] is True
    assert facts["ranks"] == {"0": {"status": "finished", "last_step": 59}}


def test_a_run_that_tells_little_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", steps=0)
    code, out, _ = said(monkeypatch, capsys, "info", str(folder))
    assert code == 0
    assert "0 of 0 steps" in out
    assert "Modules  (not timed)" in out
    assert said(monkeypatch, capsys, "info", "--json", str(folder))[0] == 0


def test_a_run_that_is_not_there_is_said_in_the_projects_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run", steps=1)
    code, out, err = said(monkeypatch, capsys, "info", str(tmp_path / "rn"))
    assert (code, out) == (2, "")
    assert err == f"error: the run `{tmp_path / 'rn'}` does not exist\n\nhint: did you mean `run`?\n"


def test_the_parts_of_a_resumed_run_are_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = said(monkeypatch, capsys, "info", str(run))
    assert re.search(r"^Parts\n +1 +steps 0 to 39, interrupted *\n +2 +", out, re.MULTILINE)
    code, out, err = said(monkeypatch, capsys, "diagnose", str(run))
    assert (code, err) == (0, "")
    assert " · 2 parts" in out


def test_ranks_that_died_or_differ_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_ranks(tmp_path / "run")
    _, out, err = said(monkeypatch, capsys, "info", str(folder))
    assert err == ""
    assert re.search(r"^Ranks\n +rank 0 +finished, step 5 *\n +rank 1 +died, step 5 *$", out, re.MULTILINE)
    assert "fc.weight since step 3 (rank 0: rms 1, rank 1: rms 2)" in out
    _, out, err = said(monkeypatch, capsys, "diagnose", str(folder))
    assert err == ""
    assert " · 2 ranks" in out
    assert "ranks differ: fc.weight since step 3 (rank 0: rms 1, rank 1: rms 2)" in out
    facts = json.loads(said(monkeypatch, capsys, "info", "--json", str(folder))[1])
    assert facts["differences"] == [{"site": "fc.weight", "first_step": 3, "ranks": [0, 1]}]
