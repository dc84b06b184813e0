"""A capture leaves no trace: on the model, on the random state, on results, in memory."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from graph_models import GPT, ResNet, SmallCNN, Tagger, Unrolled
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.modules import module as nn_module
from torch.utils.checkpoint import checkpoint

from tensorscope import GraphError, graph
from tensorscope.graphs.graph import Graph
from tensorscope.live.capture import Capture

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "cnn": (SmallCNN, lambda: torch.randn(2, 1, 28, 28)),
    "gpt": (lambda: GPT(2, 16, 2, 50), lambda: torch.randint(0, 50, (2, 6))),
    "resnet": (lambda: ResNet((2, 1, 1, 1), 4), lambda: torch.randn(2, 3, 32, 32)),
    "lstm": (Tagger, lambda: torch.randint(0, 100, (2, 5))),
    "rnn": (Unrolled, lambda: torch.randn(2, 7, 8)),
}


@contextmanager
def captured(model: nn.Module) -> Iterator[list[Graph | None]]:
    """Capture the model's real forwards, the way a trace does: from hooks on the model."""
    capture, found = Capture(model), []
    handles = [
        model.register_forward_pre_hook(lambda _, args, kwargs: capture.start(args, kwargs), with_kwargs=True),
        model.register_forward_hook(lambda _, __, output: found.append(capture.stop(output))),
    ]
    try:
        yield found
    finally:
        capture.abort()
        for handle in handles:
            handle.remove()


def one_step(model: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(3)
    output = model(x)
    output.square().mean().backward()
    return [output.detach(), *(p.grad for p in model.parameters()), *model.buffers(), torch.get_rng_state()]


def assert_clean() -> None:
    assert torch._C._len_torch_function_stack() == 0
    assert not nn_module._global_forward_hooks
    assert not nn_module._global_forward_pre_hooks
    assert not nn_module._has_any_global_hook()


@pytest.mark.parametrize("name", MODELS)
def test_a_real_forward_gives_the_same_bits_and_the_same_graph(name: str) -> None:
    make, data = MODELS[name]
    torch.manual_seed(0)
    plain, x = make(), data()
    torch.manual_seed(0)
    watched = make()
    expected = one_step(plain, x)
    with captured(watched) as found:
        got = one_step(watched, x)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert_clean()
    dry = graph(plain, x)
    assert found[0] is not None
    assert (found[0].ops, found[0].edges, found[0].calls) == (dry.ops, dry.edges, dry.calls)
    assert found[0].modules == dry.modules


@pytest.mark.parametrize("inference", [False, True])
def test_evaluation_gives_the_same_graph_for_real_and_dry(inference: bool) -> None:
    make, data = MODELS["gpt"]
    model, x = make().eval(), data()
    with torch.inference_mode(inference), captured(model) as found:
        model(x)
        dry = graph(model, x)
    assert found[0] is not None
    assert (found[0].ops, found[0].edges, dry.notes) == (dry.ops, dry.edges, ())
    assert "dropout" not in [op.name for op in dry.ops]


@pytest.mark.parametrize("name", MODELS)
def test_a_dry_run_changes_nothing(name: str) -> None:
    make, data = MODELS[name]
    model, x = make(), data()
    one_step(model, x)
    before = [t.clone() for t in (*model.state_dict().values(), *(p.grad for p in model.parameters()))]
    attributes = [(module, dict(module.__dict__), id(module.__dict__)) for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    graph(model, x)
    after = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    for module, contents, identity in attributes:
        assert id(module.__dict__) == identity
        assert all(module.__dict__[key] is value for key, value in contents.items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert_clean()


class Forgetful(nn.Module):
    """Keeps what a forward should not be able to keep, in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.last: Tensor | None = None
        self.seen: list[Tensor] = []
        self.cache: dict[str, Any] = {}
        self.count = 0
        self.table = torch.zeros(3)

    def forward(self, x: Tensor, *, wild: bool = False) -> Tensor:
        self.count += 1
        self.last = self.fc(x) + random.random() + np.random.rand() + torch.rand(3)
        self.seen.append(self.last)
        self.cache["x"] = x
        self.table += 1
        self.extra = x
        with torch.no_grad():
            self.fc.weight.add_(1)
        return self.last if not wild or self.last.sum() < 1e9 else x


@pytest.mark.parametrize("wild", [False, True])
def test_what_a_forward_keeps_is_forgotten(wild: bool) -> None:
    model, x = Forgetful(), torch.ones(2, 3)
    weight, version = model.fc.weight.clone(), model.fc.weight._version
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    found = graph(model, x, wild=wild)
    assert bool(found.notes) is wild
    assert (model.count, model.last, model.seen, model.cache) == (0, None, [], {})
    assert not hasattr(model, "extra")
    assert model.table.sum() == 0
    assert torch.equal(model.fc.weight, weight)
    assert model.fc.weight._version == version
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert not any(isinstance(thing, FakeTensor) for thing in vars(model).values())
    model(x)
    assert (model.count, len(model.seen)) == (1, 1)


def test_the_users_hooks_do_not_fire_in_a_dry_run() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    heard: list[str] = []
    model[0].register_forward_hook(lambda *_: heard.append("after"))
    model[0].register_forward_pre_hook(lambda *_: heard.append("before"))
    handle = nn_module.register_module_forward_hook(lambda *_: heard.append("global"))
    graph(model, torch.ones(1, 2))
    assert heard == []
    model(torch.ones(1, 2))
    handle.remove()
    assert heard == ["before", "global", "after", "global"]


def test_hooks_that_make_a_weight_do_run_in_a_dry_run() -> None:
    layer = nn.Linear(2, 2)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(layer)
    weight = layer.weight
    found = graph(nn.Sequential(layer), torch.ones(1, 2))
    assert "_weight_norm" in [op.name for op in found.ops]
    assert layer.weight is weight


def test_nothing_is_kept_alive() -> None:
    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            self.alive.append(weakref.ref(y))
            z = y + 1
            del y
            assert self.alive[0]() is None  # not even while it runs
            self.alive.append(weakref.ref(z))
            return z.sum()

    model, x = Watched(), torch.randn(3)
    model.alive = []
    gone = weakref.ref(x)
    with captured(model) as found:
        model(x)
    del x
    gc.collect()
    assert found[0] is not None
    assert gone() is None
    assert all(reference() is None for reference in model.alive)
    gone_model = weakref.ref(model)
    kept = graph(nn.Linear(2, 2), torch.ones(2)), found[0]
    del model
    gc.collect()
    assert gone_model() is None
    assert len(kept) == 2


def test_an_error_ends_the_capture_and_nothing_stays() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 5))
    capture = Capture(model)
    capture.start((torch.ones(1, 2),))
    with pytest.raises(RuntimeError, match="mat1"):
        model(torch.ones(1, 2))
    assert capture.abort() == "1"
    assert_clean()
    assert capture.stop(None) is None


def test_a_capture_cut_off_is_cleared_by_the_next() -> None:
    model = nn.Linear(2, 2)
    capture = Capture(model)
    capture.start((torch.ones(1, 2),))  # and Ctrl-C
    with captured(model) as found:
        capture.abort()
        model(torch.ones(1, 2))
    assert found[0] is not None
    assert_clean()


def test_modes_entered_meanwhile_stay() -> None:
    model = nn.Linear(2, 2)
    capture = Capture(model)
    capture.start((torch.ones(1, 2),))
    with torch.device("cpu"):
        found = capture.stop(model(torch.ones(1, 2)))
        assert torch._C._len_torch_function_stack() == 1
    assert found is not None
    assert_clean()


def test_other_threads_are_not_recorded() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        other = threading.Thread(target=lambda: self.fc(x))
        other.start()
        other.join()
        return self.fc(x)

    model = type("Threaded", (nn.Module,), {"forward": forward})()
    model.fc = nn.Linear(2, 2)
    with captured(model) as found:
        model(torch.ones(1, 2))
    assert found[0] is not None
    assert [op.name for op in found[0].ops] == ["x", "linear", "output"]


def test_a_failing_recorder_leaves_the_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, *_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tensorscope.live.transcript.Transcript._append", broken)
    model = nn.Linear(2, 2)
    with captured(model) as found:
        assert model(torch.ones(1, 2)).shape == (1, 2)
    assert found[0] is None or "ZeroDivisionError" in found[0].notes[0]
    assert_clean()


# -- compiled and checkpointed parts --


@torch.compile(backend="eager", fullgraph=True)
def activation(x: Tensor) -> Tensor:
    return torch.relu(x) * 2


class WithCompiledFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(activation(self.fc(x)))


class WithCompiledMethod(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

    @torch.compile(backend="eager", fullgraph=True)
    def inner(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x))


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("make", [WithCompiledFunction, WithCompiledMethod])
def test_a_compiled_part_inside_still_compiles_whole(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(2, 3)
    expected = model(x)
    with captured(model) as found:
        assert torch.equal(model(x), expected)
    assert torch.equal(model(x), expected)
    assert found[0] is not None
    assert_clean()


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(x))


@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:Using `torch.compile.module.` when there are global")
@pytest.mark.parametrize("how", ["wrapped", "in place", "inner"])
def test_a_compiled_model_is_not_disturbed_and_replayed(how: str) -> None:
    torch.manual_seed(0)
    whole: Any = Plain()
    if how == "wrapped":
        whole = torch.compile(whole, backend="eager", fullgraph=True)
    elif how == "in place":
        whole.compile(backend="eager", fullgraph=True)
    else:
        whole = nn.Sequential(torch.compile(whole, backend="eager", fullgraph=True))
    x = torch.randn(2, 3)
    expected = whole(x)
    capture = Capture(whole)
    capture.start((x,))
    output = whole(x)
    found = capture.stop(output)
    assert torch.equal(output, expected)
    assert found is not None
    assert [op.name for op in found.ops][1:] == ["linear", "relu", "output"]
    assert torch.equal(whole(x), expected)
    assert_clean()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_parts_train_the_same(reentrant: bool) -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.drop = nn.Linear(3, 3), nn.Dropout(0.5)

        def inner(self, x: Tensor) -> Tensor:
            return self.drop(torch.relu(self.fc(x)))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    x = torch.randn(2, 3, requires_grad=True)
    torch.manual_seed(0)
    plain = Saving()
    expected = one_step(plain, x)
    torch.manual_seed(0)
    watched = Saving()
    with captured(watched) as found:
        got = one_step(watched, x)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert found[0] is not None
    assert [op.name for op in found[0].ops if op.role == "op"] == ["linear", "relu", "dropout"]


def test_a_model_without_shapes_yet_is_refused_untouched() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(GraphError, match=r"`0.weight` has no shape yet"):
        graph(model, torch.ones(1, 2))
    assert isinstance(model[0], nn.LazyLinear)
