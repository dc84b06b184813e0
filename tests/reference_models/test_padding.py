"""Padding, against torch's."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dtypes, tensors
from torch.nn.utils.rnn import pad_sequence

from reference_models.data import DataLoader
from reference_models.padding import buckets, pad_sequences
from tensorscope import ShapeError

# Tensors are slow to draw; each example goes far.
few = settings(max_examples=15)
lengths = st.lists(st.integers(0, 6), min_size=1, max_size=5)


@few
@given(st.data(), lengths, st.lists(st.integers(0, 3), max_size=2), dtypes, st.booleans())
def test_padding_is_torchs(data, lengths, features, dtype, left):
    sequences = [data.draw(tensors((length, *features), dtype)) for length in lengths]
    value = data.draw(st.sampled_from([0, 1]))
    padded, _ = pad_sequences(sequences, value=value, left=left)
    side = "left" if left else "right"
    expected = pad_sequence(sequences, batch_first=True, padding_value=value, padding_side=side)
    torch.testing.assert_close(padded, expected, rtol=0, atol=0)


@few
@given(lengths, st.one_of(st.none(), st.integers(0, 7)), st.booleans())
def test_what_the_mask_keeps_is_what_was_there(lengths, longest, left):
    sequences = [torch.arange(1, length + 1) for length in lengths]
    padded, mask = pad_sequences(sequences, longest=longest, left=left)
    kept = [min(length, length if longest is None else longest) for length in lengths]
    assert padded.shape == mask.shape == (len(lengths), max(kept))
    assert mask.sum(1).tolist() == kept
    assert (padded[~mask] == 0).all()
    for row, sequence, count in zip(range(len(lengths)), sequences, kept, strict=True):
        expected = sequence[len(sequence) - count :] if left else sequence[:count]
        assert torch.equal(padded[row][mask[row]], expected)
        # One block, at the end that is not padded.
        assert mask[row].flip(0)[:count].all() if left else mask[row][:count].all()


def test_a_long_sequence_is_cut_at_the_end_that_would_be_padded():
    sequences = [torch.tensor([1, 2, 3, 4]), torch.tensor([5])]
    assert pad_sequences(sequences, longest=2)[0].tolist() == [[1, 2], [5, 0]]
    assert pad_sequences(sequences, longest=2, left=True)[0].tolist() == [[3, 4], [0, 5]]


def test_padding_passes_gradients_to_what_was_kept():
    sequence = torch.ones(3, requires_grad=True)
    padded, _ = pad_sequences([sequence, torch.ones(1)], longest=2)
    padded.sum().backward()
    assert sequence.grad.tolist() == [1, 1, 0]


def test_padding_makes_batches_of_a_loader():
    dataset = [torch.ones(length) for length in (3, 1, 2)]
    shapes = [padded.shape for padded, _ in DataLoader(dataset, 2, collate=pad_sequences)]
    assert shapes == [(2, 3), (1, 2)]


@pytest.mark.parametrize(
    ("sequences", "longest", "message"),
    [
        ([], None, "expected `sequences` and a length of them, got 0 of length None"),
        ([torch.zeros(2)], -1, "expected `sequences` and a length of them, got 1 of length -1"),
        ([torch.zeros(2), torch.zeros(2).int()], None, r"of one dtype, got \['torch.float32', 'torch.int32'\]"),
    ],
    ids=["none", "negative", "dtypes"],
)
def test_what_cannot_be_padded_is_refused(sequences, longest, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(sequences, longest=longest)


def test_sequences_of_different_features_are_refused():
    with pytest.raises(ShapeError, match=r"`sequences\[1\]` has \(3,\) for `\*features`, which is \(2,\)"):
        pad_sequences([torch.zeros(4, 2), torch.zeros(4, 3)])
    with pytest.raises(ShapeError):
        pad_sequences([torch.tensor(1.0)])


@few
@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 8), st.integers(0, 9))
def test_buckets_hold_every_sequence_once_and_no_two_of_them_overlap_in_length(lengths, batch, seed):
    groups = list(buckets(lengths, batch, generator=torch.Generator().manual_seed(seed)))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert sorted(map(len, groups), reverse=True) == [
        *[batch] * (len(lengths) // batch),
        *[len(lengths) % batch] * (len(lengths) % batch > 0),
    ]
    ranges = sorted((min(lengths[row] for row in group), max(lengths[row] for row in group)) for group in groups)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))


def test_buckets_need_less_padding_and_come_in_another_order_each_epoch():
    lengths = torch.randint(1, 100, (256,)).tolist()

    def padding(groups):
        return sum(max(lengths[row] for row in group) - lengths[number] for group in groups for number in group)

    generator = torch.Generator().manual_seed(0)
    first, second = (list(buckets(lengths, 16, generator=generator)) for _ in range(2))
    in_order = [list(range(start, start + 16)) for start in range(0, 256, 16)]
    assert padding(first) < 0.15 * padding(in_order)
    assert first != second
    assert first == list(buckets(lengths, 16, generator=torch.Generator().manual_seed(0)))


def test_buckets_of_nothing_are_refused():
    with pytest.raises(ValueError, match="expected `batch` of at least 1, got 0"):
        next(buckets([1], 0))
