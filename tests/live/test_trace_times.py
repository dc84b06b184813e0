"""How long modules and steps took, by a clock that moves only where a test lets it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tensorscope
from tensorscope import Run, open_run

STEPS = 5
NAP = 0.25  # seconds
OURS = 1e-3  # seconds a step that are laid to torch's calling of hooks, at most


class Clock:
    """Stands in for `time.perf_counter`."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


class Naps(torch.autograd.Function):
    """Does nothing, and takes its time at it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: Clock, forward: float, backward: float) -> Tensor:
        ctx.clock, ctx.seconds = clock, backward
        clock.now += forward
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        ctx.clock.now += ctx.seconds
        return gradient.clone(), None, None, None


class Slow(nn.Module):
    """Naps in its forward and in its backward."""

    def __init__(self, clock: Clock, forward: float = 0.0, backward: float = 0.0) -> None:
        super().__init__()
        self.naps = clock, forward, backward

    def forward(self, x: Tensor) -> Tensor:
        return Naps.apply(x, *self.naps)  # type: ignore[no-untyped-call, no-any-return]


def timed(model: nn.Module, folder: Path, passes: int = 1) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, folder / "run", every=1) as trace:
        for _ in range(STEPS):
            optimizer.zero_grad()
            for _ in range(passes):
                trace(torch.randn(4, 6)).mean().backward()
            optimizer.step()
    run = open_run(folder / "run")
    assert run.notes == []
    return run


def expect(run: Run, expected: dict[str, tuple[float, float]]) -> None:
    """Every step has these times, and no others."""
    assert run.median_times() == {path: pytest.approx(seconds) for path, seconds in expected.items()}
    for path, (forward, backward) in expected.items():
        steps, forwards, backwards = run.times(path)
        assert steps.tolist() == list(range(STEPS)), path
        assert forwards == pytest.approx([forward] * STEPS), path
        assert backwards == pytest.approx([backward] * STEPS), path


def test_a_module_has_its_own_time_and_its_parents_have_that_of_their_parts(clock: Clock, tmp_path: Path) -> None:
    inner = nn.Sequential(nn.Linear(6, 6), Slow(clock, NAP, 0.0), nn.Linear(6, 6))
    run = timed(nn.Sequential(nn.Linear(6, 6), inner, Slow(clock, 0.0, 2 * NAP), nn.Linear(6, 1)), tmp_path)
    expect(run, {
        "": (NAP, 2 * NAP), "0": (0, 0), "1": (NAP, 0), "1.0": (0, 0), "1.1": (NAP, 0), "1.2": (0, 0),
        "2": (0, 2 * NAP), "3": (0, 0),
    })  # fmt: skip


def test_a_module_that_is_called_twice_has_the_time_of_both_calls_under_its_first_name(
    clock: Clock, tmp_path: Path
) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.slow = Slow(clock, NAP, 2 * NAP)
            self.tied = self.slow

        def forward(self, x: Tensor) -> Tensor:
            return self.tied(self.first(self.slow(self.first(x))))

    expect(timed(Twice(), tmp_path), {"": (2 * NAP, 4 * NAP), "first": (0, 0), "slow": (2 * NAP, 4 * NAP)})


def test_the_passes_of_a_step_add_up(clock: Clock, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), Slow(clock, NAP, 2 * NAP))
    expect(timed(model, tmp_path, passes=3), {"": (3 * NAP, 6 * NAP), "0": (0, 0), "1": (3 * NAP, 6 * NAP)})


def test_the_turns_of_two_optimizers_add_up_to_one_step(clock: Clock, tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(6, 6), Slow(clock, NAP, NAP)), "b": nn.Linear(6, 6)})
    optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in model.values()]
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for _ in range(STEPS):
            for optimizer in optimizers:
                model.zero_grad()
                model["b"](model["a"](torch.randn(4, 6))).mean().backward()
                optimizer.step()
    for path in ("a", "a.1"):
        steps, forward, backward = open_run(tmp_path / "run").times(path)
        assert steps.tolist() == list(range(STEPS))
        assert forward == pytest.approx([2 * NAP] * STEPS)
        assert backward == pytest.approx([2 * NAP] * STEPS)


def test_a_module_that_did_not_run_has_no_time(tmp_path: Path) -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    expect(timed(Routed(), tmp_path), {"": (0, 0), "used": (0, 0)})


def test_an_evaluation_between_steps_is_nobodys_time(clock: Clock, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), Slow(clock, NAP, NAP))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for _ in range(STEPS):
            model(torch.randn(4, 6)).mean().backward()
            optimizer.step()
            with torch.no_grad():
                model(torch.randn(4, 6))
    expect(open_run(tmp_path / "run"), {"": (NAP, NAP), "0": (0, 0), "1": (NAP, NAP)})


def test_a_step_is_timed_from_its_first_pass_to_the_next_ones(clock: Clock, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), Slow(clock, NAP, 2 * NAP))
    run = timed(model, tmp_path)
    steps, seconds = run.gauge("step_seconds")
    assert steps.tolist() == list(range(STEPS - 1)), "of the last one nobody saw the end"
    assert seconds == pytest.approx([3 * NAP] * (STEPS - 1), abs=OURS)
    tracing = run.gauge("tracing_seconds")[1]
    assert tracing.min() > 0
    assert tracing.max() < OURS, "the clock stood still meanwhile"
    assert run.gauge("interval")[1].tolist() == [1] * (STEPS - 1)
