"""A training that goes on after a checkpoint: one run, one curve, nothing lost of the file before."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tensorscope
from tensorscope import Run, RunError, TensorscopeError, diagnose, open_run

PATIENCE_SECONDS = 120  # only ever spent by a test that fails


def model_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def train(path: Path, steps: int, *, resume: bool | int = False, mark: float = 0.0, every: int = 1) -> None:
    """Steps that log their own number, and `mark`."""
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, path, every=every, resume=resume) as trace:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).square().mean().backward()
            optimizer.step()
            trace.log(mark=mark)


def marks(path: Path) -> list[tuple[int, float]]:
    steps, values = open_run(path).scalars("mark")
    return list(zip(steps.tolist(), values.tolist(), strict=True))


# --- one curve over all parts ----------------------------------------------------------------------------------------


def test_resuming_goes_on_after_the_last_step(tmp_path: Path) -> None:
    train(tmp_path / "run", 5, mark=1)
    train(tmp_path / "run", 4, mark=2, resume=True)
    run = open_run(tmp_path / "run")
    assert marks(tmp_path / "run") == [(step, 1.0 if step < 5 else 2.0) for step in range(9)]
    assert run.steps == run.measured_steps == list(range(9))
    assert run.history("0.weight", "rms")[0].tolist() == list(range(9))
    assert run.update_ratio("0.weight")[0].tolist() == list(range(9))
    assert run.gauge("lr")[0].tolist() == list(range(9))
    assert run.times("0")[0].tolist() == list(range(9))
    assert run.parts == [(0, "finished"), (5, "finished")]
    assert run.last_step == 8
    assert run.graph is not None
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["rank0.1.sqlite", "rank0.sqlite"]


def test_what_a_resumption_supersedes_is_gone_from_the_curves_and_stays_in_its_file(tmp_path: Path) -> None:
    train(tmp_path / "run", 8, mark=1)
    before = (tmp_path / "run" / "rank0.sqlite").read_bytes()
    alone = {stat: open_run(tmp_path / "run").history("0.weight", stat)[1] for stat in ("mean", "rms")}
    train(tmp_path / "run", 2, mark=2, resume=3)
    assert (tmp_path / "run" / "rank0.sqlite").read_bytes() == before
    run = open_run(tmp_path / "run")
    assert marks(tmp_path / "run") == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]
    assert run.steps == run.measured_steps == list(range(5))
    assert run.last_step == 4
    assert run.parts == [(0, "finished"), (3, "finished")]
    for stat, values in alone.items():
        steps, joined = run.history("0.weight", stat)
        assert steps.tolist() == list(range(5))
        assert joined[:3].tolist() == values[:3].tolist()
    old = open_run(tmp_path / "run" / "rank0.sqlite")
    assert old.scalars("mark")[1].tolist() == [1.0] * 8
    assert old.history("0.weight", "rms")[1].tolist() == alone["rms"].tolist()


def test_a_run_may_be_resumed_again_and_again(tmp_path: Path) -> None:
    train(tmp_path / "run", 4, mark=1)
    train(tmp_path / "run", 4, mark=2, resume=True)
    train(tmp_path / "run", 4, mark=3, resume=6)
    train(tmp_path / "run", 2, mark=4, resume=True)
    assert marks(tmp_path / "run") == list(enumerate([1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4]))
    assert [first for first, _ in open_run(tmp_path / "run").parts] == [0, 4, 6, 10]
    train(tmp_path / "run", 1, mark=5, resume=1)
    assert marks(tmp_path / "run") == [(0, 1), (1, 5)], "back before all of them"


def test_sampled_steps_keep_their_rhythm_across_a_resumption(tmp_path: Path) -> None:
    train(tmp_path / "run", 10, every=4)
    train(tmp_path / "run", 10, every=4, resume=True)
    assert open_run(tmp_path / "run").measured_steps == [0, 4, 8, 12, 16]


def test_modes_and_origins_of_superseded_steps_are_gone_and_those_before_stay(tmp_path: Path) -> None:
    def spoiled(bad: int, steps: int, resume: bool | int) -> Run:
        model = model_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with tensorscope.trace(model, tmp_path / "run", every=1, resume=resume):
            for step in range(steps):
                model.train(mode=step != bad)
                optimizer.zero_grad()
                loss = model(torch.full((4, 6), torch.nan) if step == bad else torch.randn(4, 6)).square().mean()
                if torch.isfinite(loss):
                    loss.backward()
                    optimizer.step()
        return open_run(tmp_path / "run")

    first = spoiled(5, 8, resume=False)
    assert first.origin is not None
    assert first.origin.step == 5
    (found,) = diagnose(first)
    assert (found.first_step, found.site) == (5, "input")
    healthy = spoiled(-1, 6, resume=4)
    assert healthy.origin is None
    assert healthy.nonfinite is None
    assert diagnose(healthy) == []
    assert [(seen["step"], seen["training"]) for seen in healthy.modes] == [(0, True), (4, True)]
    again = spoiled(2, 4, resume=True)  # at steps 10 to 13
    after = spoiled(-1, 4, resume=True)
    for run in (again, after):
        assert run.origin is not None
        assert run.origin.step == 12
        assert run.nonfinite == {"first": 12, "last": 12, "steps": 1}


def test_a_run_that_does_not_exist_begins(tmp_path: Path) -> None:
    """So that one command line serves the first start and every later one."""
    train(tmp_path / "run", 3, mark=1, resume=True)
    assert marks(tmp_path / "run") == [(0, 1), (1, 1), (2, 1)]
    assert open_run(tmp_path / "run").parts == [(0, "finished")]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["rank0.sqlite"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [True, 2])
def test_a_run_that_is_being_written_cannot_be_resumed(resume: bool | int, tmp_path: Path) -> None:
    with tensorscope.trace(model_of(), tmp_path / "run"):
        with pytest.raises(RunError, match=f"another training is writing `{re.escape(str(tmp_path / 'run'))}` now"):
            tensorscope.trace(model_of(), tmp_path / "run", resume=resume)
        assert sorted(path.name for path in (tmp_path / "run").glob("*.sqlite")) == ["rank0.sqlite"]
    train(tmp_path / "run", 2, resume=True)
    assert open_run(tmp_path / "run").status == "finished"


@pytest.mark.parametrize("resume", [-1, 2.0, "last", None])
def test_a_wrong_argument_is_named(resume: Any, tmp_path: Path) -> None:
    with pytest.raises(TensorscopeError, match=re.escape(f"`resume` is {resume!r}")):
        tensorscope.trace(model_of(), tmp_path / "run", resume=resume)
    assert list(tmp_path.iterdir()) == []


def test_a_resumption_without_a_path_is_refused() -> None:
    with pytest.raises(TensorscopeError, match="`resume` needs the run that goes on"):
        tensorscope.trace(model_of(), resume=True)


def test_a_file_that_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rank0.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(RunError):
        tensorscope.trace(model_of(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "rank0.sqlite").read_bytes() == b"nonsense" * 1000
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rank0.sqlite"]


# --- real interruptions ----------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, time
import torch
from torch import nn
import tensorscope

run, checkpoint, steps, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), 1e-2)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
start = 0
if os.path.exists(checkpoint):
    saved = torch.load(checkpoint)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    torch.set_rng_state(saved["random"])
    start = saved["step"]
resume = start if start else False
with tensorscope.trace(model, run, every=1, resume=resume) as trace:
    for step in range(start, steps):
        loss = model(torch.randn(16, 6)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        trace.log(loss=loss)
        if step % 10 == 9:
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            states |= {"schedule": schedule.state_dict(), "random": torch.get_rng_state(), "step": step + 1}
            torch.save(states, checkpoint + ".new")
            os.replace(checkpoint + ".new", checkpoint)
        if step == kill_at:
            while tensorscope.open_run(run).last_scalars().get("loss", (-1, 0))[0] < step:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
"""


def run_program(folder: Path, name: str, steps: int, kill_at: int) -> int:
    command = [sys.executable, "-c", PROGRAM, str(folder / name), str(folder / f"{name}.pt"), str(steps), str(kill_at)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.stderr == ""
    return done.returncode


@pytest.mark.slow
def test_a_training_that_was_killed_and_resumed_has_the_curves_of_one_that_was_not(tmp_path: Path) -> None:
    """Bit for bit: the checkpoint restores everything, and tracing draws no random number."""
    assert run_program(tmp_path, "whole", 40, -1) == 0
    assert run_program(tmp_path, "parts", 40, 17) == -signal.SIGKILL
    killed = open_run(tmp_path / "parts")
    assert killed.status == "died"
    assert killed.scalars("loss")[0].tolist() == list(range(18))
    assert run_program(tmp_path, "parts", 40, 33) == -signal.SIGKILL
    assert run_program(tmp_path, "parts", 40, -1) == 0
    whole, parts = open_run(tmp_path / "whole"), open_run(tmp_path / "parts")
    assert parts.parts == [(0, "died"), (10, "died"), (30, "finished")]
    assert parts.status == "finished"
    same(whole.scalars("loss"), parts.scalars("loss"), "loss")
    same(whole.gauge("lr"), parts.gauge("lr"), "lr")
    assert whole.sites == parts.sites
    for site in whole.sites:
        for stat in ("mean", "std", "min", "max", "zero_fraction"):
            same(whole.history(site, stat), parts.history(site, stat), f"{site} {stat}")
    same(whole.update_ratio("0.weight"), parts.update_ratio("0.weight"), "update")


def same(one: tuple[Any, Any], other: tuple[Any, Any], what: str) -> None:
    assert one[0].tolist() == other[0].tolist() == list(range(40)), what
    assert np.asarray(one[1]).tobytes() == np.asarray(other[1]).tobytes(), what


def test_a_resumed_run_that_lives_is_read_as_one_curve(tmp_path: Path) -> None:
    train(tmp_path / "run", 3, mark=1)
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(x: Tensor) -> None:
        model(x).square().mean().backward()
        optimizer.step()

    with tensorscope.trace(model, tmp_path / "run", every=1, resume=True) as trace:
        for _ in range(4):
            step(torch.randn(4, 6))
            trace.log(mark=2)
        assert trace.findings() == []
        run = open_run(tmp_path / "run")
        assert run.status == "running"
        assert run.scalars("mark")[0].tolist() == [0, 1, 2, 3, 4, 5, 6][: len(run.scalars("mark")[0])]
        assert run.parts == [(0, "finished"), (3, "running")]
