"""Transforms, against scikit-learn's and torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from strategies import float_dtypes, tensors, values
from tolerances import TOLERANCES, assert_close

from reference_models.transforms import (
    IMAGENET,
    channels_first,
    column_means,
    fit_min_max,
    fit_robust,
    fit_z_score,
    impute,
    one_hot,
    resize,
)
from tensorscope import ShapeError

# Tensors are slow to draw; each example goes far.
few = settings(max_examples=15)
# Numbers of which two are equal or clearly apart, so that scikit-learn's guess at what is constant is ours.
steps = st.integers(-100, 100).map(lambda number: number / 4)
sizes = st.tuples(st.integers(1, 7), st.integers(1, 5))
FITS = {
    "min-max": (fit_min_max, MinMaxScaler),
    "z-score": (fit_z_score, StandardScaler),
    "robust": (fit_robust, RobustScaler),
}


@pytest.mark.parametrize("name", FITS)
@few
@given(data=st.data(), shape=sizes, dtype=st.sampled_from([torch.float64, torch.float32]))
def test_a_scaling_is_that_of_scikit_learn_also_of_other_rows(name, data, shape, dtype):
    ours, theirs = FITS[name]
    rows, others = (data.draw(tensors(shape, dtype, steps)) for _ in range(2))
    fitted, expected = ours(rows), theirs().fit(rows.numpy())
    for x in (rows, others):
        assert_close(fitted(x), torch.as_tensor(expected.transform(x.numpy())), scale=100)


@pytest.mark.parametrize("name", FITS)
@few
@given(data=st.data(), shape=sizes, dtype=float_dtypes)
def test_undoing_a_scaling_gives_the_rows_back(name, data, shape, dtype):
    rows = data.draw(tensors(shape, dtype))
    fitted = FITS[name][0](rows)
    assert_close(fitted.undo(fitted(rows)), rows, scale=100)


@few
@given(st.data(), sizes, float_dtypes)
def test_the_rows_a_range_was_fitted_to_fill_zero_to_one(data, shape, dtype):
    rows = data.draw(tensors(shape, dtype))
    scaled = fit_min_max(rows)(rows)
    assert scaled.dtype is dtype
    assert ((scaled >= 0) & (scaled <= 1)).all()
    changing = (rows != rows[:1]).any(0)
    assert (scaled.amin(0) == 0).all()
    assert torch.equal(scaled.amax(0) == 1, changing)


@few
@given(st.data(), st.floats(-100, 100), st.floats(0.5, 100))
def test_what_is_scaled_does_not_depend_on_the_unit(data, shift, unit):
    rows = data.draw(tensors((5, 3), torch.float64, steps))
    for fit in (fit_min_max, fit_z_score):
        assert_close(fit(rows * unit + shift)(rows * unit + shift), fit(rows)(rows), scale=1000)


@pytest.mark.parametrize("number", [0.1, 1e-30, -3e37])
@pytest.mark.parametrize("name", FITS)
def test_a_feature_that_never_changes_becomes_exactly_zero(name, number):
    rows = torch.full((7, 2), number)
    assert FITS[name][0](rows)(rows).eq(0).all()


@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        (torch.float16, 1e4),
        (torch.float32, 1e30),
        (torch.float32, 1e-30),
        (torch.float64, 1e300),
        (torch.float64, 1e-300),
    ],
    ids=["half", "large", "small", "larger", "smaller"],
)
def test_squares_that_the_dtype_cannot_hold_do_not_spoil_a_deviation(dtype, unit):
    rows = torch.tensor([[-1.0], [1.0], [3.0]], dtype=dtype)
    assert_close(fit_z_score(rows * unit)(rows * unit), fit_z_score(rows)(rows))


def test_the_smallest_of_all_differences_is_still_no_division_by_zero():
    rows = torch.tensor([[0.0]] * 30 + [[5e-324]], dtype=torch.float64)
    assert fit_z_score(rows)(rows).isfinite().all()


def test_an_outlier_does_not_sway_the_robust_scale():
    column = torch.arange(100.0).unsqueeze(1)
    far = column.clone()
    far[-1] = 1e6
    for fitted in (fit_robust(column), fit_robust(far)):
        assert (fitted.shift.item(), fitted.scale.item()) == (49.5, 49.5)


def test_each_feature_has_its_own_range_unless_all_are_to_share_one():
    rows = torch.tensor([[0.0, 0.0], [1.0, 1000.0]])
    assert fit_min_max(rows)(rows).tolist() == [[0, 0], [1, 1]]
    shared = fit_min_max(rows, (0, 1))(rows)
    assert_close(shared, torch.tensor([[0.0, 0.0], [0.001, 1.0]]))


def test_a_batch_is_scaled_by_what_was_fitted_and_not_by_itself():
    fitted = fit_z_score(torch.tensor([[0.0], [2.0]]))
    assert fitted(torch.tensor([[3.0], [5.0]])).tolist() == [[2.0], [4.0]]
    assert fitted(torch.tensor([[3.0]])).tolist() == [[2.0]]


@few
@given(tensors((3, 2, 4, 5), torch.float64, steps))
def test_images_can_be_scaled_per_channel(images):
    scaled = fit_z_score(images, (0, 2, 3))(images)
    assert_close(scaled.mean((0, 2, 3)), torch.zeros(2, dtype=torch.float64), scale=100)
    spread = scaled.std((0, 2, 3), correction=0)
    assert ((spread - 1).abs().lt(1e-6) | (images.amax((0, 2, 3)) == images.amin((0, 2, 3)))).all()


def test_nan_stays_with_its_feature():
    fitted = fit_min_max(torch.tensor([[0.0, float("nan")], [1.0, 3.0]]))
    assert fitted(torch.tensor([[0.5, 0.5]])).isnan().tolist() == [[False, True]]


@pytest.mark.parametrize("name", FITS)
def test_no_rows_and_whole_numbers_have_no_scale(name):
    with pytest.raises(ValueError, match=r"expected at least one number in `rows`, got shape \(0, 3\)"):
        FITS[name][0](torch.zeros(0, 3))
    with pytest.raises(TypeError, match=r"expected `rows` of a float dtype, got torch.int64"):
        FITS[name][0](torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(2,), (5, 2), (5, 1), ()])
def test_rows_with_other_features_are_refused(shape):
    fitted = fit_min_max(torch.rand(4, 3))
    for scale in (fitted, fitted.undo):
        with pytest.raises(ValueError, match=r"expected `x` to fit a scaling of shape \(1, 3\), got shape"):
            scale(torch.zeros(shape))


def test_a_scaling_of_no_rows_is_no_rows():
    assert fit_min_max(torch.rand(4, 3))(torch.zeros(0, 3)).shape == (0, 3)


def test_imagenets_mean_becomes_zero_and_its_deviation_one():
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = torch.stack([mean, mean + deviation])[:, :, None, None].expand(2, 3, 4, 5)
    assert_close(IMAGENET(images)[0], torch.zeros(3, 4, 5))
    assert_close(IMAGENET(images)[1], torch.ones(3, 4, 5))
    with pytest.raises(ValueError, match="expected `x` to fit"):
        IMAGENET(torch.zeros(2, 4, 5, 3))


@few
@given(st.data(), st.tuples(st.integers(1, 6), st.integers(1, 4)), st.sampled_from([torch.float64, torch.float32]))
def test_imputing_by_column_means_is_that_of_scikit_learn(data, shape, dtype):
    rows = data.draw(tensors(shape, dtype))
    holes = data.draw(tensors(shape, torch.bool))
    holes[0] = False
    rows = torch.where(holes, float("nan"), rows)
    expected = SimpleImputer().fit_transform(rows.numpy())
    assert_close(impute(rows, column_means(rows)), torch.as_tensor(expected, dtype=dtype), scale=100)


def test_test_rows_are_filled_with_the_training_rows_means():
    train, test = torch.tensor([[1.0], [3.0]]), torch.tensor([[float("nan")], [100.0]])
    assert impute(test, column_means(train)).tolist() == [[2.0], [100.0]]


def test_a_column_without_numbers_has_no_mean():
    nan = float("nan")
    with pytest.raises(ValueError, match=r"expected a known number in every column of `rows`, got none in \[1, 2\]"):
        column_means(torch.tensor([[1.0, nan, nan], [nan, nan, nan]]))


@few
@given(st.lists(st.integers(0, 4), max_size=6), st.integers(0, 2))
def test_one_hot_is_torchs(labels, more):
    numbers = torch.tensor(labels, dtype=torch.int64)
    classes = max(labels, default=0) + 1 + more
    assert torch.equal(one_hot(numbers, classes), F.one_hot(numbers, classes).float())
    assert torch.equal(one_hot(numbers, classes).argmax(-1), numbers)
    assert one_hot(numbers[:, None], classes).shape == (len(labels), 1, classes)


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_class_that_there_is_not_is_refused(label):
    with pytest.raises(ValueError, match=f"expected `labels` from 0 to 2, got {label}"):
        one_hot(torch.tensor([0, label]), 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64], ids=["float32", "bool", "complex64"])
def test_only_integers_are_classes(dtype):
    with pytest.raises(TypeError, match="expected `labels` of an integer dtype"):
        one_hot(torch.zeros(2, dtype=dtype), 3)


def test_colours_are_moved_and_not_renamed():
    height, width = 2, 3
    red, green, blue = (torch.arange(6).reshape(height, width) + start for start in (0, 100, 200))
    stored = torch.stack([red, green, blue], -1)
    moved = channels_first(stored)
    assert all(torch.equal(plane, expected) for plane, expected in zip(moved, (red, green, blue), strict=True))
    assert not torch.equal(moved, stored.reshape(3, height, width)), "what the book does (E-35)"


@few
@given(st.data(), st.lists(st.integers(0, 3), max_size=2), st.integers(0, 4), st.integers(0, 4))
def test_moving_colours_is_numpys_moveaxis(data, batch, height, width):
    images = data.draw(tensors((*batch, height, width, 3)))
    assert np.array_equal(channels_first(images).numpy(), np.moveaxis(images.numpy(), -1, -3))


def test_an_image_without_an_axis_of_colours_is_refused():
    with pytest.raises(ShapeError, match="`images`"):
        channels_first(torch.zeros(4, 4))


@few
@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(1, 12), float_dtypes)
def test_resizing_is_torchs_bilinear_interpolation(data, height, width, side, dtype):
    images = data.draw(tensors((2, 1, height, width), dtype))
    # torch computes the middles of pixels in float32 for half precision.
    expected = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    assert_close(resize(images, side), expected, scale=100)


@few
@given(tensors((1, 2, 5, 5), torch.float64), st.integers(1, 9))
def test_resizing_stays_within_the_images_range_and_keeps_what_is_even(images, side):
    resized = resize(images, side)
    slack = 100 * TOLERANCES[torch.float64][1]
    assert (resized <= images.amax((2, 3), keepdim=True) + slack).all()
    assert (resized >= images.amin((2, 3), keepdim=True) - slack).all()
    assert_close(resize(torch.ones_like(images), side), torch.ones(1, 2, side, side, dtype=torch.float64))
    assert_close(resize(images, 5), images)


def test_nothing_can_be_resized_from_or_to_no_pixel():
    for images, side in ((torch.zeros(1, 1, 0, 4), 2), (torch.zeros(1, 1, 4, 4), 0)):
        with pytest.raises(ValueError, match="expected `images` and `side` of at least one pixel"):
            resize(images, side)
    assert resize(torch.zeros(0, 1, 4, 4), 3).shape == (0, 1, 3, 3)


@few
@given(tensors((2, 3), torch.float64, values()))
def test_scaling_and_resizing_pass_gradients(rows):
    rows = rows.requires_grad_()
    fitted = fit_min_max(torch.tensor([[0.0, 1.0, 2.0], [4.0, 9.0, 2.0]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(fitted(rows).sum(), rows)
    assert_close(gradient, (1 / fitted.scale).expand(2, 3))
    (gradient,) = torch.autograd.grad(resize(rows[None, None], 6).sum(), rows)
    assert_close(gradient.sum(), torch.tensor(36.0, dtype=torch.float64))
