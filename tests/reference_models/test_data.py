"""Data: what is loaded, how it is split, and in which batches it comes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import tensors
from tolerances import assert_close

from reference_models.data import Samples, digits, resize, split


@pytest.fixture(scope="module")
def scans() -> Samples:
    return digits()


def test_there_are_1797_digits_between_zero_and_one(scans):
    assert scans.inputs.shape == (1797, 1, 8, 8)
    assert (scans.inputs.min(), scans.inputs.max()) == (0, 1)
    assert scans.labels.unique().tolist() == list(range(10))
    assert digits(28).inputs.shape == (1797, 1, 28, 28)


@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(1, 12))
def test_resizing_is_torchs_bilinear_interpolation(data, height, width, side):
    images = data.draw(tensors((2, 1, height, width), torch.float64))
    # Computed in float32, hence its tolerance.
    expected = F.interpolate(images.float(), (side, side), mode="bilinear", align_corners=False)
    assert_close(resize(images.float(), side), expected, scale=100)


def test_a_split_takes_a_fifth_of_every_class(scans):
    train, test = split(scans, 0)
    assert len(train) + len(test) == 1797
    for label in range(10):
        count = int((scans.labels == label).sum())
        assert int((test.labels == label).sum()) == round(0.2 * count)


def test_a_split_loses_and_doubles_nothing(scans):
    numbered = Samples(torch.arange(len(scans)), scans.labels)
    train, test = split(numbered, 5)
    assert sorted(train.inputs.tolist() + test.inputs.tolist()) == list(range(len(scans)))
    assert torch.equal(scans.labels[test.inputs], test.labels)


def test_a_seed_fixes_the_split_without_touching_the_global_random_state(scans):
    before = torch.get_rng_state()
    (_, first), (_, again), (_, other) = split(scans, 1), split(scans, 1), split(scans, 2)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(0, 20), st.integers(1, 7), st.booleans())
def test_batches_serve_every_sample_once_and_the_last_is_short(count, size, shuffled):
    samples = Samples(torch.arange(count), torch.arange(count) + 100)
    batches = list(samples.batches(size, torch.Generator().manual_seed(1) if shuffled else None))
    served = [row for batch in batches for row in batch.inputs.tolist()]
    assert sorted(served) == list(range(count))
    assert [len(batch) for batch in batches] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert all(torch.equal(batch.labels, batch.inputs + 100) for batch in batches)
    assert shuffled or served == list(range(count))


def test_epochs_are_shuffled_differently_and_repeatably():
    samples = Samples(torch.arange(50), torch.arange(50))

    def two_epochs():
        generator = torch.Generator().manual_seed(3)
        return [torch.cat([batch.inputs for batch in samples.batches(8, generator)]) for _ in range(2)]

    first, second = two_epochs()
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(two_epochs(), (first, second), strict=True))
