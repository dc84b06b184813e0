"""A run that is killed keeps everything but its last second, whenever the kill comes."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from tensorscope import RunError, open_run

KEPT = 1.0  # seconds before the kill, and older, that must be in the file
# Processes of their own that need not import torch anew: they come from one that has.
NURSERY = multiprocessing.get_context("forkserver")
NURSERY.set_forkserver_preload(
    ["torch._dynamo", "torch.fx.experimental.symbolic_shapes", "tensorscope.live.trace", "tensorscope.run.reader"]
)


def train(folder: Path, side: Path, close: int) -> None:
    """Train for ever, and write to a side file when each step was over; close the trace after so many steps."""
    import torch
    from torch import nn

    import tensorscope

    file = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # what is written there outlives the process

    def say(text: str) -> None:
        os.write(file, f"{text}\n".encode())

    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    say("ready")
    trace = tensorscope.trace(model, folder, every=1)
    step = 0
    while step != close:
        loss = model(torch.randn(16, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        trace.log(loss=loss, number=step)
        say(f"{step} {time.monotonic()}")
        step += 1
    say("closing")
    trace.close()
    say("closed")


class Training:
    """A training in a process of its own."""

    def __init__(self, folder: Path, *, close: int = -1) -> None:
        self.path = folder
        self._side = folder.with_suffix(".side")
        self._process = NURSERY.Process(target=train, args=(folder, self._side, close))
        self._process.start()

    @property
    def said(self) -> list[str]:
        """The lines of the side file."""
        return self._side.read_text().splitlines() if self._side.exists() else []

    def until(self, start: str) -> None:
        """Wait until the training has said something that begins so."""
        while not any(line.startswith(start) for line in self.said):
            assert self._process.is_alive(), f"the training ended before it said {start!r}"
            time.sleep(0.001)

    def kill(self) -> float:
        """Kill it and wait for its end; the moment of the kill."""
        moment = time.monotonic()
        self._process.kill()
        self._process.join()
        self._process.close()
        return moment

    @property
    def steps(self) -> list[tuple[int, float]]:
        """Steps that were over, and when."""
        pairs = (line.split() for line in self.said if line[:1].isdigit())
        return [(int(pair[0]), float(pair[1])) for pair in pairs if len(pair) == 2]


def seconds_lost(training: Training, killed: float) -> float:
    """How long before the kill the oldest step was over that is not in the run."""
    run = open_run(training.path)
    try:
        assert run.status == "died"
        assert run.last_step >= -1
        if not run.scalar_names:
            return killed - training.steps[0][1] if training.steps else 0.0
        steps, numbers = run.scalars("number")
        assert steps.tolist() == numbers.tolist() == list(range(len(steps))), "each once, none left out"
        measured, _ = run.history("0", "mean")
        assert measured.tolist() == list(range(len(measured)))
        kept = min(len(steps), len(measured))
        lost = [moment for step, moment in training.steps if step >= kept]
        return killed - lost[0] if lost else 0.0
    finally:
        run.close()


def kill_at(folder: Path, first: str, delay: float) -> tuple[float, int]:
    training = Training(folder)
    training.until(first)
    time.sleep(delay)  # the moment of the kill is what varies; nothing is waited for
    killed = training.kill()
    return seconds_lost(training, killed), len(training.steps)


def test_a_killed_training_keeps_all_but_its_last_second(tmp_path: Path) -> None:
    moments = random.Random(1)
    losses = [kill_at(tmp_path / str(n), "0 ", moments.uniform(0.2, 1.2)) for n in range(4)]
    assert max(loss for loss, _ in losses) < KEPT
    assert min(steps for _, steps in losses) > 20, "the training was under way"


def test_a_training_killed_while_it_closes_is_whole(tmp_path: Path) -> None:
    training = Training(tmp_path / "run", close=40)
    training.until("closing")
    killed = training.kill()
    if "closed" in training.said:
        assert open_run(training.path).status == "finished"
    else:
        assert seconds_lost(training, killed) < KEPT


def test_a_training_killed_at_its_start_leaves_a_run_or_none(tmp_path: Path) -> None:
    training = Training(tmp_path / "run")
    training.until("ready")
    time.sleep(random.Random(2).uniform(0.0, 0.05))
    assert_opens_or_is_refused(training, training.kill())


def assert_opens_or_is_refused(training: Training, killed: float) -> None:
    try:
        assert seconds_lost(training, killed) < KEPT
    except RunError as refused:
        if training.steps or not any(said in str(refused) for said in ("does not exist", "holds no run", "is empty")):
            raise AssertionError("a training under way has a run, and none is said as such") from refused


@pytest.mark.slow
def test_of_a_hundred_kills_none_loses_more_than_a_second(tmp_path: Path) -> None:
    moments = random.Random(0)
    losses = []
    for n in range(60):
        loss, _ = kill_at(tmp_path / f"midway{n}", "0 ", moments.uniform(0.0, 3.0))
        losses.append(loss)
    for n in range(20):
        training = Training(tmp_path / f"start{n}")
        training.until("ready")
        time.sleep(moments.uniform(0.0, 0.1))
        assert_opens_or_is_refused(training, training.kill())
    for n in range(20):
        training = Training(tmp_path / f"close{n}", close=moments.randrange(1, 2000))
        training.until("closing")
        time.sleep(moments.uniform(0.0, 0.05))
        killed = training.kill()
        if open_run(training.path).status != "finished":
            losses.append(seconds_lost(training, killed))
    print(f"\nworst loss of {len(losses)} kills: {max(losses):.3f} s, median {sorted(losses)[len(losses) // 2]:.3f} s")
    assert max(losses) < KEPT
