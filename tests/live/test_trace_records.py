"""What a run holds beside the statistics, against the same numbers taken by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tensorscope
from tensorscope import Run, open_run

Optimize = Callable[[nn.Module], list[torch.optim.Optimizer]]
SINGLE = 1e-5  # relative: what float32 storage and summing leave
SAMPLED = 0.12  # relative: the root mean square of 1024 elements of many
SPARSE = 0.35  # likewise, where one row in five has changed


def mlp(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 1))


def exact_ratios(model: nn.Module, step: Callable[[], Any]) -> dict[str, float]:
    """‖ΔW‖ / ‖W‖ of every parameter over one step, by copies, in float64."""
    before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    step()
    after = {name: p.detach().double() for name, p in model.named_parameters()}
    return {name: float((after[name] - before[name]).norm() / before[name].norm()) for name in before}


def train(
    model: nn.Module, optimize: Optimize, batch: Callable[[], Tensor], folder: Path, steps: int = 4
) -> tuple[Run, list[dict[str, float]]]:
    """A traced training, and the exact ratios of its steps."""
    ratios = []
    optimizers = optimize(model)
    with tensorscope.trace(model, folder / "run", every=1):
        for _ in range(steps):
            for optimizer in optimizers:
                optimizer.zero_grad()
            model(batch()).square().mean().backward()
            ratios.append(exact_ratios(model, lambda: [optimizer.step() for optimizer in optimizers]))
    run = open_run(folder / "run")
    assert run.notes == []
    return run, ratios


# --- updates ---------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Optimize] = {
    "sgd": lambda model: [torch.optim.SGD(model.parameters(), 0.1)],
    "momentum": lambda model: [torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)],
    "adam": lambda model: [torch.optim.Adam(model.parameters(), 1e-2)],
    "fused adam": lambda model: [torch.optim.AdamW(model.parameters(), 1e-2, fused=True)],
    "a loop over parameters": lambda model: [torch.optim.RMSprop(model.parameters(), 1e-3, foreach=False)],
    "one per layer": lambda model: [
        torch.optim.SGD(model.get_submodule("0").parameters(), 0.1),
        torch.optim.Adam(model.get_submodule("2").parameters()),
    ],
}  # fmt: skip


@pytest.mark.parametrize("optimize", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_update_ratio_of_a_small_parameter_is_exact(optimize: Optimize, tmp_path: Path) -> None:
    run, ratios = train(mlp(), optimize, lambda: torch.randn(16, 6), tmp_path)
    for name in ratios[0]:
        steps, values = run.update_ratio(name)
        assert steps.tolist() == list(range(4))
        assert values == pytest.approx([ratio[name] for ratio in ratios], rel=SINGLE), name


def test_the_update_ratio_of_a_large_parameter_is_that_of_a_sample(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 300), nn.Tanh(), nn.Linear(300, 200))
    run, ratios = train(model, OPTIMIZERS["sgd"], lambda: torch.randn(16, 6), tmp_path)
    assert run.update_ratio("2.weight")[1] == pytest.approx([ratio["2.weight"] for ratio in ratios], rel=SAMPLED)
    assert run.update_ratio("2.bias")[1] == pytest.approx([ratio["2.bias"] for ratio in ratios], rel=SINGLE)


@pytest.mark.parametrize("sparse", [True, False])
def test_the_update_of_an_embedding_is_seen_though_few_rows_change(sparse: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(1000, 16, sparse=sparse), nn.Linear(16, 1))
    rows = torch.arange(0, 1000, 5)

    def optimize(model: Any) -> list[torch.optim.Optimizer]:
        both = [torch.optim.SparseAdam(model[0].parameters(), 0.1), torch.optim.SGD(model[1].parameters(), 0.1)]
        return both if sparse else [torch.optim.SGD(model.parameters(), 0.1)]

    run, ratios = train(model, optimize, lambda: rows, tmp_path)
    assert run.update_ratio("0.weight")[1] == pytest.approx([ratio["0.weight"] for ratio in ratios], rel=SPARSE)
    assert run.update_ratio("1.weight")[1] == pytest.approx([ratio["1.weight"] for ratio in ratios], rel=SINGLE)


def test_a_frozen_parameter_has_no_update_and_one_that_is_released_gets_one(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model[0].requires_grad_(requires_grad=False)  # type: ignore[index]
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for step in range(6):
            if step == 3:
                model.requires_grad_(requires_grad=True)
            optimizer.zero_grad()
            model(torch.randn(4, 6)).mean().backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    assert run.update_ratio("2.weight")[0].tolist() == list(range(6))
    assert run.update_ratio("0.weight")[0].tolist() == [3, 4, 5]
    assert [(seen["step"], seen["frozen"]) for seen in run.modes] == [(0, ["0"]), (3, [])]


# --- optimizers ------------------------------------------------------------------------------------------------------


def test_the_learning_rate_of_each_group_is_what_the_schedule_made_it(tmp_path: Path) -> None:
    model = mlp()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.5, "momentum": 0.8}]  # type: ignore[index]
    optimizer = torch.optim.SGD(groups, 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).mean().backward()
            optimizer.step()
            schedule.step()
    run = open_run(tmp_path / "run")
    halved = np.array([1, 1, 0.5, 0.5, 0.25, 0.25])
    assert run.gauge("lr")[0].tolist() == list(range(6))
    assert run.gauge("lr")[1].tolist() == (0.1 * halved).tolist()
    assert run.gauge("lr[1]")[1].tolist() == (0.5 * halved).tolist()
    assert run.gauge("momentum[1]")[1].tolist() == [0.8] * 6
    (described,) = run.optimizers
    assert described["type"] == "SGD"
    assert [group["parameters"] for group in described["groups"]] == [["0.weight", "0.bias"], ["2.weight", "2.bias"]]
    assert described["groups"][0]["settings"]["nesterov"] is False


def test_a_second_optimizer_has_gauges_of_its_own(tmp_path: Path) -> None:
    run, _ = train(mlp(), OPTIMIZERS["one per layer"], lambda: torch.randn(4, 6), tmp_path)
    assert run.gauge("lr")[1].tolist() == [0.1] * 4
    assert run.gauge("optimizer2.lr")[1].tolist() == [1e-3] * 4
    assert run.gauge("optimizer2.beta1")[1].tolist() == [0.9] * 4
    assert [described["type"] for described in run.optimizers] == ["SGD", "Adam"]


def test_the_factor_that_gradients_were_clipped_by_is_a_gauge(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    factors = []
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for step in range(6):
            optimizer.zero_grad()
            (10.0**step * model(torch.randn(16, 6))).mean().backward()
            norm = float(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
            factors.append(min(1.0, 1.0 / (norm + 1e-6)))
            optimizer.step()
    steps, clipped = open_run(tmp_path / "run").gauge("clip")
    assert steps.tolist() == list(range(6))
    assert clipped == pytest.approx(factors, rel=1e-4)
    assert clipped[0] > 0.1 > clipped[-1], "the training clips ever more"


@pytest.mark.parametrize("after_the_pass", [True, False])
@pytest.mark.parametrize("in_a_function", [True, False])
def test_each_step_of_an_optimizer_that_is_made_anew_for_it_counts(
    in_a_function: bool, after_the_pass: bool, tmp_path: Path
) -> None:
    model = mlp()

    def step(number: int) -> torch.optim.Optimizer:
        optimizer = None if after_the_pass else torch.optim.Adam(model.parameters(), 1e-2)
        loss = model(torch.randn(4, 6)).square().mean()
        optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trace.log(loss=loss, number=number)
        return optimizer

    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        kept = None
        for number in range(20):
            kept = step(number)
            if in_a_function:
                kept = None  # it is gone before the next one is made
    del kept
    run = open_run(tmp_path / "run")
    assert run.measured_steps == list(range(20))
    assert run.scalars("number")[0].tolist() == run.scalars("number")[1].tolist() == list(range(20))
    assert run.update_ratio("0.weight")[0].tolist() == list(range(20))
    assert run.notes == []


# --- what there is, and how it was sampled ---------------------------------------------------------------------------


def test_memory_is_what_the_system_says(tmp_path: Path) -> None:
    kept: list[Tensor] = []
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for step in range(4):
            if step == 2:
                kept.append(torch.ones(32 << 20))  # 128 MiB
            optimizer.zero_grad()
            model(torch.randn(4, 6)).mean().backward()
            optimizer.step()
    memory = open_run(tmp_path / "run").gauge("memory")[1]
    assert len(memory) == 4
    assert memory[2:].min() - memory[:2].max() > 100 << 20


def test_modes_are_recorded_when_they_change(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.Linear(6, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for step in range(6):
            model.train(mode=step != 4)
            model[1].train(mode=step < 2)
            optimizer.zero_grad()
            model(torch.randn(4, 6)).mean().backward()
            optimizer.step()
    seen = [(change["step"], change["training"], change["toggled"]) for change in open_run(tmp_path / "run").modes]
    assert seen == [(0, True, []), (2, True, ["1"]), (4, False, []), (5, True, ["1"])]


def test_flops_are_those_that_torch_counts(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))
    x = torch.randn(5, 1, 8, 8)
    with FlopCounterMode(display=False) as counter:
        model(x)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        model(x).sum().backward()
    run = open_run(tmp_path / "run")
    assert run.graph is not None
    assert run.graph.flops[""] == counter.get_total_flops()
    assert run.graph.flops["0"] + run.graph.flops["3"] == counter.get_total_flops()
    assert run.graph.flops["3"] == 2 * 5 * 4 * 64 * 10
    (conv,) = run.shapes("0")
    assert (conv.dims, conv.dtype, conv.nbytes) == ((5, 4, 8, 8), "float32", 5 * 4 * 8 * 8 * 4)
    assert {module.path: module.bytes for module in run.modules} == {"": 0, "0": 160, "1": 0, "2": 0, "3": 10280}


def test_the_run_says_how_it_was_sampled_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1"])
    torch.manual_seed(1234)
    for command in (["init"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    with tensorscope.trace(mlp(), "run", every=3, overhead=0.07):
        pass
    meta = open_run("run").meta
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert meta["git"]["commit"] == commit
    assert meta["git"]["dirty"] is False
    assert (meta["every"], meta["overhead"], meta["model"], meta["status"]) == (3, 0.07, "Sequential", "finished")
    assert (meta["argv"], meta["seed"]) == (["train.py", "--lr", "0.1"], 1234)
    assert (meta["torch"], meta["numpy"]) == (torch.__version__, np.__version__)
    assert meta["tensorscope"] == tensorscope.__version__
    assert isinstance(meta["kernel"], bool)
    assert meta["parameters"] == 6 * 8 + 8 + 8 + 1


def test_every_n_measures_the_steps_that_n_divides(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, tmp_path / "run", every=5) as trace:
        for _ in range(23):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 6)).mean()
            loss.backward()
            optimizer.step()
            trace.log(loss=loss)
    run = open_run(tmp_path / "run")
    assert run.measured_steps == [0, 5, 10, 15, 20]
    assert run.scalars("loss")[0].tolist() == list(range(23))
    for name in ("lr", "memory", "momentum", "clip"):
        assert run.gauge(name)[0].tolist() == [0, 5, 10, 15, 20], name
    assert run.update_ratio("0.weight")[0].tolist() == [0, 5, 10, 15, 20]
    assert run.gauge("interval")[1].tolist() == [5] * len(run.gauge("interval")[1])
    assert run.histograms("0")[0][0] == 0


def test_an_interval_that_adapts_and_its_changes_are_in_the_run(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(40)))  # measuring costs many times the step
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, tmp_path / "run", overhead=0.01):
        for _ in range(300):
            optimizer.zero_grad()
            model(torch.randn(2, 4)).mean().backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    steps, intervals = run.gauge("interval")
    assert run.meta["every"] is None
    assert intervals[0] == 1
    assert intervals[-1] > 4
    assert all(np.log2(intervals) % 1 == 0)
    assert all(step % interval == 0 for step, interval in zip(steps, intervals, strict=True))
    assert run.meta["interval"] >= intervals.max() / 2
    assert len(run.measured_steps) < 100
