"""Normalization against torch's over several steps, of data against scikit-learn's, and what it leaves the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import float_dtypes, shapes, tensors, values
from tolerances import assert_close

from reference_models.normalization import BatchNorm1d, BatchNorm2d, LayerNorm, RMSNorm

BATCHES = {1: (BatchNorm1d, torch.nn.BatchNorm1d), 2: (BatchNorm2d, torch.nn.BatchNorm2d)}
LAYERS = {"layer": (LayerNorm, torch.nn.LayerNorm), "rms": (RMSNorm, torch.nn.RMSNorm)}
small = values(largest=10.0)


def twins(kinds, *args, dtype=torch.float32, **kwargs):
    """Ours and torch's, with the same weights, none of them 1 or 0; torch's is of doubles where ours is of halves."""
    ours, theirs = (kind(*args, **kwargs).to(dtype) for kind in kinds)
    with torch.no_grad():
        for number, parameter in enumerate(theirs.parameters()):
            parameter.copy_(torch.linspace(0.5, 2, parameter.numel()) - number)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs.double() if dtype.itemsize == 2 else theirs


def assert_same(ours, theirs, x, scale=10.0):
    """The same values, and the same gradients of the input and of the weights; torch's may be of longer floats."""
    flow = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    # torch 2.13 doubles BatchNorm's gradient for images whose strides fit no memory format, so it gets contiguous ones.
    operands = x.detach().clone(), x.detach().contiguous().to(next(theirs.parameters()).dtype)
    found = []
    for module, operand in zip((ours, theirs), operands, strict=True):
        y = module(operand.requires_grad_())
        gradients = torch.autograd.grad(y, [operand, *module.parameters()], flow.to(y.dtype))
        found.append([tensor.detach().to(x.dtype) for tensor in (y, *gradients)])
    for mine, wanted in zip(*found, strict=True):
        assert_close(mine, wanted, scale=scale)


# --- over the batch --------------------------------------------------------------------------------------------------


@st.composite
def batches(draw, dtypes=float_dtypes):
    """Three batches for the same BatchNorm, spread wide enough that rounding is not all there is to divide by."""
    axes, channels = draw(st.sampled_from([2, 3, 4])), draw(st.integers(1, 3))
    dtype = draw(dtypes)
    found = []
    for _ in range(3):
        rest = draw(st.tuples(*[st.integers(1, 3)] * (axes - 2)))
        count = draw(st.integers(1, 4))
        noise = torch.randn(count, channels, *rest, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
        x = (noise * draw(st.sampled_from([0.5, 1, 3])) + draw(st.integers(-8, 8))).to(dtype)
        found.append(x.transpose(0, -1).contiguous().transpose(0, -1) if draw(st.booleans()) else x)
    assume(all(x.numel() > 2 * channels for x in found))
    return found


@settings(max_examples=25)
@given(batches())
def test_batch_normalization_equals_torchs_in_training_and_evaluation(steps):
    ours, theirs = twins(BATCHES[max(1, steps[0].ndim - 2)], steps[0].shape[1], dtype=steps[0].dtype)
    for x in steps:
        assert_same(ours, theirs, x)
        for mine, wanted in zip(ours.buffers(), theirs.buffers(), strict=True):
            assert_close(mine, wanted.to(mine.dtype), scale=10)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.eval(), theirs.eval()
    assert_same(ours, theirs, steps[0])
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())  # erratum E-42


def test_the_batch_is_divided_by_its_biased_variance_and_the_unbiased_one_is_kept():  # erratum E-42
    norm, x = BatchNorm1d(1, eps=0), torch.tensor([[1.0], [3.0]])
    assert norm(x).flatten().tolist() == [-1, 1]  # variance 1
    assert norm.running_var.tolist() == pytest.approx([0.9 * 1 + 0.1 * 2])
    assert norm.running_mean.tolist() == pytest.approx([0.1 * 2])
    assert norm.num_batches_tracked == 1


@settings(max_examples=12)
@given(batches(st.just(torch.float64)), st.floats(0.5, 20), st.floats(-50, 50))
def test_a_batch_in_other_units_is_normalised_to_the_same(steps, factor, place):
    norm = BATCHES[max(1, steps[0].ndim - 2)][0](steps[0].shape[1], eps=0).double()
    for x in steps:
        spread = x.movedim(1, 0).flatten(1).std(1)
        assume(bool((spread > 1e-3).all()))
        y = norm(x)
        assert_close(norm(factor * x + place), y, scale=1e3)
        assert_close(y.movedim(1, 0).flatten(1).mean(1), torch.zeros(x.shape[1], dtype=x.dtype), scale=1e3)
        assert_close(y.movedim(1, 0).flatten(1).var(1, correction=0), torch.ones(x.shape[1], dtype=x.dtype), scale=1e3)


def test_a_constant_channel_becomes_its_bias():
    norm = BatchNorm1d(2)
    assert torch.equal(norm(torch.full((4, 2), 7.0)), torch.zeros(4, 2))


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2), (2, 3, 0)], ids=["no samples", "no rows", "no numbers"])
def test_an_empty_batch_leaves_the_running_statistics_alone(shape):
    ours, theirs = twins(BATCHES[1], 3)
    assert_same(ours, theirs, torch.zeros(shape))
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(ours.buffers(), theirs.buffers(), strict=True))


@pytest.mark.parametrize("large", [100.0, 1e4, torch.inf, -torch.inf, torch.nan], ids=str)
def test_batch_normalization_of_extremes_is_torchs(large):
    x = torch.tensor([[1.0, 2.0], [3.0, large], [-5.0, -4.0]])
    ours, theirs = twins(BATCHES[1], 2)
    for _ in range(2):
        assert_same(ours, theirs, x)
        assert_close(ours.running_var, theirs.running_var)
        ours.eval(), theirs.eval()


def test_batches_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="expected more than one number per channel in training, got a batch of 1"):
        BatchNorm1d(3)(torch.zeros(1, 3))
    assert BatchNorm1d(3).eval()(torch.zeros(1, 3)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"expected 2 or 3 axes and 3 channels, got a shape of \(2, 4\)"):
        BatchNorm1d(3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"expected 4 axes and 3 channels, got a shape of \(2, 3\)"):
        BatchNorm2d(3)(torch.zeros(2, 3))


# --- over features ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", LAYERS.values(), ids=LAYERS)
@settings(max_examples=25)
@given(st.data())
def test_layer_normalization_equals_torchs_in_value_and_gradient(kinds, data):
    shape = (*data.draw(shapes(axes=3, side=3)), data.draw(st.integers(1, 6)))
    x = data.draw(tensors(shape, float_dtypes, small))
    # A small ε would make much of what rounding leaves of a constant row.
    ours, theirs = twins(kinds, shape[-1], eps=0.1, dtype=x.dtype)
    assert_same(ours, theirs, x, scale=100)


@pytest.mark.parametrize("kinds", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_default_epsilon_is_torchs(kinds, dtype):
    x = torch.tensor([[1e-3, -2e-3, 4e-3], [1, 2, -3]], dtype=dtype)
    ours, theirs = twins(kinds, 3, dtype=dtype)
    assert_close(ours(x).detach(), theirs.to(dtype)(x).detach())


@pytest.mark.parametrize("kinds", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("large", [100.0, 1e4, torch.inf, -torch.inf, torch.nan], ids=str)
def test_layer_normalization_of_extremes_is_torchs(kinds, large):
    ours, theirs = twins(kinds, 3)
    # torch's own gradient in single precision is rounded much worse than ours: (x/σ - μ/σ) instead of (x - μ)/σ.
    assert_same(ours, theirs.double(), torch.tensor([[1.0, large, -2.0], [large, large, large], [1.0, 2.0, 3.0]]))


@settings(max_examples=12)
@given(tensors((3, 4), torch.float64, small), st.floats(0.5, 20), st.floats(-50, 50))
def test_units_of_a_sample_do_not_matter(x, factor, place):
    assume(bool((x.std(1) > 1e-2).all()))
    layer, rms = LayerNorm(4, eps=0).double(), RMSNorm(4, eps=0).double()
    y = layer(x)
    assert_close(layer(factor * x + place), y, scale=1e3)
    assert_close(rms(factor * x), rms(x), scale=1e3)
    assert_close(y.mean(1), torch.zeros(3, dtype=x.dtype), scale=1e3)
    assert_close(y.var(1, correction=0), torch.ones(3, dtype=x.dtype), scale=1e3)
    assert_close(rms(x).square().mean(1), torch.ones(3, dtype=x.dtype), scale=1e3)
    assert_close(rms(x - x.mean(1, keepdim=True)), y, scale=1e3)  # of centred samples both are the same
    assert torch.equal(layer(x[:1]), y[:1])  # samples do not see each other


def test_layers_refuse_other_features_and_print_their_sizes():
    for kind in (LayerNorm, RMSNorm):
        with pytest.raises(ValueError, match=r"expected 4 features, got a shape of \(2, 3\)"):
            kind(4)(torch.zeros(2, 3))
    assert str(LayerNorm(4)) == "LayerNorm(4, eps=1e-05)"
    assert str(RMSNorm(4)) == "RMSNorm(4, eps=None)"
    assert str(BatchNorm2d(4)) == "BatchNorm2d(4, eps=1e-05, momentum=0.1)"


@pytest.mark.parametrize("kind", [BatchNorm1d, LayerNorm, RMSNorm], ids=["batch", "layer", "rms"])
def test_every_parameter_gets_a_gradient(kind):
    model = kind(4)
    (model(torch.randn(5, 4)) - 1).pow(3).sum().backward()
    assert all((p.grad != 0).all() for p in model.parameters())
