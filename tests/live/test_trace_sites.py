"""A trace sees everything: sites, steps, shapes, whatever the model and the loop look like."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from trace_models import Recurrent, Small, data, hooks_of, traced

import tensorscope
from tensorscope import open_run

# --- what is seen ----------------------------------------------------------------------------------------------------


def test_every_site_is_recorded_at_every_step(tmp_path: Path) -> None:
    run = traced(Small(), tmp_path)
    assert run.steps == run.measured_steps == list(range(6))
    outputs = {"conv", "norm", "relu", "drop", "head", "<root>"}
    gradients = {f"{site}:grad" for site in outputs}
    parameters = {f"{m}.{n}" for m in ("conv", "norm", "head") for n in ("weight", "bias")}
    of_parameters = {f"{p}{what}" for p in parameters for what in ("", ":grad", ":update")}
    assert set(run.sites) == outputs | gradients | of_parameters | {"<root>:input"}
    for site in run.sites:
        assert len(run.history(site, "rms")[0]) == 6, site
    assert not run.notes
    assert len(run.scalars("loss")[0]) == 6


def test_what_is_recorded_is_what_torch_computed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Small()
    twin = copy.deepcopy(model)
    x, y = data()
    kept: dict[str, Tensor] = {}
    for name in ("conv", "norm", "head"):

        def keep(_: nn.Module, __: Any, out: Tensor, name: str = name) -> None:
            kept[name] = out.detach().clone()  # before the in-place ReLU changes it
            out.register_hook(lambda grad, name=name: kept.update({f"{name}:grad": grad.clone()}))

        twin.get_submodule(name).register_forward_hook(keep)
    torch.manual_seed(5)
    nn.functional.cross_entropy(twin(x), y).backward()
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    stats = open_run(tmp_path / "run").stats_at()
    expected = kept | {f"{n}:grad": p.grad for n, p in twin.named_parameters()} | dict(twin.named_parameters())
    for site, tensor in expected.items():
        truth = tensor.detach().double()
        assert stats[site].mean == pytest.approx(truth.mean().item(), rel=1e-4, abs=1e-6), site
        assert stats[site].std == pytest.approx(truth.std(correction=0).item(), rel=1e-4), site
        assert stats[site].max == pytest.approx(truth.max().item(), rel=1e-6), site
        assert stats[site].count == truth.numel()


def test_calls_outputs_and_aliases_have_sites_of_their_own(tmp_path: Path) -> None:
    run = traced(Recurrent(), tmp_path, 2)
    assert {"lstm", "lstm[1.0]", "lstm[1.1]", "cell", "cell#1", "cell#7+", "head", "head#1"} <= set(run.sites)
    assert "cell#8" not in run.sites
    count = {site: stats.count for site, stats in run.stats_at().items()}
    assert count["cell#7+"] == 5 * count["cell"]  # calls 7 to 11 share a row
    (head,) = [module for module in run.modules if module.path == "head"]
    assert head.aliases == ("tied",)
    assert [m.parameters for m in run.modules if m.path == "tied"] == []


def test_shapes_carry_the_names_that_contracts_declare(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 3)

        @tensorscope.shapes("batch channels height width -> batch classes")
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(images.flatten(1))

    run = traced(Named(), tmp_path, 1)
    assert str(run.shapes("<root>")[0]) == "(batch=16, classes=3)"
    assert str(run.shapes("<root>:input")[0]) == "(batch=16, channels=1, height=8, width=8)"
    assert str(run.shapes("fc")[0]) == "(16, 3)"
    assert run.graph is not None
    assert "batch=16" in run.graph.to_dot()


def test_a_short_last_batch_is_a_new_shape(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for size in (8, 8, 3):
            model(torch.randn(size, 4)).sum().backward()
            optimizer.step()
    shapes = open_run(tmp_path / "run").shapes("0")
    assert [(shape.step, shape.dims) for shape in shapes] == [(0, (8, 2)), (2, (3, 2))]


@dataclass
class Output:
    """What a modern model returns."""

    logits: Tensor
    hidden: tuple[Tensor, ...]
    cache: None = None


def test_nested_outputs_and_keyword_inputs_are_seen(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, *, x: Tensor, extra: dict[str, Tensor]) -> Output:
            h = self.fc(x + extra["shift"])
            return Output(h * 2, (x.clone(), h + 1))

    model = Nested()
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        out = trace(x=torch.randn(3, 4), extra={"shift": torch.ones(4)})
        out.logits.sum().backward()
    run = open_run(tmp_path / "run")
    assert {"<root>", "<root>[hidden.0]", "<root>[hidden.1]", "<root>:input", "<root>:input[extra.shift]"} <= set(
        run.sites
    )
    assert run.graph is not None
    assert "shift" in run.graph.to_dot()


def test_without_an_optimizer_every_pass_is_a_step_and_gradients_are_seen(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for _ in range(3):
            model(torch.ones(2, 4)).sum().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(0.1 * parameter.grad)
                    parameter.grad = None
    run = open_run(tmp_path / "run")
    assert run.measured_steps == [0, 1, 2]
    assert run.history("weight:grad", "mean")[1].tolist() == [2.0] * 3
    assert hooks_of(model) == hooks_of(nn.Linear(4, 2))


def test_inference_alone_is_recorded_pass_by_pass(tmp_path: Path) -> None:
    model = nn.Linear(4, 2).eval()
    with tensorscope.trace(model, tmp_path / "run", every=1), torch.no_grad():
        for _ in range(3):
            model(torch.ones(2, 4))
    run = open_run(tmp_path / "run")
    assert run.measured_steps == [0, 1, 2]
    assert "<root>:grad" not in run.sites


def test_a_gan_with_two_optimizers_has_one_step_an_iteration(tmp_path: Path) -> None:
    model = nn.ModuleDict({"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)})
    g, d = model["g"], model["d"]
    optimizers = [torch.optim.Adam(part.parameters(), 1e-3) for part in (d, g)]
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        for _ in range(5):
            for optimizer, sign in zip(optimizers, (1, -1), strict=True):
                model.zero_grad()
                loss = sign * d(g(torch.randn(8, 2))).mean()
                loss.backward()
                optimizer.step()
            trace.log(loss=loss)
    run = open_run(tmp_path / "run")
    assert run.measured_steps == list(range(5))
    assert run.scalars("loss")[0].tolist() == list(range(5))


def test_gradient_accumulation_is_one_step_for_many_passes(tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        for step in range(12):
            loss = model(torch.full((2, 4), float(step))).mean() / 4
            loss.backward()
            if step % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
            trace.log(loss=loss)
    run = open_run(tmp_path / "run")
    assert run.measured_steps == [0, 1, 2]
    assert run.history("<root>:input", "count")[1].tolist() == [32.0] * 3, "all four passes, merged"
    assert run.history("<root>:input", "mean")[1].tolist() == [1.5, 5.5, 9.5]
    assert run.history("weight:grad", "count")[1].tolist() == [4.0] * 3, "the final gradient, once"


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_activations_are_seen_once_with_their_gradients(reentrant: bool, tmp_path: Path) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.second, self.first(x), use_reentrant=reentrant)

    model = Checkpointed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for _ in range(3):
            model(torch.randn(2, 4)).sum().backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    assert run.measured_steps == [0, 1, 2]
    assert run.stats_at()["second.0"].count == 8
    assert run.stats_at()["second.0:grad"].count == 8
    assert not run.notes


def test_parameters_that_no_optimizer_owns_are_seen_too(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].weight.requires_grad_(requires_grad=False)
    optimizers = [torch.optim.SGD([parameter], lr=0.1) for parameter in model[1].parameters()]
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for _ in range(3):
            model(torch.ones(2, 4)).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    run = open_run(tmp_path / "run")
    assert run.measured_steps == [0, 1, 2]
    for name, count in (("0.weight", 16), ("0.bias", 4), ("0.bias:grad", 4), ("1.weight:grad", 4), ("1.bias", 1)):
        assert run.history(name, "count")[1].tolist() == [count] * 3, name
    assert "0.weight:grad" not in run.sites


def test_the_interval_adapts_with_an_evaluation_after_every_step(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)))  # measuring costs many times the step
    with tensorscope.trace(model, tmp_path / "run", overhead=1e-6):
        train_vectors(model, steps=12)
    assert len(open_run(tmp_path / "run").measured_steps) < 6


def train_vectors(model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(steps):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        with torch.no_grad():
            model(torch.ones(2, 4))


def test_every_skips_steps_and_scalars_do_not(tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tensorscope.trace(model, tmp_path / "run", every=4) as trace:
        for step in range(10):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            trace.log(step=step)
    run = open_run(tmp_path / "run")
    assert run.measured_steps == [0, 4, 8]
    assert run.scalars("step")[1].tolist() == run.scalars("step")[0].tolist() == list(range(10))


def test_steps_can_be_set_by_hand(tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        for value in range(3):
            for _ in range(1 + value):
                model(torch.ones(2, 4))
            trace.log(value=value)
            trace.step()
    run = open_run(tmp_path / "run")
    assert run.scalars("value")[0].tolist() == [0, 1, 2]
    assert run.history("<root>", "count")[1].tolist() == [2, 4, 6]


def test_a_lazy_model_and_a_lbfgs_closure_work(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with tensorscope.trace(model, tmp_path / "run", every=1):
        model(torch.randn(2, 5))
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(torch.ones(2, 5)).square().mean()
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)  # type: ignore[arg-type]
    assert not [note for _, note in open_run(tmp_path / "run").notes if "graph" not in note]


def test_a_dead_rectifier_is_counted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([1.0, -1.0, -1.0, -1.0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        for _ in range(12):
            model(torch.randn(64, 2)).sum().backward()
            optimizer.step()
    _, dead = open_run(tmp_path / "run").history("1", "dead_fraction")
    assert dead.tolist() == [0.0] * 9 + [0.75] * 3
    assert all(math.isnan(v) for v in open_run(tmp_path / "run").history("0", "dead_fraction")[1])
