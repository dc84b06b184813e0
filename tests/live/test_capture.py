"""What a capture writes down, exactly, on small models and on awkward ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from graph_models import GPT, SmallCNN, Tagger
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tensorscope import GraphError, ModelError, graph, shapes
from tensorscope.graphs.graph import Graph, Role


def ops(found: Graph) -> list[str]:
    return [op.name for op in found.ops]


def arrows(found: Graph) -> list[tuple[str, str, str]]:
    return [(found.ops[e.source].name, str(e.value), found.ops[e.target].name) for e in found.edges]


class Wrapped(nn.Module):
    """A model from a function of its inputs."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


# -- exactly --


def test_a_small_network_is_captured_op_by_op() -> None:
    found = graph(SmallCNN(), torch.randn(4, 1, 28, 28))
    assert arrows(found) == [
        ("x", "(4, 1, 28, 28)", "conv2d"),
        ("conv2d", "(4, 32, 26, 26)", "relu"),
        ("relu", "(4, 32, 26, 26)", "max_pool2d"),
        ("max_pool2d", "(4, 32, 13, 13)", "conv2d"),
        ("conv2d", "(4, 64, 11, 11)", "relu"),
        ("relu", "(4, 64, 11, 11)", "max_pool2d"),
        ("max_pool2d", "(4, 64, 5, 5)", "flatten"),
        ("flatten", "(4, 1600)", "linear"),
        ("linear", "(4, 128)", "relu"),
        ("relu", "(4, 128)", "linear"),
        ("linear", "(4, 10)", "output"),
    ]
    assert [found.calls[op.call].path for op in found.ops] == [
        *["", "conv1", "", "pool", "conv2", "", "pool", "", "fc1", "", "fc2", ""]
    ]
    assert {edge.value.dtype for edge in found.edges} == {"float32"}


def test_modules_carry_class_parameters_and_calls() -> None:
    found = graph(SmallCNN(), torch.randn(4, 1, 28, 28))
    assert (found.name, found.parameters) == ("SmallCNN", 225034)
    pool = found.modules["pool"]
    assert (pool.type, pool.parameters, pool.calls, pool.builtin) == ("MaxPool2d", 0, 2, True)
    assert found.modules["fc1"].parameters == 1600 * 128 + 128
    assert not found.modules[""].builtin


def test_ops_know_the_users_line_and_the_weights_they_read() -> None:
    found = graph(SmallCNN(), torch.randn(1, 1, 28, 28))
    linear = next(op for op in found.ops if op.name == "linear")
    assert linear.weights == ("fc1.weight", "fc1.bias")
    file, _, line = linear.where.rpartition(":")
    assert file.endswith("graph_models.py")
    assert "self.fc1" in Path(file).read_text().splitlines()[int(line) - 1]


def test_tied_weights_are_counted_once_and_named() -> None:
    model = GPT(layers=1, dim=8, heads=2, vocab=11)
    found = graph(model, torch.zeros(1, 4, dtype=torch.long))
    assert found.tied == (("wte.weight", "head.weight"),)
    assert found.parameters == sum(p.numel() for p in model.parameters())


def test_questions_about_tensors_are_no_ops() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        assert x.shape[0] == x.size(0) == len(x)
        assert x.dtype is torch.float32
        assert x.is_floating_point()
        return x.contiguous().to(torch.float32) + x.ndim

    assert ops(graph(Wrapped(forward), torch.randn(2, 3))) == ["args[0]", "add", "output"]


def test_a_contract_names_the_axes() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)

        @shapes("batch channels 28 28 -> batch classes")
        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image).mean((2, 3))

    assert [edge[1] for edge in arrows(graph(Named(), torch.randn(4, 1, 28, 28)))] == [
        "(batch=4, channels=1, 28, 28)",
        "(4, 3, 26, 26)",
        "(batch=4, classes=3)",
    ]


def test_depth_leaves_out_the_interior_of_modules() -> None:
    tokens = torch.zeros(1, 4, dtype=torch.long)
    model = GPT(layers=2, dim=8, heads=2, vocab=11)
    whole, shallow = graph(model, tokens), graph(model, tokens, depth=1)
    assert shallow.operations == whole.operations
    blocks = [op for op in shallow.ops if op.name == "Block"]
    assert [(block.role, len(block.outputs)) for block in blocks] == [(Role.MODULE, 1)] * 2
    assert ("Block", "(1, 4, 8)", "Block") in arrows(shallow)
    assert [op.role for op in graph(model, tokens, depth=0).ops] == [Role.INPUT, Role.MODULE, Role.OUTPUT]


# -- how tensors flow --


def test_writing_in_place_is_part_of_the_flow() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        y = x * 2
        y += 1
        y[0] = 0.0
        y[1].mul_(3)  # through a view
        return F.relu(y, inplace=True).sum()

    found = graph(Wrapped(forward), torch.randn(2, 3))
    assert [(a, b) for a, _, b in arrows(found)] == [
        *[("args[0]", "mul"), ("mul", "add_"), ("add_", "setitem"), ("setitem", "getitem")],
        *[("getitem", "mul_"), ("mul_", "relu"), ("relu", "sum"), ("sum", "output")],
    ]


def test_a_buffer_used_as_a_cache_passes_tensors_on() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        self.cache[:2] = x
        return self.cache.sum()

    model = Wrapped(forward)
    model.register_buffer("cache", torch.zeros(4))
    assert [(a, b) for a, _, b in arrows(graph(model, torch.ones(2)))] == [
        ("args[0]", "setitem"),
        ("setitem", "sum"),
        ("sum", "output"),
    ]
    assert model.cache.sum() == 0


def test_one_tensor_used_twice_by_one_op_is_one_edge() -> None:
    found = graph(Wrapped(lambda self, x: x * x), torch.ones(2))
    assert [(a, b) for a, _, b in arrows(found)] == [("args[0]", "mul"), ("mul", "output")]


def test_several_outputs_of_one_op_keep_their_port() -> None:
    found = graph(Wrapped(lambda self, x: x.split(1)[1]), torch.ones(2, 3))
    assert [(edge.port, str(edge.value)) for edge in found.edges if found.ops[edge.source].name == "split"] == [
        (1, "(1, 3)")
    ]


def test_a_module_called_several_times_has_a_call_each() -> None:
    layer = nn.Linear(3, 3)
    found = graph(Wrapped(lambda self, x: self.layer(self.layer(x)), layer=layer), torch.ones(2, 3))
    assert [(call.path, call.number) for call in found.calls] == [("", 0), ("layer", 0), ("layer", 1)]
    assert found.modules["layer"].calls == 2


def test_one_module_under_two_names_keeps_both() -> None:
    layer = nn.Linear(3, 3)
    found = graph(nn.Sequential(layer, layer), torch.ones(2, 3))
    assert found.modules["0"].aliases == ("1",)
    assert found.parameters == 12


# -- what goes in and comes out --


@dataclass
class Batch:
    image: Tensor
    label: Tensor | None = None


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@pytest.mark.parametrize(
    ("forward", "given", "names"),
    [
        (lambda self, x: {"logits": x + 1, "extra": {"h": x * 2}}, torch.ones(2), ["logits", "extra"]),
        (lambda self, x: (x + 1, [x * 2, None]), torch.ones(2), ["output[0]", "output[1]"]),
        (lambda self, x: Batch(x + 1), torch.ones(2), ["image"]),
        (lambda self, x: Pair(x + 1, x * 2), torch.ones(2), ["left", "right"]),
        (lambda self, x: [x + i for i in range(20)], torch.ones(2), ["output"]),
        (lambda self, x: x, torch.ones(2), ["output"]),
        (lambda self, x: 3, torch.ones(2), []),
        (lambda self, x: x.image * 2, Batch(torch.ones(2)), ["output"]),
        (lambda self, x: x["a"][0] * 2, {"a": [torch.ones(2)]}, ["output"]),
    ],
)
def test_outputs_go_by_their_names(forward: Any, given: Any, names: list[str]) -> None:
    found = graph(Wrapped(forward), given)
    assert [op.name for op in found.ops if op.role is Role.OUTPUT] == names


def test_inputs_go_by_their_names() -> None:
    class Inputs(nn.Module):
        def forward(self, x: Tensor, *rest: Tensor, mask: Tensor, batch: Any, **others: Tensor) -> Tensor:
            return x + rest[0] + mask + batch["a"][1] + others["late"]

    one = torch.ones(1)
    found = graph(Inputs(), one, one + 1, mask=one + 2, batch={"a": [0, one + 3]}, late=one + 4)
    assert [op.name for op in found.ops if op.role is Role.INPUT] == ["x", "rest[0]", "mask", "batch.a[1]", "late"]


# -- layers and mechanisms --


class Scale(torch.autograd.Function):
    """A custom function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


def attention(self: nn.Module, x: Tensor) -> Tensor:
    return self.attn(x, x, x)[0]


def packed(self: nn.Module, x: Tensor) -> Tensor:
    pack = nn.utils.rnn.pack_padded_sequence(x, [3, 2], batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(self.lstm(pack)[0], batch_first=True)[0]


AWKWARD = {
    "attention": lambda: Wrapped(attention, attn=nn.MultiheadAttention(8, 2, batch_first=True)),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
    "lstm": lambda: Wrapped(lambda self, x: self.lstm(x)[0], lstm=nn.LSTM(8, 8, 2, bidirectional=True)),
    "packed": lambda: Wrapped(packed, lstm=nn.LSTM(8, 8, batch_first=True)),
    "gru": lambda: Wrapped(lambda self, x: self.gru(x)[1], gru=nn.GRU(8, 8)),
    "checkpoint": lambda: Wrapped(lambda self, x: checkpoint(self.fc, x, use_reentrant=False), fc=nn.Linear(8, 8)),
    "reentrant": lambda: Wrapped(lambda self, x: checkpoint(self.fc, x, use_reentrant=True), fc=nn.Linear(8, 8)),
    "function": lambda: Wrapped(lambda self, x: Scale.apply(x) + 1),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))),
    "vmap": lambda: Wrapped(lambda self, x: torch.vmap(self.fc)(x), fc=nn.Linear(8, 8)),
    "functional_call": lambda: Wrapped(
        lambda self, x: torch.func.functional_call(self.fc, dict(self.fc.named_parameters()), (x,)), fc=nn.Linear(8, 8)
    ),
    "autocast": lambda: Wrapped(_autocast, fc=nn.Linear(8, 8)),
    "generator": lambda: Wrapped(lambda self, x: sum(part for part in (x, x * 2))),
    "complex": lambda: Wrapped(lambda self, x: torch.fft.rfft(x).abs()),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(inplace=True)),
    "unused input": lambda: Wrapped(lambda self, x: torch.ones(2) * 2),
    "einsum": lambda: Wrapped(lambda self, x: torch.einsum("bsd,btd->bst", x, x)),
    "energy": lambda: Wrapped(_forces, fc=nn.Linear(8, 1)),
}


def _autocast(self: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return self.fc(x)


def _forces(self: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(self.fc(x).sum(), x)[0]


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("training", [True, False])
def test_awkward_models_are_captured_without_data(name: str, training: bool) -> None:
    model = AWKWARD[name]().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = graph(model, torch.randn(2, 3, 8))
    assert found.notes == () or name == "packed"  # whose sizes depend on data
    assert [op.role for op in found.ops].count(Role.OUTPUT) == 1
    assert any(found.ops[edge.target].role is Role.OUTPUT for edge in found.edges) or name == "energy"
    assert Graph.from_json(found.to_json()) == found
    found.to_dot()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_models_still_run_and_train_after_a_capture(name: str) -> None:
    torch.manual_seed(0)
    model = AWKWARD[name]()
    x = torch.randn(2, 3, 8)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(0)
    model = AWKWARD[name]()
    graph(model, x)
    torch.manual_seed(1)
    got = model(x)
    assert torch.equal(got, expected)
    if got.requires_grad:
        got.sum().backward()


def test_a_lstm_is_one_op() -> None:
    found = graph(Tagger(), torch.zeros(2, 5, dtype=torch.long))
    assert [op for op in ops(found) if op not in ("zeros",)] == ["tokens", "embedding", "lstm", "linear", "output"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_happens_in_a_script_comes_from_its_module() -> None:
    script = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    found = graph(nn.Sequential(nn.Linear(2, 3), script, nn.Linear(4, 5)), torch.randn(1, 2))
    assert [(a, b) for a, _, b in arrows(found)] == [
        *[("input", "linear"), ("linear", "RecursiveScriptModule"), ("RecursiveScriptModule", "linear")],
        ("linear", "output"),
    ]


def test_a_branch_on_data_is_followed_for_real_and_said() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        self.seen += 1
        return self.norm(x) if x.sum() > 0 else x - 1

    model = Wrapped(forward, norm=nn.BatchNorm1d(3))
    model.register_buffer("seen", torch.zeros(()))
    state = torch.get_rng_state()
    found = graph(model, torch.ones(2, 3))
    assert "batch_norm" in ops(found)
    assert "DataDependent" in found.notes[0]
    assert model.seen == 0
    assert torch.equal(model.norm.running_mean, torch.zeros(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_imagined_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        graph(Wrapped(lambda self, x: x if x.item() > 0 else -x), torch.ones(()))
    assert caplog.text == ""


def test_weights_need_no_data() -> None:
    with torch.device("meta"):
        model = GPT(layers=32, dim=4096, heads=32)
    found = graph(model, torch.zeros(1, 8, dtype=torch.long))
    assert found.parameters > 6e9
    assert str(found.edges[-1].value) == "(1, 8, 50257)"
    assert all(tensor.is_meta for tensor in model.parameters())


# -- what cannot be captured --


def test_an_error_in_the_forward_is_named_with_its_module() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(4, 5)))
    with pytest.raises(GraphError) as caught:
        graph(model, torch.ones(1, 2))
    assert caught.value.title == "the forward of `Sequential` raised RuntimeError in `1.1`"
    assert caught.value.facts["module"] == "1.1 (Linear)"
    assert "mat1 and mat2" in str(caught.value.facts["error"])
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_error_of_the_users_own_is_chained() -> None:
    class OwnError(Exception):
        pass

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        raise OwnError("no")

    with pytest.raises(GraphError, match="OwnError") as caught:
        graph(Wrapped(forward), torch.ones(1))
    assert isinstance(caught.value.__cause__, OwnError)


@pytest.mark.parametrize("thing", [nn.Linear, torch.relu, "model", None])
def test_only_modules_have_graphs(thing: Any) -> None:
    with pytest.raises(ModelError, match=r"not a `torch.nn.Module`"):
        graph(thing, torch.ones(1))
