"""Stacked and bidirectional recurrent networks against torch's, also over ragged batches."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close
from torch import nn

from reference_models.lstm import GRUCell, LSTMCell
from reference_models.rnn import ElmanCell
from reference_models.stacked_rnn import StackedRNN

few = settings(max_examples=12)
PAIRS = {"elman": (ElmanCell, nn.RNN), "lstm": (LSTMCell, nn.LSTM), "gru": (GRUCell, nn.GRU)}
every = pytest.mark.parametrize("pair", PAIRS)


def twins(pair, inputs, hidden, layers, bidirectional):
    """Our network and torch's with the same weights."""
    make, oracle = PAIRS[pair]
    theirs = oracle(inputs, hidden, num_layers=layers, bidirectional=bidirectional, batch_first=True).double()
    ours = StackedRNN(make, inputs, hidden, layers=layers, bidirectional=bidirectional).double()
    weights = iter(theirs.all_weights)
    for layer in ours.layers:
        for way in ["ahead", "back"][: 1 + bidirectional]:
            if make is LSTMCell:
                setattr(layer, way, LSTMCell.from_torch(*next(weights)))
            else:
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                getattr(layer, way).load_state_dict(dict(zip(names, next(weights), strict=True)))
    return ours, theirs


@st.composite
def networks(draw):
    """Sizes of a network and of what it reads: layers, directions, inputs, hidden, batch, seq."""
    return [draw(st.integers(*ends)) for ends in ((1, 3), (0, 1), (1, 3), (1, 3), (1, 3), (1, 5))]


@every
@few
@given(case=networks())
def test_it_equals_torchs_in_value_and_gradient(pair, case):
    layers, directions, inputs, hidden, batch, seq = case
    ours, theirs = twins(pair, inputs, hidden, layers, bool(directions))
    x = torch.randn(batch, seq, inputs, dtype=torch.float64, requires_grad=True)
    mine, torchs = ours(x), theirs(x)[0]
    assert_close(mine.detach(), torchs.detach())
    slopes = [torch.autograd.grad(y.square().sum(), x)[0] for y in (mine, torchs)]
    assert_close(*slopes)


@every
@few
@given(case=networks(), data=st.data())
def test_over_a_ragged_batch_it_equals_torchs_packed_one(pair, case, data):
    layers, directions, inputs, hidden, batch, seq = case
    ours, theirs = twins(pair, inputs, hidden, layers, bool(directions))
    lengths = torch.tensor([seq, *(data.draw(st.integers(1, seq)) for _ in range(batch - 1))])
    x = torch.randn(batch, seq, inputs).double()
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    mask = torch.arange(seq) < lengths[:, None]
    x[~mask] = float("nan")
    assert_close(ours(x, mask).detach(), wanted.detach())


def test_in_both_directions_the_first_output_sees_the_last_input_and_in_one_it_does_not():
    x = torch.randn(1, 4, 2, requires_grad=True)
    for bidirectional in (False, True):
        model = StackedRNN(ElmanCell, 2, 3, bidirectional=bidirectional)
        slope = torch.autograd.grad(model(x)[:, 0].sum(), x)[0][0]
        assert bool(slope[3].any()) is bidirectional


@every
def test_every_parameter_gets_a_gradient(pair):
    model = StackedRNN(PAIRS[pair][0], 2, 3, layers=2, bidirectional=True)
    model(torch.randn(2, 4, 2)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_layers_do_not_share_weights_and_there_is_at_least_one():
    cells = [layer.ahead for layer in StackedRNN(ElmanCell, 3, 3, layers=3).layers]
    assert all(not torch.equal(a.weight_hh, b.weight_hh) for a, b in pairwise(cells))
    with pytest.raises(ValueError, match="expected `layers` of at least 1, got 0"):
        StackedRNN(ElmanCell, 3, 3, layers=0)
