"""Augmentation: laws, and torch's and scipy's rotation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FLOATS, dtypes, float_dtypes, tensors
from tolerances import assert_close

from reference_models.augmentation import crop, delete_words, flip, jitter, random_rotation, rotate, swap_words

# Tensors are slow to draw; each example goes far.
few = settings(max_examples=15)
shades = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0]))
sides = st.integers(1, 6)
texts = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=10)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@few
@given(st.data(), st.tuples(st.integers(0, 5), st.just(2), sides, sides), dtypes, st.floats(0, 1), st.integers(0, 9))
def test_each_image_is_mirrored_or_not(data, shape, dtype, p, seed):
    images = data.draw(tensors(shape, dtype))
    for image, flipped in zip(images, flip(images, p, generator=generator(seed)), strict=True):
        assert torch.equal(flipped, image) or torch.equal(flipped, image.flip(-1))


def test_mirroring_happens_as_often_as_it_should():
    images = torch.tensor([0.0, 1.0]).expand(4000, 1, 1, 2)
    for p in (0.0, 0.25, 1.0):
        assert abs(float(flip(images, p)[:, 0, 0, 0].mean()) - p) <= 4 * math.sqrt(p * (1 - p) / 4000)
    assert torch.equal(flip(flip(images, 1.0), 1.0), images)


@few
@given(st.data(), st.integers(0, 4), sides, sides, st.integers(0, 2), st.integers(0, 9))
def test_a_crop_is_a_window_of_the_padded_image(data, batch, height, width, padding, seed):
    side = data.draw(st.integers(0, min(height, width) + 2 * padding))
    images = data.draw(tensors((batch, 2, height, width)))
    cropped = crop(images, side, padding=padding, generator=generator(seed))
    assert cropped.shape == (batch, 2, side, side)
    for image, square in zip(F.pad(images, [padding] * 4), cropped, strict=True):
        tops, lefts = (length - side + 1 for length in image.shape[1:])
        windows = [image[:, top : top + side, left : left + side] for top in range(tops) for left in range(lefts)]
        assert any(torch.equal(square, window) for window in windows)


def test_every_place_is_cropped_about_equally_often():
    images = torch.arange(12.0).reshape(1, 1, 3, 4).expand(6000, 1, 3, 4)
    counts = crop(images, 2)[:, 0, 0, 0].int().bincount(minlength=12).reshape(3, 4)
    assert counts[:2, :3].min() > 850
    assert counts[:2, :3].sum() == 6000


@pytest.mark.parametrize(("side", "padding"), [(5, 0), (-1, 0), (2, -1), (9, 2)])
def test_a_crop_that_does_not_fit_is_refused(side, padding):
    with pytest.raises(ValueError, match="expected `side` from 0 to"):
        crop(torch.zeros(1, 1, 4, 6), side, padding=padding)


@few
@given(st.data(), st.integers(1, 3), sides, sides, st.integers(-400, 400), st.sampled_from(FLOATS[:2]))
def test_rotation_is_torchs_affine_sampling_in_value_and_gradient(data, batch, height, width, degrees, dtype):
    images = data.draw(tensors((batch, 2, height, width), dtype)).requires_grad_()
    angle = math.radians(degrees)
    # Its grid is counted in halves of the image, so that turning one that is not square takes the ratio of its sides.
    theta = torch.tensor(
        [
            [math.cos(angle), -math.sin(angle) * height / width, 0],
            [math.sin(angle) * width / height, math.cos(angle), 0],
        ],
        dtype=torch.float64,
    )
    grid = F.affine_grid(theta.expand(batch, 2, 3), [batch, 2, height, width], align_corners=False)
    expected = F.grid_sample(images.double(), grid, align_corners=False).to(dtype)
    ours = rotate(images, torch.full((batch,), float(degrees)))
    assert_close(ours.detach(), expected.detach(), scale=1000)
    weight = torch.rand(ours.shape, dtype=dtype)
    assert_close(*(torch.autograd.grad((out * weight).sum(), images)[0] for out in (ours, expected)), scale=1000)


@few
@given(st.data(), sides, sides, st.integers(-180, 180))
def test_rotation_is_scipys(data, height, width, degrees):
    image = data.draw(tensors((height, width), torch.float64))
    expected = scipy.ndimage.rotate(image.numpy(), degrees, reshape=False, order=1, mode="grid-constant")
    ours = rotate(image[None, None], torch.tensor([float(degrees)]))[0, 0]
    assert_close(ours, torch.from_numpy(np.asarray(expected)), scale=1000)


@few
@given(st.data(), sides, st.integers(-3, 3), float_dtypes)
def test_quarter_turns_of_a_square_are_exact_against_the_clock(data, side, quarters, dtype):
    images = data.draw(tensors((1, 2, side, side), dtype))
    turned = rotate(images, torch.tensor([90.0 * quarters]))
    assert turned.dtype is dtype
    assert_close(turned, torch.rot90(images, quarters, (2, 3)), scale=1e-3)


@few
@given(tensors((2, 1, 4, 5), torch.float64), st.integers(-180, 180))
def test_rotation_adds_nothing_and_every_image_has_its_own_angle(images, degrees):
    angles = torch.tensor([float(degrees), 0.0])
    turned = rotate(images, angles)
    assert_close(turned[1], images[1])
    assert_close(turned[:1], rotate(images[:1], angles[:1]))
    assert turned.abs().max() <= images.abs().max() * (1 + 1e-9)
    assert_close(rotate(2 * images - 1, angles), 2 * turned - rotate(torch.ones_like(images), angles), scale=1000)


def test_random_angles_are_within_the_limit_in_both_directions():
    # A dot on a circle tells the angle that it was turned by.
    images = torch.zeros(300, 1, 41, 41)
    images[:, :, 20, 38:41] = 1
    turned = random_rotation(images, 30.0)[:, 0]
    y, x = torch.meshgrid(20 - torch.arange(41.0), torch.arange(41.0) - 20, indexing="ij")
    angles = torch.rad2deg(torch.atan2((turned * y).sum((1, 2)), (turned * x).sum((1, 2))))
    assert 27 < angles.max() < 31
    assert -31 < angles.min() < -27
    assert torch.equal(random_rotation(images, 0.0), images)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 0, 4, 4), (2, 1, 0, 4), (2, 1, 4, 0)])
def test_nothing_turned_is_nothing(shape):
    assert random_rotation(torch.zeros(shape)).shape == shape


@few
@given(st.data(), st.floats(0, 1), st.floats(0, 1), float_dtypes, st.integers(0, 9))
def test_jittered_colours_are_still_colours(data, brightness, contrast, dtype, seed):
    images = data.draw(tensors((3, 2, 3, 4), dtype, shades))
    jittered = jitter(images, brightness, contrast, generator=generator(seed))
    assert jittered.dtype is dtype
    assert ((jittered >= 0) & (jittered <= 1)).all()
    # No pixel overtakes another one of its image.
    order = images.flatten(1).sort(1).indices
    assert (jittered.flatten(1).gather(1, order).diff(dim=1) >= 0).all()


@few
@given(tensors((2, 3, 4, 4), torch.float64, shades))
def test_jitter_by_nothing_changes_nothing(images):
    assert_close(jitter(images, 0, 0), images)


def test_brightness_multiplies_and_contrast_spreads_about_the_mean():
    images = torch.tensor([0.2, 0.4]).expand(2000, 1, 1, 2)
    bright = jitter(images, 0.5, 0)
    factors = bright[..., 0] / 0.2
    assert_close(bright[..., 1], 0.4 * factors)
    assert 0.5 <= factors.min() < 0.51
    assert 1.49 < factors.max() <= 1.5
    strong = jitter(images, 0, 0.5)
    assert_close(strong.mean(-1), torch.full((2000, 1, 1), 0.3))
    spread = (strong[..., 1] - strong[..., 0]) / 0.2
    assert 0.499 <= spread.min() < 0.51
    assert 1.49 < spread.max() <= 1.501


@pytest.mark.parametrize("name", ["brightness", "contrast"])
@pytest.mark.parametrize("far", [-0.1, 1.1, math.nan], ids=["negative", "above one", "nan"])
def test_a_factor_is_never_negative(name, far):
    with pytest.raises(ValueError, match=f"expected `{name}` from 0 to 1, got {far}"):
        jitter(torch.zeros(1, 1, 2, 2), **{name: far})


@few
@given(texts, st.floats(0, 1), st.integers(0, 9))
def test_deleting_words_keeps_the_order_and_never_everything(words, p, seed):
    kept = delete_words(words, p, generator=generator(seed))
    left = iter(words)
    assert all(word in left for word in kept)
    assert bool(kept) == bool(words)
    assert p > 0 or kept == words


def test_as_many_words_are_deleted_as_should_be():
    words = ["word"] * 10_000
    assert abs(len(delete_words(words, 0.3)) - 7000) < 4 * math.sqrt(10_000 * 0.3 * 0.7)
    assert {delete_words(["a", "b"], 1.0)[0] for _ in range(50)} == {"a", "b"}


@few
@given(texts, st.integers(0, 5), st.integers(0, 9))
def test_swapping_words_keeps_them_all(words, count, seed):
    swapped = swap_words(words, count, generator=generator(seed))
    assert Counter(swapped) == Counter(words)
    assert sum(a != b for a, b in zip(words, swapped, strict=True)) <= 2 * count


def test_one_swap_moves_exactly_two_words():
    words = ["a", "b", "c", "d"]
    for _ in range(20):
        assert sum(a != b for a, b in zip(words, swap_words(words), strict=True)) == 2
    assert swap_words(["a"], 3) == ["a"]


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan], ids=["negative", "above one", "nan"])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match=f"expected `p` from 0 to 1, got {p}"):
        flip(torch.zeros(1, 1, 2, 2), p)
    with pytest.raises(ValueError, match=f"expected `p` from 0 to 1, got {p}"):
        delete_words(["a"], p)
    with pytest.raises(ValueError, match="expected `count` of at least 0, got -1"):
        swap_words(["a"], -1)


IMAGES = torch.rand(8, 1, 6, 6, generator=generator(0))
WORDS = list("abcdefgh")
DRAWN = {
    "flip": lambda drawn: flip(IMAGES, generator=drawn),
    "crop": lambda drawn: crop(IMAGES, 3, generator=drawn),
    "rotation": lambda drawn: random_rotation(IMAGES, generator=drawn),
    "jitter": lambda drawn: jitter(IMAGES, generator=drawn),
    "deletion": lambda drawn: delete_words(WORDS, 0.5, generator=drawn),
    "swap": lambda drawn: swap_words(WORDS, generator=drawn),
}


def same(first, second) -> bool:
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize("name", DRAWN)
def test_a_generator_fixes_what_is_drawn_and_without_one_the_global_seed_does(name):
    augment = DRAWN[name]
    before = torch.get_rng_state()
    assert same(augment(generator(3)), augment(generator(3)))
    assert not same(augment(generator(3)), augment(generator(5)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert same(augment(None), augment(generator(3)))
