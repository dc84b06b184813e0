"""Activations: equal to torch's own in value and slope, over everything a float can be."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from strategies import float_dtypes, shapes, tensors, values
from tolerances import assert_close
from torch import nn

from reference_models import activations
from reference_models.activations import (
    GELU,
    MODULES,
    Activation,
    ReLU,
    activation,
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    step,
    tanh,
)

INF, NAN = math.inf, math.nan
THEIRS = {
    "step": lambda x: torch.heaviside(x.detach(), x.new_zeros(())),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    # From its threshold on torch's softplus is x; 20, the default, shows in float64.
    "softplus": lambda x: F.softplus(x, threshold=30),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
}
OURS = {name: getattr(activations, name, None) for name in THEIRS} | {"gelu_tanh": lambda x: gelu(x, True)}
OVER_CLASSES = {"softmax": (softmax, F.softmax), "log_softmax": (log_softmax, F.log_softmax)}
WEIGHTED = {"gelu", "gelu_tanh", "silu", "mish"}  # x · something, which is ∞ · 0 for torch here and there
SMOOTH_RISERS = {"sigmoid": sigmoid, "tanh": tanh, "softplus": softplus, "elu": elu, "selu": selu}
RISERS = {"step": step, "relu": relu, "leaky_relu": leaky_relu} | SMOOTH_RISERS


def slopes(function, x):
    """Value, and gradient of a weighted sum of the values."""
    x = x.detach().clone().requires_grad_()
    y = function(x)
    if not y.requires_grad:
        return y, torch.zeros_like(x)
    (y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    return y.detach(), x.grad


def assert_equals_torchs(name, x):
    """Equal, but for numbers of which torch makes NaN, and slopes at NaN where torch has two answers."""
    value, slope = slopes(OURS[name], x)
    expected, steep = slopes(THEIRS[name], x)
    known = ~(expected.isnan() & ~x.isnan()) if name in WEIGHTED else torch.ones_like(x, dtype=torch.bool)
    assert_close(value[known], expected[known])
    known = ~(steep.isnan() & ~x.isnan()) if name in WEIGHTED else ~x.isnan() if name in {"elu", "selu"} else known
    assert_close(slope[known], steep[known])


@given(tensors(dtype=float_dtypes, elements=values(non_finite=True)))
def test_they_equal_torchs_in_value_and_gradient(x):
    for name in THEIRS:
        note(name)
        assert_equals_torchs(name, x)


@settings(max_examples=15)
@given(tensors(dtype=st.sampled_from([torch.float64, torch.float32]), elements=values(largest=1e30)))
def test_they_equal_torchs_on_numbers_of_any_size(x):
    for name in THEIRS:
        note(name)
        assert_equals_torchs(name, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", THEIRS)
def test_it_equals_torchs_at_the_extremes(name, dtype):
    x = torch.tensor([-INF, -1e4, -100, -89, -20.5, -1e-6, -0.0, 0, 1e-6, 20.5, 89, 100, 1e4, INF, NAN], dtype=dtype)
    assert_equals_torchs(name, x)
    value, slope = slopes(OURS[name], x[1:-2])
    assert value.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", OVER_CLASSES)
@settings(max_examples=25)
@given(x=tensors(dtype=float_dtypes, elements=values(non_finite=True)))
def test_probabilities_equal_torchs_in_value_and_gradient(name, x):
    assume(x.ndim and x.shape[-1])
    ours, theirs = OVER_CLASSES[name]
    for actual, expected in zip(slopes(ours, x), slopes(lambda x: theirs(x, -1), x), strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("name", OVER_CLASSES)
@settings(max_examples=10)
@given(x=tensors(shapes(smallest=1), elements=values(largest=1e30)))
def test_probabilities_equal_torchs_on_numbers_of_any_size(name, x):
    assume(x.ndim)
    ours, theirs = OVER_CLASSES[name]
    for actual, expected in zip(slopes(ours, x), slopes(lambda x: theirs(x, -1), x), strict=True):
        assert_close(actual, expected)


@settings(max_examples=20)
@given(tensors(dtype=torch.float64, elements=values(largest=1e4)), st.floats(0, 3))
def test_what_is_left_of_zero_can_be_set(x, left):
    assert_close(leaky_relu(x, left), F.leaky_relu(x, left))
    assert_close(elu(x, left), F.elu(x, left))


def test_the_step_is_zero_at_zero_and_stops_gradients():
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 5.0], requires_grad=True)
    assert step(x).tolist() == [0, 0, 0, 1, 1]  # erratum E-01
    assert not step(x).requires_grad


def test_the_rectifier_keeps_nan_and_has_no_slope_at_zero():
    x = torch.tensor([NAN, -0.0, 0.0, -INF, INF], requires_grad=True)
    y = relu(x)
    y[1:4].sum().backward()
    assert_close(y.detach(), torch.tensor([NAN, 0.0, 0.0, 0.0, INF]))
    assert x.grad.tolist() == [0, 0, 0, 0, 0]
    assert ReLU()(torch.tensor([-1, 2])).tolist() == [0, 2]


def test_the_books_formulas_overflow_where_ours_do_not():
    x = torch.tensor([100.0], requires_grad=True)
    selected = torch.where(x > 20, x, (1 + x.exp()).log())  # erratum E-55: right in value, NaN in slope
    assert selected == softplus(x) == 100
    assert torch.autograd.grad(selected, x)[0].isnan()
    assert torch.autograd.grad(softplus(x), x)[0] == 1
    assert ((x.exp() - (-x).exp()) / (x.exp() + (-x).exp())).isnan()
    assert tanh(x) == 1


def test_infinity_weighted_by_one_is_infinite():
    for weigh in (gelu, silu, mish, lambda x: gelu(x, True)):
        assert weigh(torch.tensor(INF)) == INF


def test_a_large_number_passes_the_approximate_gelu_with_slope_one():
    x = torch.tensor([1e30, -1e30], requires_grad=True)
    assert torch.autograd.grad(gelu(x, True).sum(), x)[0].tolist() == [1, 0]  # torch: NaN, since x³ overflows


@settings(max_examples=20)
@given(tensors(dtype=torch.float64, elements=values()))
def test_sigmoid_tanh_and_softplus_mirror_themselves(x):
    assert_close(sigmoid(-x), 1 - sigmoid(x))
    assert_close(tanh(-x), -tanh(x))
    assert_close(tanh(x), 2 * sigmoid(2 * x) - 1)
    assert_close(softplus(x) - softplus(-x), x)


@settings(max_examples=20)
@given(tensors(shapes(), torch.float64, values(largest=1e4)))
def test_what_should_never_fall_does_not(x):
    x = x.flatten().sort().values
    for name, function in RISERS.items():
        note(name)
        # One rounding error is granted: the last elements of a tensor may be computed by other instructions.
        assert (function(x).diff() >= -1e-15 * x[1:].abs().clamp(min=1)).all()


def test_ranges_are_those_of_the_book():
    x = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    assert (sigmoid(x) > 0).all()
    assert (sigmoid(x) < 1).all()
    assert (tanh(x).abs() <= 1).all()
    assert (softplus(x) > relu(x)).all()
    assert (elu(x) > -1).logical_or(x < -20).all()
    assert [round(float(f(x).min()), 3) for f in (gelu, silu, mish)] == [-0.170, -0.278, -0.309]


def test_selu_keeps_mean_zero_and_variance_one():
    x = torch.randn(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert abs(selu(x).mean()) < 0.01
    assert abs(selu(x).var() - 1) < 0.02


@settings(max_examples=20)
@given(tensors(shapes(smallest=1), torch.float64, values(largest=1e4)))
def test_probabilities_sum_to_one_and_do_not_change_with_a_shift(x):
    assume(x.ndim)
    assert_close(softmax(x).sum(-1), torch.ones(x.shape[:-1], dtype=x.dtype))
    assert_close(softmax(x + 7), softmax(x))
    assert_close(log_softmax(x).exp(), softmax(x))


# --- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_the_name_and_the_values_of_torchs(name):
    module = activation(name)
    torchs = nn.GELU("tanh") if name == "gelu_tanh" else getattr(nn, type(module).__name__)()
    x = torch.randn(2, 3, 4)
    assert_close(module(x), torchs(x))
    assert not list(module.parameters())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))


def test_modules_print_their_settings():
    names = {name: str(activation(name)) for name in ("relu", "leaky_relu", "elu", "gelu_tanh")}
    assert names == {
        "relu": "ReLU()",
        "leaky_relu": "LeakyReLU(slope=0.01)",
        "elu": "ELU(alpha=1.0)",
        "gelu_tanh": "GELU(approximate=True)",
    }


def test_modules_take_settings():
    x = torch.linspace(-3, 3, 7)
    assert_close(activations.LeakyReLU(0.2)(x), F.leaky_relu(x, 0.2))
    assert_close(activations.ELU(2.0)(x), F.elu(x, 2.0))
    assert_close(GELU(approximate=True)(x), F.gelu(x, approximate="tanh"))


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("rleu", "'rleu'; did you mean `relu`?"),
        ("gelu-tanh", "did you mean `gelu_tanh`?"),
        ("step", "got 'step'"),
        (3, "got 3"),
    ],
)
def test_a_name_that_is_none_is_refused(name, end):
    with pytest.raises(ValueError, match="expected `name` among relu, leaky_relu, ") as caught:
        activation(name)
    assert str(caught.value).endswith(end)


def test_an_activation_without_a_function_says_so():
    with pytest.raises(NotImplementedError, match="`Activation` has no `bend`"):
        Activation()(torch.zeros(1))
