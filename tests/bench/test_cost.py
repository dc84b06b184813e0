"""What tracing costs, as a ratio over the bare step: printed, never judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median

import pytest
import torch
from models import CASES, Case

import tensorscope

ROUNDS = 12  # times that every way is measured, in turn
STEPS = 5  # steps a round; the first of them is not counted

pytestmark = pytest.mark.bench
Way = Callable[[], AbstractContextManager[object]]


@pytest.mark.parametrize("make", CASES)
def test_cost_of_a_traced_step(make: Callable[[], Case], tmp_path: Path) -> None:
    case = make()
    optimizer = torch.optim.AdamW(case.model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        case.loss().backward()
        optimizer.step()

    number = iter(range(10_000))

    def traced(every: int | None) -> Way:
        return lambda: tensorscope.trace(case.model, tmp_path / str(next(number)), every=every)

    ways: dict[str, Way] = {"bare": nullcontext, "every step": traced(1), "every 10th step": traced(10)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    step()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            with way():
                step()  # the first one captures the graph
                for _ in range(STEPS):
                    began = time.perf_counter()
                    step()
                    seconds[name].append(time.perf_counter() - began)
    bare = median(seconds["bare"])
    modules = sum(1 for _ in case.model.modules())
    print(f"\n{case.name}: bare step {bare * 1e3:.1f} ms, {modules} modules")
    for name in list(ways)[1:]:
        # The mean of the middle half, since only some steps are measured.
        print(f"  {name:16} {_middle_mean(seconds[name]) / _middle_mean(seconds['bare']):.3f}")


@pytest.mark.parametrize("make", CASES)
def test_cost_at_defaults_over_a_training(make: Callable[[], Case], tmp_path: Path) -> None:
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(3):
        for traced, kept in seconds.items():
            case = make()
            optimizer = torch.optim.AdamW(case.model.parameters(), 1e-4)
            with tensorscope.trace(case.model, tmp_path / str(turn)) if traced else nullcontext():
                began = 0.0
                for step in range(60):
                    if step == 20:  # the interval has settled
                        began = time.perf_counter()
                    optimizer.zero_grad()
                    case.loss().backward()
                    optimizer.step()
            kept.append(time.perf_counter() - began)
    print(f"\n{case.name}: at defaults {median(seconds[True]) / median(seconds[False]):.3f} of the bare training")


def _middle_mean(values: list[float]) -> float:
    ordered = sorted(values)
    cut = len(ordered) // 4
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)
