"""Data: what is loaded, how it is split, and in which batches it comes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import minmax_scale

from reference_models.data import (
    DataLoader,
    InMemoryDataset,
    Samples,
    collate,
    digits,
    iris,
    leaked,
    split,
    train_val_test,
)
from reference_models.transforms import fit_min_max


@pytest.fixture(scope="module")
def scans() -> Samples:
    return digits()


def numbered(labels) -> Samples:
    """Samples whose input is their row."""
    return Samples(torch.arange(len(labels)), torch.as_tensor(labels))


labels = st.lists(st.integers(-1, 3), max_size=60).map(lambda found: torch.tensor(found, dtype=torch.int64))


def test_there_are_1797_digits_between_zero_and_one(scans):
    assert scans.inputs.shape == (1797, 1, 8, 8)
    assert (scans.inputs.min(), scans.inputs.max()) == (0, 1)
    assert scans.labels.unique().tolist() == list(range(10))
    assert digits(28).inputs.shape == (1797, 1, 28, 28)


def test_there_are_50_irises_of_each_species_measured_in_centimetres():
    flowers = iris()
    assert flowers.inputs.shape == (150, 4)
    assert flowers.labels.bincount().tolist() == [50, 50, 50]
    assert torch.equal(flowers.inputs, torch.as_tensor(load_iris().data, dtype=torch.float32))


def test_the_books_irises_are_scaled_by_the_range_of_all_of_them():
    scaled = iris(scaled=True).inputs
    assert (scaled.amin(0).tolist(), scaled.amax(0).tolist()) == ([0.0] * 4, [1.0] * 4)
    torch.testing.assert_close(scaled, torch.as_tensor(minmax_scale(load_iris().data), dtype=torch.float32))


def test_a_scale_fitted_to_training_irises_does_not_know_the_test_irises():
    train, test = split(iris(), 0)
    scale = fit_min_max(train.inputs)
    largest = Samples(test.inputs * 100, test.labels)
    assert train.mapped(scale).inputs.amax() == 1
    assert largest.mapped(scale).inputs.amax() > 1
    assert torch.equal(scale.shift, fit_min_max(split(iris(), 0)[0].inputs).shift)


def test_a_split_takes_a_fifth_of_every_class(scans):
    train, test = split(scans, 0)
    assert len(train) + len(test) == 1797
    for label in range(10):
        count = int((scans.labels == label).sum())
        assert int((test.labels == label).sum()) == round(0.2 * count)


def test_a_split_loses_and_doubles_nothing(scans):
    samples = numbered(scans.labels)
    train, test = split(samples, 5)
    assert sorted(train.inputs.tolist() + test.inputs.tolist()) == list(range(len(scans)))
    assert torch.equal(scans.labels[test.inputs], test.labels)


@given(labels, st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 9))
def test_three_parts_are_disjoint_whole_in_order_and_in_proportion(labels, val, test, seed):
    parts = train_val_test(numbered(labels), seed, val=val, test=test)
    rows = [part.inputs.tolist() for part in parts]
    assert sorted(row for part in rows for row in part) == list(range(len(labels)))
    assert all(part == sorted(part) for part in rows)
    for label in labels.unique():
        count = int((labels == label).sum())
        for part, share in zip(parts, (1 - val - test, val, test), strict=True):
            assert abs(int((part.labels == label).sum()) - share * count) <= 1 + 1e-9


@given(st.integers(0, 9))
def test_the_parts_are_as_large_as_those_of_scikit_learn(seed):
    flowers = iris()
    ours = split(flowers, seed, test=0.3)
    theirs = train_test_split(flowers.labels.numpy(), test_size=0.3, stratify=flowers.labels.numpy(), random_state=seed)
    for part, expected in zip(ours, theirs, strict=True):
        assert part.labels.bincount().tolist() == torch.as_tensor(expected).bincount().tolist()


def test_two_parts_are_three_of_which_one_is_empty(scans):
    train, val, test = train_val_test(scans, 4, val=0, test=0.2)
    assert len(val) == 0
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip((train, test), split(scans, 4), strict=True))


@pytest.mark.parametrize("labels", [torch.rand(10), torch.rand(10, 3), torch.zeros(10, 2, dtype=torch.int64)])
def test_samples_without_classes_are_split_as_one(labels):
    train, test = split(Samples(torch.arange(10), labels), 0)
    assert (len(train), len(test)) == (8, 2)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.5), (0.5, -0.1), (0.6, 0.6), (0.0, 1.5)])
def test_shares_that_are_none_are_refused(val, test):
    with pytest.raises(ValueError, match=f"expected `val` and `test` to be shares of a whole, got {val} and {test}"):
        train_val_test(numbered([0, 1]), 0, val=val, test=test)


def test_a_seed_fixes_the_split_without_touching_the_global_random_state(scans):
    before = torch.get_rng_state()
    (_, first), (_, again), (_, other) = split(scans, 1), split(scans, 1), split(scans, 2)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_equal_irises_are_a_leak_when_they_are_on_both_sides():
    flowers = iris()
    one, other = flowers[torch.tensor([101, 5])], flowers[torch.tensor([142, 6])]
    assert leaked(one, other).tolist() == [True, False]


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_a_leak_is_what_both_sides_have(first, second):
    one, other = (Samples(torch.tensor(rows), torch.zeros(len(rows))) for rows in (first, second))
    assert leaked(one, other).tolist() == [row in first for row in second]


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


@given(st.integers(0, 20), st.integers(1, 7), st.booleans(), st.booleans(), st.integers(0, 5))
def test_the_loader_serves_what_torchs_does(count, batch, shuffle, drop_last, seed):
    dataset = InMemoryDataset(Samples(torch.rand(count, 2), torch.arange(count)))
    generator = torch.Generator().manual_seed(seed)
    ours = DataLoader(dataset, batch, shuffle=shuffle, drop_last=drop_last, generator=generator)
    drawn = torch.Generator().manual_seed(seed)
    sampler = torch.utils.data.RandomSampler(dataset, generator=drawn) if shuffle and count else range(count)
    theirs = torch.utils.data.DataLoader(dataset, batch, sampler=sampler, drop_last=drop_last)
    assert len(ours) == len(theirs)
    for epoch in range(2):
        # torch's sampler draws once more than it uses, after each epoch.
        generator.manual_seed(seed + epoch)
        drawn.manual_seed(seed + epoch)
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine[0], other[0])
            assert torch.equal(mine[1], other[1])


def test_150_irises_in_batches_of_32_leave_22_for_the_last():
    dataset = InMemoryDataset(iris())
    assert [len(labels) for _, labels in DataLoader(dataset, 32, shuffle=True)] == [32, 32, 32, 32, 22]
    assert [len(labels) for _, labels in DataLoader(dataset, 32, drop_last=True)] == [32] * 4


def test_a_loader_reads_a_sample_only_when_its_batch_is_asked_for():
    class Watched(list):
        read = 0

        def __getitem__(self, row):
            self.read += 1
            return super().__getitem__(row)

    watched = Watched(range(10))
    batches = iter(DataLoader(watched, 3))
    assert next(batches).tolist() == [0, 1, 2]
    assert watched.read == 3


def test_tuples_of_tensors_and_numbers_are_batched_part_by_part():
    images, (labels, weights) = collate([(torch.zeros(2), (1, 0.5)), (torch.ones(2), (3, 1.5))])
    assert images.tolist() == [[0, 0], [1, 1]]
    assert (labels.tolist(), labels.dtype) == ([1, 3], torch.int64)
    assert (weights.tolist(), weights.dtype) == ([0.5, 1.5], torch.float32)


def test_samples_of_different_shapes_are_no_batch():
    with pytest.raises(ValueError, match=r"expected samples of one shape, got \(3,\) and \(2,\)"):
        collate([torch.zeros(3), torch.zeros(2)])


def test_a_dataset_takes_a_label_per_input():
    with pytest.raises(ValueError, match="expected a label per input, got 2 for 3"):
        InMemoryDataset(Samples(torch.zeros(3), torch.zeros(2)))


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="expected `batch` of at least 1, got 0"):
        DataLoader([1], 0)
