"""Elman's network and the linear recurrence: torch's values and gradients, the book's numbers, laws of state."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import float_dtypes, tensors, values
from tolerances import assert_close
from torch import nn

from reference_models.optimizers import SGD
from reference_models.rnn import ElmanCell, ElmanRNN, LinearRNN, next_numbers, predict_next, train, train_epoch, unroll
from tensorscope import ShapeError

few = settings(max_examples=20)
exact = st.sampled_from([torch.float64, torch.float32])
sizes = st.integers(1, 4)
small = values(largest=3.0)
NAN, INF = float("nan"), float("inf")


@st.composite
def sequences(draw, dtypes=exact, smallest=1):
    """A sequence (batch may be 0), a state, and how many numbers are said."""
    batch, seq, inputs, hidden = draw(st.integers(0, 3)), draw(st.integers(smallest, 6)), draw(sizes), draw(sizes)
    dtype = draw(dtypes)
    return (
        draw(tensors((batch, seq, inputs), dtype, small)),
        draw(tensors((batch, hidden), dtype, small)),
        draw(sizes),
    )


def gradients(outputs, wanted):
    """Gradients of a weighted sum of the squares of some tensors."""
    total = sum(
        (y.square() * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)).sum() for y in outputs
    )
    return torch.autograd.grad(total, wanted)


def ragged(batch, seq, shortest=1):
    """A mask whose rows end at different steps, the first row at the last."""
    lengths = torch.tensor([seq, *torch.randint(shortest, seq + 1, (batch - 1,)).tolist()])
    return lengths, torch.arange(seq) < lengths[:, None]


def test_one_step_gives_the_books_numbers():
    cell = ElmanCell(2, 3).double()
    cell.load_state_dict(
        {
            "weight_ih": torch.tensor([[0.1, 0.2], [-0.3, 0.4], [0.5, 0.6]]),
            "bias_ih": torch.tensor([0.01, 0.02, 0.03]),
            "weight_hh": torch.tensor([[0.7, -0.2, 0.3], [0.4, 0.5, -0.6], [-0.1, 0.8, 0.9]]),
            "bias_hh": torch.tensor([0.04, 0.05, 0.06]),
        }
    )
    x, state = torch.tensor([[0.5, -0.3]]).double(), torch.tensor([[0.1, 0.2, -0.1]]).double()
    h = cell(x, state)
    torch.testing.assert_close(h, torch.tensor([[0.039979, 0.0, 0.216518]]).double(), rtol=0, atol=1e-6)
    # The parts that the chapter works out by hand.
    assert_close((x @ cell.weight_ih.T + cell.bias_ih).float(), torch.tensor([[0.0, -0.25, 0.10]]))
    assert_close((state @ cell.weight_hh.T + cell.bias_hh).float(), torch.tensor([[0.04, 0.25, 0.12]]))


@few
@given(sequences(float_dtypes))
def test_a_step_equals_torchs_in_value_and_gradient(case):
    sequence, state, _ = case
    inputs, hidden, dtype = sequence.shape[2], state.shape[1], sequence.dtype
    theirs = nn.RNNCell(inputs, hidden).to(dtype)
    ours = ElmanCell(inputs, hidden).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    x, h = sequence[:, 0].requires_grad_(), state.requires_grad_()
    mine, torchs = ours(x, h), theirs(x, h)
    assert_close(mine.detach(), torchs.detach())
    found = (gradients([y], [x, h, *cell.parameters()]) for y, cell in ((mine, ours), (torchs, theirs)))
    for got, wanted in zip(*found, strict=True):
        assert_close(got, wanted, scale=3)


@few
@given(sequences(), st.booleans())
def test_a_sequence_equals_torchs_in_value_and_gradient(case, starts_empty):
    sequence, state, outputs = case
    inputs, hidden, dtype = sequence.shape[2], state.shape[1], sequence.dtype
    ours = ElmanRNN(inputs, hidden, outputs).to(dtype)
    theirs, head = nn.RNN(inputs, hidden, batch_first=True).to(dtype), nn.Linear(hidden, outputs).to(dtype)
    theirs.load_state_dict({f"{name}_l0": weight for name, weight in ours.cell.state_dict().items()})
    head.load_state_dict(ours.output.state_dict())
    x, h = sequence.requires_grad_(), state.requires_grad_()
    mine = ours(x) if starts_empty else ours(x, h)
    seen, last = theirs(x) if starts_empty else theirs(x, h[None])
    torchs = head(seen), last[0]
    wanted = [x] if starts_empty else [x, h]
    for got, right in zip(mine, torchs, strict=True):
        assert_close(got.detach(), right.detach())
    left = gradients(mine, [*wanted, *ours.parameters()])
    right = gradients(torchs, [*wanted, *theirs.parameters(), *head.parameters()])
    for got, expected in zip(left, right, strict=True):
        assert_close(got, expected, scale=100)


@pytest.mark.parametrize("number", [100.0, -1e4, 1e30, INF, -INF, NAN], ids=str)
def test_at_extremes_a_step_does_as_torchs(number):
    theirs, ours = nn.RNNCell(2, 3), ElmanCell(2, 3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.tensor([[number, 1.0], [0.0, number]], requires_grad=True)
    h = torch.zeros(2, 3, requires_grad=True)
    for got, wanted in zip(gradients([ours(x, h)], [x, h]), gradients([theirs(x, h)], [x, h]), strict=True):
        assert_close(got, wanted)
    assert_close(ours(x, h).detach(), theirs(x, h).detach())


@few
@given(sequences(st.just(torch.float64), smallest=2), st.data())
def test_reading_in_parts_and_carrying_the_state_is_reading_at_once(case, data):
    sequence, state, outputs = case
    model = ElmanRNN(sequence.shape[2], state.shape[1], outputs).double()
    cut = data.draw(st.integers(1, sequence.shape[1] - 1))
    whole, last = model(sequence, state)
    first, between = model(sequence[:, :cut], state)
    second, end = model(sequence[:, cut:], between)
    assert_close(torch.cat([first, second], 1).detach(), whole.detach())
    assert_close(end.detach(), last.detach())


@few
@given(sequences(st.just(torch.float64)))
def test_steps_one_by_one_are_the_sequence(case):
    sequence, state, outputs = case
    model = ElmanRNN(sequence.shape[2], state.shape[1], outputs).double()
    whole, last = model(sequence, state)
    for index, x in enumerate(sequence.unbind(1)):
        y, state = model.step(x, state)
        assert_close(y.detach(), whole[:, index].detach())
    assert_close(state.detach(), last.detach())


@few
@given(sequences(st.just(torch.float64)))
def test_rows_of_a_batch_do_not_see_each_other_and_the_future_is_not_seen(case):
    sequence, state, outputs = case
    model = ElmanRNN(sequence.shape[2], state.shape[1], outputs).double()
    whole, _ = model(sequence, state)
    assert_close(model(sequence.flip(0), state.flip(0))[0].flip(0).detach(), whole.detach())
    later = sequence.clone()
    later[:, -1] += 1
    assert_close(model(later, state)[0][:, :-1].detach(), whole[:, :-1].detach())


@pytest.mark.parametrize("filling", [0.0, 7.0, 1e30, NAN, INF], ids=str)
def test_what_fills_up_a_ragged_batch_changes_nothing(filling):
    model = ElmanRNN(2, 5, 3).double()
    lengths, mask = ragged(4, 6)
    sequence = torch.randn(4, 6, 2).double()
    sequence[~mask] = filling
    outputs, state = model(sequence, mask=mask)
    together = gradients([outputs + 1, state], list(model.parameters()))
    assert not outputs[~mask].any()
    alone = [model(row[None, :length]) for row, length in zip(sequence, lengths.tolist(), strict=True)]
    for index, (said, last) in enumerate(alone):
        assert_close(outputs[index, : lengths[index]].detach(), said[0].detach())
        assert_close(state[index].detach(), last[0].detach())
    padded = nn.utils.rnn.pad_sequence([said[0] for said, _ in alone], batch_first=True)
    apart = gradients([padded + 1, torch.cat([last for _, last in alone])], list(model.parameters()))
    for got, wanted in zip(together, apart, strict=True):
        assert_close(got, wanted, scale=10)


def test_a_row_in_which_nothing_is_real_keeps_its_state():
    model, state = ElmanRNN(), torch.randn(2, 10)
    mask = torch.tensor([[True, True], [False, False]])
    _, last = model(torch.randn(2, 2, 1), state, mask)
    assert torch.equal(last[1], state[1])
    assert not torch.equal(last[0], state[0])


def test_the_books_network_has_141_parameters_and_its_shapes():
    model = ElmanRNN()
    assert sum(parameter.numel() for parameter in model.parameters()) == 141
    output, state = model.step(torch.zeros(1, 1), torch.zeros(1, 10))
    assert (output.shape, state.shape) == ((1, 1), (1, 10))
    outputs, state = model(torch.zeros(3, 5, 1))
    assert (outputs.shape, state.shape) == ((3, 5, 1), (3, 10))


def test_every_parameter_gets_a_gradient():
    for model in (ElmanRNN(), LinearRNN()):
        outputs, state = model(torch.randn(2, 3, 1))
        (outputs.square().sum() + state.sum()).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected `hidden` of at least 1, got 0"):
        ElmanCell(1, 0)
    with pytest.raises(ValueError, match="expected `inputs` of at least 1, got -1"):
        LinearRNN(-1)
    with pytest.raises(ValueError, match=r"expected `sequence` with at least 1 step, got \(2, 0, 1\)"):
        ElmanRNN()(torch.zeros(2, 0, 1))
    with pytest.raises(ValueError, match=r"expected `x` with 1 inputs, got \(2, 3\)"):
        ElmanRNN()(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"expected `state` of 10 numbers, got \(2, 9\)"):
        ElmanRNN().step(torch.zeros(2, 1), torch.zeros(2, 9))
    for form in (LinearRNN(2, 3).forward, LinearRNN(2, 3).parallel):
        with pytest.raises(ValueError, match=r"expected `x` with 2 inputs, got \(1, 4, 1\)"):
            form(torch.zeros(1, 4, 1))
        with pytest.raises(ValueError, match=r"expected `state` of 3 numbers, got \(1, 1\)"):
            form(torch.zeros(1, 4, 2), torch.zeros(1, 1))
    with pytest.raises(ShapeError, match="`state`"):
        ElmanRNN()(torch.zeros(2, 4, 1), torch.zeros(1, 10))  # a state for every row, not one that is stretched
    with pytest.raises(ShapeError, match="`mask`"):
        ElmanRNN()(torch.zeros(2, 4, 1), mask=torch.ones(2, 4))  # not bool
    with pytest.raises(ShapeError):
        ElmanRNN()(torch.zeros(4, 1))


@few
@given(sequences(smallest=0), st.booleans())
def test_the_linear_recurrence_is_the_same_in_parallel_in_value_and_gradient(case, starts_empty):
    sequence, state, outputs = case
    model = LinearRNN(sequence.shape[2], state.shape[1], outputs).to(sequence.dtype)
    x, h = sequence.requires_grad_(), state.requires_grad_()
    wanted = [x, *model.parameters()] if starts_empty else [x, h, *model.parameters()]
    results = [form(x, None if starts_empty else h) for form in (model.forward, model.parallel)]
    for got, right in zip(*results, strict=True):
        assert_close(got.detach(), right.detach())
    # Without steps or a state some of them do not matter, which is a gradient of 0.
    kept = [
        torch.autograd.grad(sum(y.square().sum() for y in (*ys, *(0 * leaf for leaf in wanted))), wanted)
        for ys in results
    ]
    for got, right in zip(*kept, strict=True):
        assert_close(got, right, scale=100)


@pytest.mark.parametrize("seq", [1, 2, 63, 64, 65], ids=str)
def test_the_linear_recurrence_is_a_convolution_with_powers_of_a(seq):
    model = LinearRNN(2, 4, 3).double()
    x = torch.randn(2, seq, 2).double()
    # y_t = Σ_k K_k x_{t-k}, K_0 = C B + D, K_k = C Aᵏ B
    kernel = torch.stack([model.C @ torch.linalg.matrix_power(model.A, k) @ model.B for k in range(seq)], 2)
    kernel[:, :, 0] += model.D
    y = F.conv1d(F.pad(x.mT, (seq - 1, 0)), kernel.flip(2)).mT
    assert_close(model.parallel(x)[0].detach(), y.detach())
    assert_close(model(x)[0].detach(), y.detach())


@few
@given(sequences(st.just(torch.float64)), st.floats(-3, 3))
def test_the_linear_recurrence_is_linear_and_does_not_know_when_it_is(case, factor):
    sequence, state, outputs = case
    model = LinearRNN(sequence.shape[2], state.shape[1], outputs).double()
    other = sequence.flip(1)
    both = model.parallel(sequence + factor * other, (1 + factor) * state)[0]
    apart = model.parallel(sequence, state)[0] + factor * model.parallel(other, state)[0]
    assert_close(both.detach(), apart.detach(), scale=10)
    late = model.parallel(torch.cat([torch.zeros_like(sequence), sequence], 1))[0][:, sequence.shape[1] :]
    assert_close(late.detach(), model.parallel(sequence)[0].detach())


def test_the_task_is_seven_pairs_of_a_number_and_the_next():
    inputs, targets = next_numbers()
    assert inputs.shape == targets.shape == (1, 7, 1)
    assert inputs.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert torch.equal(targets, inputs + 1)


def test_an_epoch_takes_seven_steps_one_at_a_time_from_an_empty_state():
    model = ElmanRNN()
    before = model.output.bias.clone()
    steps = train_epoch(model, SGD(model.parameters(), lr=0.05))
    assert torch.equal(model.output.bias, before)
    first = next(steps)
    assert not torch.equal(model.output.bias, before)
    assert (first.shape, first.requires_grad) == ((), False)
    assert len(list(steps)) == 6


def test_training_carries_the_state_but_no_gradient_through_it():
    """The same loop over torch's own cell, written out, makes the same weights."""
    model, cell, head = ElmanRNN().double(), nn.RNNCell(1, 10).double(), nn.Linear(10, 1).double()
    cell.load_state_dict(model.cell.state_dict())
    head.load_state_dict(model.output.state_dict())
    theirs = torch.optim.SGD([*cell.parameters(), *head.parameters()], lr=0.05)
    ours = list(train(model, SGD(model.parameters(), lr=0.05), 5))
    losses = []
    for _ in range(5):
        h = torch.zeros(1, 10).double()
        for number in range(1, 8):
            h = cell(torch.tensor([[float(number)]]).double(), h.detach())
            loss = F.mse_loss(head(h), torch.tensor([[number + 1.0]]).double())
            theirs.zero_grad()
            loss.backward()
            theirs.step()
            losses.append(loss.detach())
    assert_close(torch.stack(ours), torch.stack(losses))
    assert_close(model.cell.weight_hh.detach(), cell.weight_hh.detach())


def test_predictions_carry_the_state_so_that_eight_has_two_answers():
    model = ElmanRNN()
    nine = predict_next(model)
    assert nine.shape == (9,)
    assert not nine.requires_grad
    assert nine[7] != nine[8]  # erratum E-25
    # A fresh state for every number, as in the book's second variant, knows no order: the same input, the same answer.
    fresh = [predict_next(model, [number]) for number in (8, 1, 8)]
    assert torch.equal(fresh[0], fresh[2])


def test_one_batch_can_be_overfitted():
    model = ElmanRNN(hidden=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x, y = torch.randn(2, 4, 1), torch.randn(2, 4, 1)
    for _ in range(120):
        optimizer.zero_grad()
        loss = (model(x)[0] - y).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_unrolling_returns_every_state_that_is_seen():
    cell = ElmanCell(2, 3)
    seen, last = unroll(cell, torch.randn(2, 4, 2))
    assert seen.shape == (2, 4, 3)
    assert torch.equal(seen[:, -1], last)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2], ids=str)
def test_elmans_network_learns_to_count(seed):
    torch.manual_seed(seed)
    model = ElmanRNN()
    losses = list(train(model, SGD(model.parameters(), lr=0.05), 1000))
    assert sum(losses[-7:]) <= 1e-4
    torch.testing.assert_close(predict_next(model)[:7], torch.arange(2.0, 9.0), rtol=0, atol=0.02)
