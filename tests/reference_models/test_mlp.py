"""Layers of weighted sums, against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import shapes, tensors
from tolerances import assert_close
from torch import nn

from reference_models.losses import cross_entropy
from reference_models.mlp import MLP, Linear
from reference_models.optimizers import AdamW
from reference_models.regularization import decay_groups


@given(st.data(), shapes(axes=3), st.integers(1, 5), st.integers(1, 5))
def test_a_linear_layer_equals_torchs_in_value_and_gradient(data, batch, inputs, outputs):
    layer = Linear(inputs, outputs).double()
    x = data.draw(tensors((*batch, inputs), torch.float64)).requires_grad_()
    ours, theirs = layer(x), F.linear(x, layer.weight, layer.bias)
    assert_close(ours.detach(), theirs.detach(), scale=100)
    wanted = (x, layer.weight, layer.bias)
    for mine, torchs in zip(
        torch.autograd.grad(ours.square().sum(), wanted),
        torch.autograd.grad(theirs.square().sum(), wanted),
        strict=True,
    ):
        assert_close(mine, torchs, scale=1e4)


def test_the_iris_classifier_has_259_parameters_and_every_one_gets_a_gradient():
    model = MLP(4, 32, 3)
    assert sum(p.numel() for p in model.parameters()) == 259
    logits = model(torch.randn(16, 4))
    assert logits.shape == (16, 3)
    logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_smallest_networks_are_legal():
    assert MLP(3, 2)(torch.zeros(0, 3)).shape == (0, 2)
    assert [type(layer).__name__ for layer in MLP(3, 4, 2).layers] == ["Linear", "ReLU", "Linear"]
    assert str(Linear(3, 2)) == "Linear(3, 2)"


def test_the_books_networks_have_their_sizes():
    counts = {"addition": 65, "simple": 652, "iris": 259, "mnist": 109_386, "regularized": 235_146}
    for name, count in counts.items():
        model = getattr(MLP, name)()
        assert sum(p.numel() for p in model.parameters()) == count
    assert [layer.p for layer in MLP.regularized().layers if type(layer).__name__ == "Dropout"] == [0.5, 0.3]
    assert [type(layer).__name__ for layer in MLP.digits().layers[:3]] == ["Linear", "GELU", "Dropout"]


@pytest.mark.parametrize("training", [True, False])
def test_a_network_with_dropout_is_torchs_with_its_weights(training):
    model = MLP(8, 6, 5, 3, nonlinearity="tanh", dropout=(0.5, 0.3))
    twin = nn.Sequential(
        *(nn.Linear(8, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.3), nn.Linear(5, 3))
    )
    twin.load_state_dict(dict(zip(twin.state_dict(), model.state_dict().values(), strict=True)))
    x, found = torch.randn(6, 8), []
    for network in (model, twin):
        torch.manual_seed(1)
        out = network.train(training)(x)
        found.append((out.detach(), *torch.autograd.grad(out.square().sum(), list(network.parameters()))))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs)


def test_a_network_learns_a_batch_by_heart_without_decaying_its_biases():
    torch.manual_seed(0)
    model, x, labels = MLP(64, 64, 32, 10), torch.randn(16, 64), torch.arange(16) % 10
    optimizer = AdamW(decay_groups(model, 1e-4), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(model(x), labels).backward()
        optimizer.step()
    assert cross_entropy(model(x), labels) < 0.05
