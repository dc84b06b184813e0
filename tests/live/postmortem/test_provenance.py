"""Facts about following tensors: what is carried, matched, forgotten, and survived."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from provenance_programs import Watched, followed, watch
from torch import Tensor, nn
from torch.nn import functional as F

from tensorscope.live.postmortem.axes import InputAxis, Kind
from tensorscope.live.postmortem.provenance import RULES, Provenance

X = torch.randn(4, 6, 10)
CARRYING = [
    lambda x: F.relu(x, inplace=False),
    lambda x: F.dropout(x, 0.5),
    lambda x: F.layer_norm(x, (10,)),
    lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6)),
    lambda x: x.permute(2, 0, 1).permute(1, 2, 0),
    lambda x: x.transpose(0, 1).mT.movedim(-1, 0).mT.transpose(0, 1).mT.mT.transpose(0, 1).transpose(0, 1),
    lambda x: x[:, :, :],
    lambda x: x + torch.ones(6, 1),
    lambda x: torch.ones(10) * x,
    lambda x: x.flatten(0, 1).unflatten(0, (4, 6)),
    lambda x: x.view(4, 6, 2, 5).transpose(1, 2).transpose(1, 2).reshape(4, 6, 10),
    lambda x: torch.cat(x.chunk(2, -1), -1),
    lambda x: torch.cat(x.split([3, 7], -1), -1),
    lambda x: F.conv1d(x, torch.ones(6, 6, 3), padding=1).mul(0) + x,
    lambda x: x.scatter(1, torch.zeros(4, 1, 10, dtype=torch.long), 1.0),
    lambda x: torch.zeros_like(x, dtype=torch.int),
    lambda x: x.to(torch.float64).contiguous().clone(),
    lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1).sum(1),
    lambda x: torch.stack([x, x]).unbind(0)[1],
    lambda x: torch.fft.fft(x).real,
    lambda x: x.detach().clone().transpose_(0, 1).squeeze_().swapaxes_(0, 1),
]


@pytest.mark.parametrize("program", CARRYING)
def test_axes_that_stay_are_the_very_same(program: Any) -> None:
    watched, result = watch(lambda _, x: program(x), x=X)
    axes = watched.provenance.axes
    if sorted(result.shape) == sorted(X.shape):
        assert set(axes(result)) == set(axes(X))
    assert watched.errors == []


def test_a_made_axis_knows_its_step_and_module() -> None:
    model = nn.Sequential(nn.Conv1d(6, 3, 2), nn.Conv1d(3, 3, 2))
    watched, result = followed(model, x=X)
    axis = watched.provenance.axes(result)[2]
    assert (axis.step, axis.module, axis.kind) == (1, "1", Kind.WINDOW)
    assert axis.steps() == [1, 0]


def test_a_tensor_knows_the_step_that_made_or_last_changed_it() -> None:
    x = X.clone()
    watched = Watched()
    watched.provenance.given("x", x)
    with watched:
        y = x + 1
        z = y.relu()
        y.add_(1)
        x[0] = 0
    assert [watched.provenance.maker(tensor) for tensor in (z, y, x)] == [1, 2, None]


def test_numbers_that_the_program_asked_for_are_what_they_were_asked_of() -> None:
    def program(_: Watched, x: Tensor) -> Tensor:
        batch, seq, _dim = x.shape
        return torch.zeros(seq, batch, 99)

    watched, result = watch(program, x=X)
    seq, batch, number = watched.provenance.axes(result)
    assert (seq.source, batch.source) == (InputAxis("x", 1), InputAxis("x", 0))
    assert (number.kind, number.label) == (Kind.LITERAL, "given to `zeros`")


def test_a_number_asked_for_twice_is_not_guessed() -> None:
    watched, result = watch(lambda _, x: torch.arange(x.shape[1]), x=torch.randn(5, 5))
    (axis,) = watched.provenance.axes(result)
    assert axis.kind is Kind.LITERAL
    assert axis.at({InputAxis("x", 0): 7}) is None


def test_an_operation_without_a_rule_goes_by_shapes() -> None:
    watched, result = watch(lambda _, x: torch.linalg.qr(x[0].mT).R, x=X)
    assert "linalg_qr" not in RULES
    assert [axis.source for axis in watched.provenance.axes(result)] == [InputAxis("x", 1)] * 2
    watched, result = watch(lambda _, x: torch.kron(x[0], x[0]), x=X)
    assert [axis.kind for axis in watched.provenance.axes(result)] == [Kind.UNKNOWN] * 2


def test_a_tensor_never_seen_has_unknown_axes_that_stay_the_same() -> None:
    provenance = Provenance()
    axes = provenance.axes(X)
    assert [axis.kind for axis in axes] == [Kind.UNKNOWN] * 3
    assert provenance.axes(X) is axes
    assert provenance.maker(X) is None


def test_no_tensor_is_kept_alive() -> None:
    tensor = torch.randn(3)
    provenance, gone = Provenance(), weakref.ref(tensor)
    provenance.given("x", tensor)
    provenance.follow(0, "", torch.relu, (tensor,), {}, torch.relu(tensor))
    del tensor
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (torch.add, ()),
        (torch.conv2d, (None, X)),
        (Tensor.view, (X, "odd")),
        (Tensor.__getitem__, (X, object())),
        (torch.cat, (X,)),
        (torch.nn.functional.linear, (X,)),
        (Tensor.size, ()),
        (len, (3,)),
    ],
)
def test_odd_calls_do_no_harm(func: Any, args: tuple[Any, ...]) -> None:
    provenance, result = Provenance(), torch.randn(2, 3)
    provenance.follow(0, "", func, args, {"odd": 1}, [result, {"more": None}])
    assert [axis.size for axis in provenance.axes(result)] == [2, 3]


def test_shapes_without_data_are_enough() -> None:
    x = torch.empty(4, 6, 10, device="meta")
    watched, result = watch(lambda _, x: F.avg_pool1d(x @ x.mT, 2), x=x)
    assert watched.provenance.axes(result)[2].at({InputAxis("x", 1): 8}) == 4


@pytest.mark.parametrize(
    ("layer", "labels"),
    [
        (nn.Conv2d(3, 8, 5), ("out_channels", "in_channels", "kernel_size", "kernel_size")),
        (nn.ConvTranspose2d(3, 8, 5), ("in_channels", "out_channels", "kernel_size", "kernel_size")),
        (nn.Linear(3, 8), ("out_features", "in_features")),
        (nn.Embedding(7, 8), ("num_embeddings", "embedding_dim")),
        (nn.BatchNorm1d(8), ("num_features",)),
        (nn.GroupNorm(2, 8), ("num_channels",)),
        (nn.LayerNorm((6, 8)), ("normalized_shape", "normalized_shape")),
        (nn.Bilinear(2, 3, 4), ("out_features", "in1_features", "in2_features")),
        (nn.PReLU(5), ("num_parameters",)),
        (nn.Conv1d(4, 8, 5, groups=2), ("out_channels", "axis 1 of `layer.weight`", "kernel_size")),
    ],
)
def test_weights_are_called_by_their_layers_attributes(layer: nn.Module, labels: tuple[str, ...]) -> None:
    provenance = Provenance()
    provenance.weight("layer.weight", layer.weight, layer)
    found = [axis.label for axis in provenance.axes(layer.weight)]
    assert found == [label if " " in label else f"layer.{label}" for label in labels]


def test_gates_are_counted_apart_from_the_hidden_size() -> None:
    provenance, lstm = Provenance(), nn.LSTM(3, 5)
    provenance.weight("lstm.weight_ih_l0", lstm.weight_ih_l0, lstm)
    gates, width = provenance.axes(lstm.weight_ih_l0)
    assert [part.label for part in gates.parts] == ["gates", "lstm.hidden_size"]
    assert width.label == "lstm.input_size"
