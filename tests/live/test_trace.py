"""Tracing does no harm, sees everything, and survives whatever a training does."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.optim import optimizer as optim
from torch.utils.checkpoint import checkpoint

import tensorscope
from tensorscope import ModelError, Run, RunError, TensorscopeError, open_run

if TYPE_CHECKING:
    from collections.abc import Callable


class Small(nn.Module):
    """Convolution, batch norm, dropout: everything that random state and buffers can break."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.relu(self.norm(self.conv(x)))).flatten(1))


class Recurrent(nn.Module):
    """An LSTM, a cell called in a loop, and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.cell = nn.GRUCell(5, 5)
        self.head = nn.Linear(5, 3)
        self.tied = self.head

    def forward(self, x: Tensor) -> Tensor:
        out, (h, _) = self.lstm(x.flatten(1)[:, :36].reshape(-1, 6, 6))
        state = h[0]
        for step in range(12):
            state = self.cell(out[:, step % 6], state)
        return self.head(state) + self.tied(out[:, -1])


class Transformer(nn.Module):
    """Attention with a -inf mask, layer norm, residuals and checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.again = nn.Sequential(nn.Linear(16, 16), nn.GELU())
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(8)
        h = self.layer(self.embed(x[:, 0]), src_mask=mask, is_causal=True)
        h = checkpoint(self.again, h, use_reentrant=False)
        return self.head(h.mean(1))


MODELS: list[Callable[[], nn.Module]] = [Small, Recurrent, Transformer]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def train(model: nn.Module, steps: int = 6, on_step: Callable[[int, Tensor], None] | None = None) -> list[Tensor]:
    """A plain loop with an evaluation pass; every loss and gradient that came up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, y = data()
    seen = []
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        seen += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        model.eval()
        with torch.no_grad():
            seen.append(model(x))
        if on_step:
            on_step(step, loss)
    return seen


def traced(model: nn.Module, folder: Path, steps: int = 6, **options: Any) -> Run:
    with tensorscope.trace(model, folder / "run", every=1, **options) as trace:
        train(model, steps, lambda _, loss: trace.log(loss=loss))
    return open_run(folder / "run")


def hooks_of(model: nn.Module) -> list[Any]:
    """Everything that torch keeps of hooks, on the model, its tensors and globally."""
    found: list[Any] = [len(nn_module._global_forward_hooks), len(nn_module._global_forward_pre_hooks)]
    found += [len(nn_module._global_forward_hooks_with_kwargs), len(nn_module._global_forward_hooks_always_called)]
    found += [len(optim._global_optimizer_pre_hooks), len(optim._global_optimizer_post_hooks)]
    for module in model.modules():
        found += [len(value) for name, value in vars(module).items() if name.endswith("_hooks")]
    for parameter in model.parameters():
        found += [bool(parameter._backward_hooks), bool(parameter._post_accumulate_grad_hooks)]
    return found


# --- do no harm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS)
def test_outputs_gradients_and_random_state_are_bit_identical(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(3)
    bare = make()
    model = copy.deepcopy(bare)
    torch.manual_seed(4)
    expected = train(bare)
    state = torch.get_rng_state()
    torch.manual_seed(4)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        seen = train(model)
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), bare.state_dict().values(), strict=True))


def test_the_model_itself_is_left_as_it_was(tmp_path: Path) -> None:
    model = Small()
    before, pickled = hooks_of(model), pickle.dumps(model)
    trace = tensorscope.trace(model, tmp_path / "run", every=1)
    assert list(model.state_dict()) == list(Small().state_dict())
    assert isinstance(model, Small)
    assert pickle.dumps(model) == pickled
    model(data()[0])
    buffer = io.BytesIO()
    torch.save(model, buffer)
    twin = copy.deepcopy(model)
    trace.close()
    assert hooks_of(model) == hooks_of(twin) == before


def test_hooks_are_gone_after_an_exception_and_the_run_says_so(tmp_path: Path) -> None:
    model = Small()
    before = hooks_of(model)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):  # noqa: SIM117, PT012
        with tensorscope.trace(model, tmp_path / "run", every=1):
            train(model, 2)
            model(torch.randn(4, 1, 9, 9))
    assert hooks_of(model) == before
    run = open_run(tmp_path / "run")
    assert run.status == "died"
    assert run.meta["error"].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert len(run.steps) >= 2


def test_an_exception_in_the_first_pass_leaves_nothing_behind(tmp_path: Path) -> None:
    model = Small()
    before = hooks_of(model)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        with pytest.raises(RuntimeError):
            model(torch.randn(4, 1, 9, 9))
        assert not torch.overrides._get_current_function_mode_stack()
        train(model, 2)
    assert hooks_of(model) == before
    run = open_run(tmp_path / "run")
    assert run.graph is not None
    assert not run.notes


def test_ctrl_c_leaves_an_interrupted_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with tensorscope.trace(Small(), tmp_path / "run"):
            raise KeyboardInterrupt
    assert open_run(tmp_path / "run").status == "interrupted"


def test_leaving_by_sys_exit_is_no_death(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):  # noqa: SIM117
        with tensorscope.trace(Small(), tmp_path / "run"):
            raise SystemExit(0)
    assert open_run(tmp_path / "run").status == "finished"


def test_nothing_is_kept_alive(tmp_path: Path) -> None:
    model = Small()
    refs = []
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        x, y = data()
        out = model(x)
        loss = nn.functional.cross_entropy(out, y)
        loss.backward()
        trace.log(loss=loss)
        refs = [weakref.ref(out), weakref.ref(loss), weakref.ref(x)]
        del out, loss, x, y
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3
    model_ref = weakref.ref(model)
    del model, trace
    gc.collect()
    assert model_ref() is None


def test_a_failure_while_measuring_is_a_note_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorscope.live import recorder

    def broken(_: Tensor) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(recorder, "measure_row", broken)
    torch.manual_seed(0)
    bare = Small()
    model = copy.deepcopy(bare)
    torch.manual_seed(1)
    expected = train(bare)
    torch.manual_seed(1)
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        seen = train(model, on_step=lambda _, loss: trace.log(loss=loss))
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    run = open_run(tmp_path / "run")
    assert run.notes[0][1].startswith("not measured: ZeroDivisionError: ours")
    assert len(run.notes) <= 20
    assert len(run.scalars("loss")[0]) == 6


def test_two_models_are_traced_side_by_side(tmp_path: Path) -> None:
    a, b = Small(), Recurrent()
    with tensorscope.trace(a, tmp_path / "a", every=1), tensorscope.trace(b, tmp_path / "b", every=1):
        train(a, 2)
        train(b, 3)
    assert len(open_run(tmp_path / "a").steps) == 2
    assert len(open_run(tmp_path / "b").steps) == 3
    assert "lstm" not in open_run(tmp_path / "a").sites


# --- what is seen ----------------------------------------------------------------------------------------------------


def test_every_site_is_recorded_at_every_step(tmp_path: Path) -> None:
    run = traced(Small(), tmp_path)
    assert run.steps == run.measured_steps == list(range(6))
    outputs = {"conv", "norm", "relu", "drop", "head", "<root>"}
    gradients = {f"{site}:grad" for site in outputs}
    parameters = {f"{m}.{n}" for m in ("conv", "norm", "head") for n in ("weight", "bias")}
    assert set(run.sites) == outputs | gradients | parameters | {f"{p}:grad" for p in parameters} | {"<root>:input"}
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


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (
            Small,
            "`trace` takes a `torch.nn.Module`, got the class `Small`\n\nhint: make one first: `trace(Small(...))`",
        ),
        (42, "`trace` takes a `torch.nn.Module`, got a `int`\n\nhint: pass the model itself"),
        (lambda x: x, "`trace` takes a `torch.nn.Module`, got a `function`\n\nhint: pass the model itself"),
    ],
)
def test_what_is_no_model_is_refused(thing: Any, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        tensorscope.trace(thing)
    assert str(caught.value) == text


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 1.5}, {"every": True}, {"overhead": 0}, {"overhead": -1}])
def test_settings_out_of_range_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TensorscopeError):
        tensorscope.trace(Small(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_what_is_not_one_number_is_refused(tmp_path: Path) -> None:
    with tensorscope.trace(Small(), tmp_path / "run") as trace:
        with pytest.raises(TensorscopeError) as caught:
            trace.log(loss=torch.ones(3))
        assert str(caught.value) == (
            "`loss` is not one number\n  got  a tensor of shape (3,)\n\nhint: log one number, such as `loss.mean()`"
        )
        with pytest.raises(TensorscopeError, match="`name` is not one number"):
            trace.log(name="fc1")  # type: ignore[arg-type]
        trace.log(a=1, b=True, c=torch.tensor([2]), d=torch.tensor(3.0, requires_grad=True), e=math.nan)


def test_a_closed_trace_logs_no_more_and_closes_again(tmp_path: Path) -> None:
    trace = tensorscope.trace(Small(), tmp_path / "run")
    trace.close()
    trace.close()
    with pytest.raises(RunError, match="is closed"):
        trace.log(loss=1.0)


def test_the_default_path_names_model_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(2):
        with tensorscope.trace(Small()) as trace:
            paths.append(trace.path)
    assert all(path.parent == Path("runs") and path.name.startswith("Small-") for path in paths)
    assert paths[0] != paths[1]
