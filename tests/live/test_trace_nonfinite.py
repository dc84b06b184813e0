"""A number that stops being finite between two measured steps: the run names the step, the module, the operation."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tensorscope
from tensorscope import Finding, Run, diagnose, open_run
from tensorscope.run.origin import Direction

STEPS, BAD = 45, 37
MARK = 1e3
SAMPLING = [50, None, 1]  # the bad step is not measured, may be, is


class Ratio(nn.Module):
    """Divides by what may be 0."""

    divisor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.full_like(x, self.divisor)


class Root(nn.Module):
    """Takes a root of what may be 0: finite forward, infinite backward."""

    shift = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return (x.abs() * self.shift).sqrt()


class Marked(nn.Module):
    """Divides by 0 where the input is as large as `MARK`."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x < MARK)


def marked() -> nn.Module:
    return nn.Sequential(Marked(), nn.Linear(6, 8), nn.Linear(8, 1))


def network(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), middle, nn.Linear(8, 1))


Loss = Callable[[Tensor, int], Tensor]
Prepare = Callable[[nn.Module, int], None]


def square(output: Tensor, step: int) -> Tensor:
    return output.square().mean()


def nothing(model: nn.Module, step: int) -> None:
    pass


def trained(
    folder: Path, model: nn.Module, every: int | None, *, prepare: Prepare = nothing, loss_of: Loss = square, **how: Any
) -> Run:
    """A training of `STEPS` steps; steps whose loss is bad are skipped if `how` says `skips`."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with tensorscope.trace(model, folder / "run", every=every) as trace:
        for step in range(STEPS):
            prepare(model, step)
            x = torch.randn(4, 6)
            if step == BAD:
                x[2] = how.get("planted", x[2])
            loss = loss_of(model(x), step)
            optimizer.zero_grad()
            if how.get("logs"):
                trace.log(loss=loss)
            if how.get("skips") and not torch.isfinite(loss):
                continue
            loss.backward()
            optimizer.step()
    run = open_run(folder / "run")
    assert run.notes == []
    return run


def only(run: Run) -> Finding:
    (finding,) = diagnose(run)
    assert finding.rule == "nan_inf"
    return finding


def set_at(name: str, value: float, **healthy: float) -> Prepare:
    """Give the module in the middle a bad attribute in the bad step alone."""

    def prepare(model: nn.Module, step: int) -> None:
        setattr(model[2], name, value if step == BAD else 1.0)  # type: ignore[index]

    return prepare


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", SAMPLING)
def test_a_forward_that_divides_by_zero_is_found(every: int | None, tmp_path: Path) -> None:
    run = trained(tmp_path, network(Ratio()), every, prepare=set_at("divisor", 0.0))
    finding = only(run)
    assert (finding.first_step, finding.site) == (BAD, "2")
    assert re.match(r"`div` at \S*test_trace_nonfinite.py:\d+ in `2` divided by 32 zeros in `", finding.summary)
    assert run.origin is not None
    assert run.origin.sure
    assert run.origin.where is not None
    assert run.origin.where.code == "return x / torch.full_like(x, self.divisor)"


@pytest.mark.parametrize("every", SAMPLING)
def test_a_backward_through_the_root_of_zero_is_found(every: int | None, tmp_path: Path) -> None:
    run = trained(tmp_path, network(Root()), every, prepare=set_at("shift", 0.0))
    finding = only(run)
    assert (finding.first_step, finding.site) == (BAD, "2")
    assert re.match(r"the backward of `sqrt` at \S*test_trace_nonfinite.py:\d+ in `2` gave", finding.summary)
    assert run.origin is not None
    assert run.origin.direction is Direction.BACKWARD
    assert run.origin.where is not None
    assert run.origin.where.code == "return (x.abs() * self.shift).sqrt()"


@pytest.mark.parametrize("every", SAMPLING)
@pytest.mark.parametrize("logs", [True, False])
def test_a_loss_that_takes_the_log_of_zero_is_found(logs: bool, every: int | None, tmp_path: Path) -> None:
    def log_of_zero(output: Tensor, step: int) -> Tensor:
        return (output * (step != BAD)).square().log().mean()

    finding = only(trained(tmp_path, network(nn.Identity()), every, loss_of=log_of_zero, logs=logs))
    assert (finding.first_step, finding.site) == (BAD, "loss")


@pytest.mark.parametrize("every", SAMPLING)
def test_an_input_that_holds_nan_is_found(every: int | None, tmp_path: Path) -> None:
    finding = only(trained(tmp_path, network(nn.Identity()), every, planted=torch.nan))
    assert (finding.first_step, finding.site) == (BAD, "input")
    assert "held 6 values not finite" in finding.summary


@pytest.mark.parametrize("every", SAMPLING)
def test_a_parameter_that_was_made_nan_is_found(every: int | None, tmp_path: Path) -> None:
    def spoil(model: nn.Module, step: int) -> None:
        if step == BAD:
            with torch.no_grad():
                model[3].weight[0, 5] = torch.nan  # type: ignore[index]

    run = trained(tmp_path, network(nn.Identity()), every, prepare=spoil)
    finding = only(run)
    assert (finding.first_step, finding.site) == (BAD, "3.weight")
    assert finding.last_step == STEPS - 1, "it stays"
    assert run.nonfinite == {"first": BAD, "last": STEPS - 1, "steps": STEPS - BAD}


def test_the_run_of_a_model_without_measured_steps_has_its_finding_all_the_same(tmp_path: Path) -> None:
    """A resumed run may go wrong before its first measured step."""
    first = network(Ratio())
    optimizer = torch.optim.SGD(first.parameters(), 1e-3)
    first[2].divisor = 0.0  # type: ignore[index]
    tensorscope.trace(first, tmp_path / "run", every=1000).close()
    with tensorscope.trace(first, tmp_path / "run", every=1000, resume=3):
        first(torch.randn(4, 6)).mean().backward()
        optimizer.step()
    finding = only(open_run(tmp_path / "run"))
    assert (finding.first_step, finding.site) == (3, "2")


# --- loops that are written otherwise --------------------------------------------------------------------------------


@pytest.mark.parametrize("every", SAMPLING)
@pytest.mark.parametrize("logs", [True, False])
def test_a_step_that_is_skipped_because_its_loss_was_bad_is_found_and_is_the_only_one(
    logs: bool, every: int | None, tmp_path: Path
) -> None:
    run = trained(tmp_path, marked(), every, planted=MARK, skips=True, logs=logs)
    finding = only(run)
    assert (finding.first_step, finding.last_step, finding.site) == (BAD, BAD, "0")
    assert run.nonfinite == {"first": BAD, "last": BAD, "steps": 1}


def test_a_last_step_that_is_skipped_is_found_too(tmp_path: Path) -> None:
    model = marked()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with tensorscope.trace(model, tmp_path / "run", every=50):
        for step in range(STEPS):
            x = torch.full((4, 6), MARK) if step == STEPS - 1 else torch.randn(4, 6)
            loss = model(x).square().mean()
            if not torch.isfinite(loss):
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finding = only(open_run(tmp_path / "run"))
    assert (finding.first_step, finding.site) == (STEPS - 1, "0")


def test_a_model_that_was_changed_before_it_could_be_run_again_leaves_doubt(tmp_path: Path) -> None:
    run = trained(tmp_path, network(Ratio()), 50, prepare=set_at("divisor", 0.0), skips=True)
    finding = only(run)
    assert (finding.first_step, finding.site) == (BAD, "<root>")
    assert run.origin is not None
    assert not run.origin.sure
    assert "did not when it was run again" in finding.summary


def test_in_gradient_accumulation_the_bad_one_of_several_passes_is_found(tmp_path: Path) -> None:
    model = marked()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with tensorscope.trace(model, tmp_path / "run", every=50):
        for step in range(STEPS):
            optimizer.zero_grad()
            for part in range(4):
                x = torch.full((4, 6), MARK) if (step, part) == (BAD, 1) else torch.randn(4, 6)
                output = model(x)
                output.square().mean().backward()
            optimizer.step()
    finding = only(open_run(tmp_path / "run"))
    assert (finding.first_step, finding.site) == (BAD, "0")
    assert "`div`" in finding.summary


def test_what_happened_in_the_backward_of_an_earlier_pass_is_told_with_doubt(tmp_path: Path) -> None:
    model = network(Root())
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with tensorscope.trace(model, tmp_path / "run", every=50):
        for step in range(STEPS):
            optimizer.zero_grad()
            for part in range(2):
                model[2].shift = 0.0 if (step, part) == (BAD, 0) else 1.0  # type: ignore[index]
                model(torch.randn(4, 6)).square().mean().backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    finding = only(run)
    assert finding.first_step == BAD
    assert run.origin is not None
    assert not run.origin.sure
    assert run.origin.step == BAD, "the parameters that it spoiled are no origin"


def test_of_two_optimizers_the_one_that_has_no_pass_of_its_own_is_found_with_its_step(tmp_path: Path) -> None:
    model = network(nn.Identity())
    optimizers = [torch.optim.SGD(model[0].parameters(), 1e-3), torch.optim.SGD(model[3].parameters(), 1e-3)]  # type: ignore[index]
    with tensorscope.trace(model, tmp_path / "run", every=50):
        for step in range(STEPS):
            model.zero_grad()
            model(torch.randn(4, 6)).square().mean().backward()
            if step == BAD:
                model[3].weight.grad.fill_(torch.inf)  # type: ignore[index]
            for optimizer in optimizers:
                optimizer.step()
    run = open_run(tmp_path / "run")
    finding = only(run)
    assert finding.first_step == BAD
    assert finding.rule == "nan_inf"


def test_a_step_that_raises_is_no_finding_and_the_next_bad_one_is(tmp_path: Path) -> None:
    class Raises(Ratio):
        def forward(self, x: Tensor) -> Tensor:
            if self.divisor == -1:
                raise ValueError("the user's own")
            return super().forward(x)

    model = network(Raises())
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with tensorscope.trace(model, tmp_path / "run", every=50):
        for step in range(STEPS):
            model[2].divisor = {20: -1.0, BAD: 0.0}.get(step, 1.0)  # type: ignore[index]
            optimizer.zero_grad()
            try:
                model(torch.randn(4, 6)).square().mean().backward()
            except ValueError:
                continue
            optimizer.step()
    finding = only(open_run(tmp_path / "run"))
    assert (finding.first_step, finding.site) == (BAD - 1, "2"), "what raised was no step"


# --- what is no finding ----------------------------------------------------------------------------------------------


class Policy(nn.Module):
    """Forbids an action by −Inf."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).masked_fill(torch.tensor([False, True, False, False]), -torch.inf)


@pytest.mark.parametrize("every", SAMPLING)
def test_the_infinities_of_a_policy_are_legal(every: int | None, tmp_path: Path) -> None:
    def chosen(output: Tensor, step: int) -> Tensor:
        return nn.functional.cross_entropy(output, torch.zeros(4, dtype=torch.long))

    run = trained(tmp_path, Policy(), every, loss_of=chosen)
    assert diagnose(run) == []
    assert run.origin is None
    assert run.nonfinite is None


@pytest.mark.parametrize("every", SAMPLING)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscales", [False, True])
def test_an_overflow_that_a_gradient_scaler_catches_is_no_finding(
    unscales: bool, fused: bool, every: int | None, tmp_path: Path
) -> None:
    model = network(nn.Identity())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=10)
    scales = []
    with tensorscope.trace(model, tmp_path / "run", every=every):
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = (1e6 * model(torch.randn(4, 6))).square().mean()
            scaler.scale(loss).backward()
            if unscales:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
    run = open_run(tmp_path / "run")
    assert any(later < earlier for earlier, later in pairwise(scales)), "it did overflow"
    assert diagnose(run) == []
    assert run.origin is None
    assert run.nonfinite is None


@pytest.mark.parametrize("every", SAMPLING)
def test_a_training_that_recovers_says_when_it_was_bad(every: int | None, tmp_path: Path) -> None:
    """A step that is taken back: parameters are restored from a copy."""
    model = network(Ratio())
    kept: dict[str, Tensor] = {}

    def prepare(model: nn.Module, step: int) -> None:
        if step == BAD:
            kept.update({name: p.detach().clone() for name, p in model.state_dict().items()})
        if step == BAD + 1:
            model.load_state_dict(kept)
        set_at("divisor", 0.0)(model, step)

    run = trained(tmp_path, model, every, prepare=prepare)
    finding = only(run)
    assert (finding.first_step, finding.last_step, finding.site) == (BAD, BAD, "2")
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_an_evaluation_that_returns_nan_is_not_laid_to_the_training(tmp_path: Path) -> None:
    model = network(Ratio())
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with tensorscope.trace(model, tmp_path / "run", every=50):
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                model(torch.full((1, 6), torch.nan))
    assert diagnose(open_run(tmp_path / "run")) == []


def test_bad_steps_that_nobody_could_look_into_are_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An accelerator's answer comes when the parameters have changed already."""
    run = trained(tmp_path, network(nn.Identity()), 50)
    monkeypatch.setattr(Run, "nonfinite", {"first": BAD, "last": BAD + 3, "steps": 4})
    finding = only(run)
    assert (finding.site, finding.first_step, finding.last_step) == (None, BAD, BAD + 3)
    assert finding.evidence["bad_steps"] == 4
    assert "trace(model, every=1)" in finding.hint
