"""Rules on real trainings: sick ones are named with their place, their repaired twins are left in peace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tensorscope
from tensorscope import Finding, diagnose, open_run
from tensorscope.events import Severity

Loss = Callable[[Tensor, Tensor], Tensor]


def blobs(count: int = 512, features: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Classes that a linear model can tell apart."""
    y = torch.randint(0, classes, (count,))
    return torch.randn(classes, features)[y] * 2 + torch.randn(count, features), y


def findings(
    model: nn.Module,
    folder: Path,
    *,
    loss: Loss = nn.functional.cross_entropy,
    lr: float = 1e-2,
    steps: int = 40,
    poison: Callable[[int, Tensor], None] = lambda step, x: None,
) -> list[Finding]:
    """Train on blobs in batches of 64 and diagnose."""
    x, y = blobs()
    optimizer = torch.optim.Adam(model.parameters(), lr)
    with tensorscope.trace(model, folder / "run", every=1) as trace:
        for step in range(steps):
            chosen = torch.randint(0, len(x), (64,))
            batch = x[chosen].clone()
            poison(step, batch)
            optimizer.zero_grad()
            value = loss(model(batch), y[chosen])
            value.backward()
            optimizer.step()
            trace.log(loss=value)
    run = open_run(folder / "run")
    assert run.findings == diagnose(run), "what was stored at the end is what the rules say now"
    return run.findings


def mlp(depth: int = 3, activation: type[nn.Module] = nn.ReLU, width: int = 24) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(12 if index == 0 else width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


class Divider(nn.Module):
    """Divides by the norm, which may be 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)


class SqrtAtZero(nn.Module):
    """Finite forward, infinite backward."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (x * 0).sqrt()


class LogBetween(nn.Module):
    """The model itself does the harm, between two of its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).log())


def zero_row_at_20(step: int, x: Tensor) -> None:
    if step == 20:
        x[3] = 0


def nan_at_20(step: int, x: Tensor) -> None:
    if step == 20:
        x[3, 1] = float("nan")


@pytest.mark.parametrize("model", [mlp(), mlp(8), mlp(2, nn.Tanh), mlp(3, nn.Sigmoid), nn.Linear(12, 3)])
def test_healthy_trainings_have_no_finding(model: nn.Module, tmp_path: Path) -> None:
    assert [f for f in findings(model, tmp_path, steps=80) if f.severity is not Severity.INFO] == []


def test_nan_in_a_batch_is_blamed_on_the_input(tmp_path: Path) -> None:
    (finding,) = findings(mlp(), tmp_path, poison=nan_at_20)
    assert (finding.rule, finding.site, finding.first_step) == ("nan_inf", "input", 20)
    assert finding.severity is Severity.ERROR


def test_a_division_by_zero_is_blamed_on_its_module(tmp_path: Path) -> None:
    (finding,) = findings(nn.Sequential(Divider(), mlp()), tmp_path, poison=zero_row_at_20)
    assert (finding.rule, finding.site, finding.first_step) == ("nan_inf", "0", 20)
    assert "at step 20" in finding.summary
    assert finding.evidence["nonfinite"] == 12


def test_an_operation_between_modules_is_blamed_on_the_module_around_it(tmp_path: Path) -> None:
    (finding,) = findings(LogBetween(), tmp_path)
    assert (finding.rule, finding.site, finding.first_step) == ("nan_inf", "<root>", 0)
    assert finding.summary.startswith("`log` at ")
    assert "`self.first(x)`" in finding.summary


def test_an_infinite_backward_is_blamed_on_the_module_whose_backward_it_is(tmp_path: Path) -> None:
    (finding,) = findings(nn.Sequential(nn.Linear(12, 8), SqrtAtZero(), nn.Linear(8, 3)), tmp_path)
    assert (finding.rule, finding.site, finding.first_step) == ("nan_inf", "1", 0)


def test_a_loss_that_divides_by_zero_is_blamed(tmp_path: Path) -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y) / (y == 7).sum()

    (finding,) = findings(mlp(), tmp_path, loss=loss)
    assert (finding.rule, finding.site, finding.first_step) == ("nan_inf", "loss", 0)


def test_the_infinity_of_an_attention_mask_is_no_fault(tmp_path: Path) -> None:
    class Mask(nn.Module):
        def forward(self, scores: Tensor) -> Tensor:
            return scores.masked_fill(torch.eye(12, dtype=torch.bool).logical_not(), -torch.inf)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask, self.head = Mask(), mlp()

        def forward(self, x: Tensor) -> Tensor:
            weights = self.mask(x[:, :, None] * x[:, None, :]).softmax(-1)
            return self.head((weights @ x[:, :, None])[:, :, 0])

    assert findings(Masked(), tmp_path) == []


def test_a_dead_rectifier_is_the_cause_and_what_follows_from_it_is_left_out(tmp_path: Path) -> None:
    model = mlp(4)
    with torch.no_grad():
        model[2].weight.abs_().neg_()
        model[2].bias.fill_(-1)
    (finding,) = findings(model, tmp_path)
    assert (finding.rule, finding.site, finding.severity) == ("dead_relu", "3", Severity.ERROR)
    assert finding.evidence["dead_fraction"] == 1
    assert finding.first_step == 9, "as soon as the window is full"


def test_a_half_dead_rectifier_of_a_network_that_learns_is_worth_a_word_only(tmp_path: Path) -> None:
    model = mlp(1)
    with torch.no_grad():
        model[0].bias[:16] = -100
    (finding,) = findings(model, tmp_path, steps=80)
    assert (finding.rule, finding.site, finding.severity) == ("dead_relu", "1", Severity.INFO)


def test_a_half_dead_rectifier_of_a_network_that_does_not_learn_is_a_warning(tmp_path: Path) -> None:
    model = mlp(1)
    with torch.no_grad():
        model[0].bias[:16] = -100
    (finding,) = findings(model, tmp_path, lr=1e-7)
    assert finding.severity is Severity.WARNING


def test_a_deep_sigmoid_stack_has_vanishing_gradients_and_a_relu_stack_has_not(tmp_path: Path) -> None:
    (finding,) = findings(mlp(10, nn.Sigmoid), tmp_path / "sick")
    assert (finding.rule, finding.site) == ("vanishing_gradient", "0")
    assert finding.evidence["ratio"] < 1e-4
    healthy = mlp(10)
    for layer in healthy:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    assert findings(healthy, tmp_path / "well", lr=1e-3) == []


def test_too_few_steps_are_no_trend(tmp_path: Path) -> None:
    assert findings(mlp(10, nn.Sigmoid), tmp_path, steps=5) == []


def test_a_run_without_a_step_has_no_finding(tmp_path: Path) -> None:
    with tensorscope.trace(mlp(), tmp_path / "run"):
        pass
    assert diagnose(open_run(tmp_path / "run")) == []


def test_findings_can_be_asked_while_training(tmp_path: Path) -> None:
    model = nn.Sequential(Divider(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        for _ in range(2):
            model(torch.zeros(2, 4)).sum().backward()
            optimizer.step()
        assert [(finding.rule, finding.site) for finding in trace.findings()] == [("nan_inf", "0")]
