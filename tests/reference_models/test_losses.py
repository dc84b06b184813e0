"""Losses: torch's own in value and gradient, at extremes and with labels left out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, note, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, mean_pinball_loss
from strategies import FLOATS, float_dtypes, shapes, tensors, values
from tolerances import assert_close

from reference_models.losses import (
    accuracy,
    bce,
    bce_with_logits,
    cross_entropy,
    focal,
    huber,
    l2_penalty,
    mae,
    mse,
    perplexity,
    quantile,
    smooth_l1,
)
from reference_models.mlp import Linear
from tensorscope import ShapeError

INF, NAN = math.inf, math.nan
REGRESSION = {
    "mse": (mse, F.mse_loss),
    "mae": (mae, F.l1_loss),
    "huber": (huber, F.huber_loss),
    "huber of 0.3": (lambda x, y: huber(x, y, 0.3), lambda x, y: F.huber_loss(x, y, delta=0.3)),
    "smooth_l1": (smooth_l1, F.smooth_l1_loss),
    "smooth_l1 of 2.5": (lambda x, y: smooth_l1(x, y, 2.5), lambda x, y: F.smooth_l1_loss(x, y, beta=2.5)),
    "smooth_l1 of 0": (lambda x, y: smooth_l1(x, y, 0), lambda x, y: F.smooth_l1_loss(x, y, beta=0)),
}
OF_PAIRS = {
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "smooth_l1": smooth_l1,
    "quantile": quantile,
    "bce": bce,
    "bce_with_logits": bce_with_logits,
    "focal": focal,
}


def slopes(loss, *tensors):
    """Value, and gradients of each tensor."""
    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = loss(*tensors)
    return value.detach(), *torch.autograd.grad(value, tensors)


def assert_same(ours, theirs, *tensors):
    for actual, expected in zip(slopes(ours, *tensors), slopes(theirs, *tensors), strict=True):
        assert_close(actual, expected)


@st.composite
def pairs(draw, dtype=float_dtypes, first=None, second=None, smallest=0):
    """Two tensors of one shape and dtype."""
    shape, dtype = draw(shapes(smallest=smallest)), draw(dtype)
    return draw(tensors(shape, dtype, first)), draw(tensors(shape, dtype, second))


# --- numbers ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(pairs(smallest=1))
def test_losses_of_numbers_equal_torchs_in_value_and_gradients(pair):
    for name, (ours, theirs) in REGRESSION.items():
        note(name)
        assert_same(ours, theirs, *pair)


@settings(max_examples=20)
@given(pairs(st.just(torch.float32), values(largest=1e15), values(largest=1e15, non_finite=True), smallest=1))
def test_losses_of_numbers_of_any_size_equal_torchs(pair):
    for name, (ours, theirs) in REGRESSION.items():
        note(name)
        assert_same(ours, theirs, *pair)


@settings(max_examples=20)
@given(pairs(st.just(torch.float64), smallest=1), st.floats(0.01, 0.99))
def test_the_quantile_loss_equals_scikit_learns(pair, q):
    prediction, target = (x.flatten() for x in pair)
    assert float(quantile(prediction, target, q)) == pytest.approx(mean_pinball_loss(target, prediction, alpha=q))
    assert_close(quantile(prediction, target), mae(prediction, target) / 2)


def test_the_quantile_loss_is_smallest_at_the_quantile():
    target = torch.randperm(1001, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses = [float(quantile(torch.full_like(target, guess), target, 0.9)) for guess in range(1001)]
    assert losses.index(min(losses)) == 900


@settings(max_examples=20)
@given(pairs(st.just(torch.float64), smallest=1))
def test_errors_count_alike_in_both_directions_and_huber_lies_below(pair):
    prediction, target = pair
    for loss in (mse, mae, huber, smooth_l1):
        assert_close(loss(prediction, target), loss(target, prediction), scale=1e4)
    assert huber(prediction, target) <= min(mse(prediction, target) / 2, mae(prediction, target)) + 1e-9


# --- probabilities of one thing ---------------------------------------------------------------------------------------

chances = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-15, 1e-6]), st.floats(0, 1))
logit_values = st.one_of(values(largest=1e4), values())


@settings(max_examples=40)
@given(pairs(st.sampled_from(FLOATS[:3]), chances, chances, smallest=1))
def test_bce_equals_torchs_in_value_and_gradient_down_to_zero(pair):
    probabilities, target = pair
    (loss, slope), (expected, steep) = (
        slopes(lambda p, f=f: f(p, target), probabilities) for f in (bce, F.binary_cross_entropy)
    )
    assert_close(loss, expected)
    inside = probabilities * (1 - probabilities) > 1e-12
    assert_close(slope[inside], steep[inside])
    # Of what is 0 and should be, torch's slope is 0 instead of 1 (of the mean, 1/n); else 10¹² is 10¹² to it, nearly.
    apart = (slope - steep).abs() - 0.02 * steep.abs()
    assert (apart[~inside] <= 1.01 / slope.numel()).all()


@settings(max_examples=40)
@given(pairs(first=logit_values, second=chances, smallest=1))
def test_bce_with_logits_equals_torchs_in_value_and_gradient(pair):
    logits, target = pair
    ours, theirs = bce_with_logits, F.binary_cross_entropy_with_logits
    assert_same(lambda x: ours(x, target), lambda x: theirs(x, target), logits)


def test_both_forms_of_bce_agree_and_are_not_each_other():
    logits, target = torch.randn(50, dtype=torch.float64), (torch.rand(50) < 0.5).double()
    assert_close(bce(logits.sigmoid(), target), bce_with_logits(logits, target))
    # Erratum E-02: the book hands probabilities to the form that takes logits; then nothing is ever certain.
    assert bce_with_logits(torch.ones(1), torch.ones(1)) > 0.31 > bce(torch.ones(1), torch.ones(1)) == 0


def test_certainty_of_the_wrong_costs_a_finite_number_at_any_size():
    logits = torch.tensor([1e4, -1e4], requires_grad=True)
    for loss in (bce_with_logits, lambda x, y: focal(x, y, 0.5)):
        gradient = torch.autograd.grad(loss(logits, torch.tensor([0.0, 1.0])), logits)[0]
        assert gradient.isfinite().all()
        assert (gradient * torch.tensor([1, -1]) > 0).all()  # errata E-44, E-55


@settings(max_examples=30)
@given(
    pairs(st.just(torch.float64), values(largest=10), st.sampled_from([0.0, 1.0]), smallest=1),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
)
def test_the_focal_loss_is_its_formula_in_value_and_gradient(pair, alpha, gamma):
    logits, target = pair

    def formula(x):
        p = torch.where(target == 1, x.sigmoid(), 1 - x.sigmoid())
        weight = alpha * target + (1 - alpha) * (1 - target)
        return -(weight * (1 - p) ** gamma * p.log()).mean()

    assert_same(lambda x: focal(x, target, alpha, gamma), formula, logits)


@settings(max_examples=20)
@given(pairs(first=logit_values, second=st.sampled_from([0.0, 1.0]), smallest=1))
def test_a_focal_loss_without_focus_is_half_of_bce(pair):
    assert_close(focal(*pair, alpha=0.5, gamma=0), bce_with_logits(*pair) / 2)


def test_what_is_easy_counts_less_the_larger_gamma_is():
    easy, hard, one = torch.tensor([3.0]), torch.tensor([-3.0]), torch.ones(1)
    ratios = [float(focal(easy, one, gamma=gamma) / focal(hard, one, gamma=gamma)) for gamma in (0, 1, 2, 3)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 1e3 * ratios[3]


# --- classes ---------------------------------------------------------------------------------------------------------


def flat_cross_entropy(logits, labels, **settings):
    """Torch's, which takes classes on axis 1."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), **settings)


@st.composite
def scored(draw, axes=2):
    """Logits, labels some of which do not count (but not all), what marks those, and smoothing."""
    batch = draw(st.sampled_from([(1,), (4,), (2, 3), (1, 1), (2, 1, 2)]))
    dtype, classes = draw(float_dtypes), draw(st.integers(1, 5))
    logits = draw(tensors((*batch, classes), dtype, st.one_of(values(), values(largest=1e4))))
    ignored = draw(st.sampled_from([-100, -1, 0]))
    count = math.prod(batch)
    labels = draw(st.lists(st.sampled_from([ignored, *range(classes)]), min_size=count, max_size=count))
    return logits, torch.tensor(labels).reshape(batch), ignored, draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]))


@settings(max_examples=60)
@given(scored())
def test_cross_entropy_equals_torchs_in_value_and_gradient(case):
    logits, labels, ignored, smoothing = case
    options = {"ignore_index": ignored, "label_smoothing": smoothing}
    assert_same(
        lambda x: cross_entropy(x, labels, **options), lambda x: flat_cross_entropy(x, labels, **options), logits
    )


@settings(max_examples=30)
@given(tensors((4, 3), torch.float64, values(non_finite=True)), tensors((4, 3), torch.float64, chances))
def test_cross_entropy_of_what_is_not_finite_is_torchs(logits, target):
    for labels in (torch.tensor([0, 1, 2, 0]), torch.tensor([0, -100, 2, 0]), target):
        assert_close(cross_entropy(logits, labels), F.cross_entropy(logits, labels))


@settings(max_examples=30)
@given(st.data(), float_dtypes, st.sampled_from([(1, 1), (3, 4), (2, 3, 4)]), st.sampled_from([0.0, 0.3]))
def test_cross_entropy_of_probabilities_equals_torchs(data, dtype, shape, smoothing):
    logits = data.draw(tensors(shape, dtype))
    labels = data.draw(tensors(shape, dtype, chances))
    assert_same(
        lambda x, y: cross_entropy(x, y, label_smoothing=smoothing),
        lambda x, y: F.cross_entropy(x.flatten(0, -2), y.flatten(0, -2), label_smoothing=smoothing),
        logits,
        labels,
    )


def test_all_of_them_are_within_a_millionth_of_torchs():
    logits, other, labels = torch.randn(64, 10), torch.rand(64, 10), torch.arange(64) % 10
    for ours, theirs in REGRESSION.values():
        assert abs(ours(logits, other) - theirs(logits, other)) <= 1e-6
    assert abs(cross_entropy(logits, labels) - F.cross_entropy(logits, labels)) <= 1e-6
    assert abs(bce(other, other) - F.binary_cross_entropy(other, other)) <= 1e-6
    ours, theirs = bce_with_logits, F.binary_cross_entropy_with_logits
    assert abs(ours(logits, other) - theirs(logits, other)) <= 1e-6


@settings(max_examples=20)
@given(tensors((4, 3), torch.float64, values()), st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing_and_indices_are_one_hot_probabilities(logits, shift):
    labels = torch.tensor([2, 0, 1, 1])
    assert_close(cross_entropy(logits + shift, labels), cross_entropy(logits, labels))
    assert_close(cross_entropy(logits, F.one_hot(labels, 3).double()), cross_entropy(logits, labels))  # erratum E-03


def test_smoothed_targets_sum_to_one():
    # If they summed to s, logits that give each class a probability of 1/5 would cost s · log 5; the book's s is 1.025.
    loss = cross_entropy(torch.zeros(1, 5, dtype=torch.float64), torch.tensor([2]), label_smoothing=0.1)
    assert float(loss) == pytest.approx(math.log(5))  # erratum E-38
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.1, 0.0]], dtype=torch.float64)
    target = 0.9 * F.one_hot(torch.tensor([2]), 5).double() + 0.1 / 5
    assert_close(cross_entropy(logits, torch.tensor([2]), label_smoothing=0.1), cross_entropy(logits, target))


def test_what_does_not_count_changes_nothing():
    logits = torch.randn(3, 5, 7, dtype=torch.float64)
    labels = torch.randint(7, (3, 5))
    padded = torch.cat([logits, torch.full((3, 2, 7), NAN, dtype=torch.float64)], 1)
    marked = torch.cat([labels, torch.full((3, 2), -100)], 1)
    for loss in (cross_entropy, perplexity):
        assert_close(loss(padded, marked), loss(logits, labels))  # erratum E-43
    assert accuracy(padded, marked) == accuracy(logits, labels)


def test_an_untrained_guess_costs_the_logarithm_of_the_classes():
    assert math.isclose(cross_entropy(torch.zeros(5, 10), torch.arange(5)), math.log(10), rel_tol=1e-6)
    assert math.isclose(perplexity(torch.zeros(2, 5, 10), torch.zeros(2, 5).long()), 10, rel_tol=1e-6)


def test_where_nothing_counts_there_is_no_loss():
    for loss in (cross_entropy, accuracy, perplexity):
        assert loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).isnan()
        assert loss(torch.zeros(2, 3), torch.full((2,), -100)).isnan()
    for loss in OF_PAIRS.values():
        assert loss(torch.zeros(2, 0), torch.zeros(2, 0)).isnan()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_labels_may_be_any_integers(dtype):
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    assert cross_entropy(logits, labels.to(dtype)) == cross_entropy(logits, labels)
    assert accuracy(logits, labels.to(dtype)) == accuracy(logits, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_many_tokens_do_not_overflow_half_precision(dtype):
    logits, labels = torch.zeros(2, 20_000, 100, dtype=dtype), torch.zeros(2, 20_000, dtype=torch.long)
    labels[1, 5000:] = -100
    assert_close(cross_entropy(logits, labels), torch.tensor(math.log(100), dtype=dtype))


def test_accuracy_is_the_share_of_right_answers():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [0.0, 9.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75
    assert accuracy(logits, torch.tensor([0, 1, -100, 1])) == 1
    assert accuracy(logits, torch.tensor([0, 1, 1, 1]), ignore_index=1) == 1
    logits, labels = torch.randn(4, 25, 3), torch.randint(3, (4, 25))
    expected = accuracy_score(labels.flatten(), logits.argmax(-1).flatten())
    assert float(accuracy(logits, labels)) == pytest.approx(expected)


# --- weights ---------------------------------------------------------------------------------------------------------


def test_the_penalty_pulls_at_weights_as_weight_decay_does_and_leaves_biases_alone():
    layer = Linear(4, 3)
    (0.3 / 2 * l2_penalty(layer.parameters())).backward()
    assert_close(layer.weight.grad, 0.3 * layer.weight.detach())
    assert layer.bias.grad is None  # erratum E-54
    assert l2_penalty([torch.full((2, 3), 2.0), torch.ones(5), torch.ones(1, 1, 1, 2)]) == 26
    assert l2_penalty([]) == l2_penalty(iter([torch.ones(3)])) == 0


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_PAIRS)
def test_shapes_that_arithmetic_would_broadcast_are_refused(name):
    for first, second in (((4, 1), (4,)), ((4,), (4, 1)), ((1, 1), (1, 1, 1)), ((4, 1), (4, 3)), ((), (1,))):
        with pytest.raises(ShapeError, match=f"`{name}`: `target` has"):
            OF_PAIRS[name](torch.rand(first), torch.rand(second))


def test_labels_of_another_shape_are_refused():
    for loss in (cross_entropy, accuracy, perplexity):
        for shape in ((4, 1), (5,), ()):
            with pytest.raises(
                ShapeError, match=r"`labels` has \(.*\) for `\*batch`, which is \(4,\) \(from `logits`\)"
            ):
                loss(torch.zeros(4, 3), torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ShapeError, match="`labels`"):
        cross_entropy(torch.zeros(2, 5, 7).transpose(1, 2), torch.zeros(2, 5, dtype=torch.long))  # torch's order
    with pytest.raises(ShapeError, match="`labels`"):
        cross_entropy(torch.zeros(4, 3), torch.zeros(4, 2))


def test_labels_that_are_one_hot_integers_are_explained():
    with pytest.raises(
        ValueError, match=r"class indices \(4,\) or as probabilities, got one-hot torch.int64 of \(4, 3\)"
    ):
        cross_entropy(torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.long))


@pytest.mark.parametrize("label", [3, -1])
def test_a_class_that_does_not_exist_is_refused(label):
    with pytest.raises(RuntimeError, match=f"index {label} is out of bounds"):
        cross_entropy(torch.zeros(1, 3), torch.tensor([label]))


@pytest.mark.parametrize(
    ("loss", "options", "said"),
    [
        (huber, {"delta": 0}, "`delta` above 0, got 0"),
        (smooth_l1, {"beta": -1}, "`beta` of at least 0, got -1"),
        (quantile, {"q": 1}, "`q` between 0 and 1, got 1"),
        (focal, {"alpha": 1.5}, "`alpha` from 0 to 1, got 1.5"),
        (focal, {"gamma": NAN}, "`gamma` of at least 0, got nan"),
        (cross_entropy, {"label_smoothing": 2}, "`label_smoothing` from 0 to 1, got 2"),
    ],
    ids=["delta", "beta", "q", "alpha", "gamma", "smoothing"],
)
def test_a_setting_that_makes_no_loss_is_refused(loss, options, said):
    with pytest.raises(ValueError, match=f"expected {said}"):
        loss(torch.zeros(2, 2), torch.zeros(2, 2), **options)
