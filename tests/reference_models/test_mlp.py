"""Layers of weighted sums, against torch's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import shapes, tensors
from tolerances import assert_close

from reference_models.mlp import MLP, Linear


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
