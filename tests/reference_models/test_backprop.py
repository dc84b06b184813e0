"""Gradients written by hand, against autograd's, finite differences, and torch's SGD."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import float_dtypes, tensors, values
from tolerances import assert_close

from reference_models.backprop import TwoLayerNet, half_mse, noisy_line
from reference_models.data import Samples
from tensorscope import ShapeError

double = st.just(torch.float64)
moderate = values(largest=3.0)


@st.composite
def nets(draw, dtypes=double, elements=moderate, least=0):
    """A net, inputs and targets."""
    hidden, count, dtype = draw(st.integers(0, 5)), draw(st.integers(least, 6)), draw(dtypes)
    net = TwoLayerNet(hidden).to(dtype)
    for parameter in net.parameters():
        parameter.data = draw(tensors(tuple(parameter.shape), dtype, elements))
    return net, *(draw(tensors((count, 1), dtype, elements)) for _ in range(2))


def autograd(net, x, y, loss=half_mse):
    """The loss and its gradients by autograd, through the same forward."""
    value = loss(net(x), y)
    return value.detach(), torch.autograd.grad(value, list(net.parameters()))


def test_the_books_net_has_7_parameters_of_these_shapes():
    net = TwoLayerNet()
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert shapes == {"weight1": (2, 1), "bias1": (2,), "weight2": (1, 2), "bias2": (1,)}  # erratum E-11
    assert sum(p.numel() for p in net.parameters()) == 7
    assert net.bias1.count_nonzero() == net.bias2.count_nonzero() == 0
    assert max(net.weight1.abs().max(), net.weight2.abs().max()) <= 0.1


@given(nets(float_dtypes))
def test_half_the_mean_squared_error_is_half_of_torchs(case):
    _, outputs, targets = case
    assert_close(half_mse(outputs, targets), F.mse_loss(outputs, targets) / 2, scale=10)


@given(nets(float_dtypes))
def test_gradients_by_hand_equal_autograds(case):
    net, x, y = case
    loss, expected = autograd(net, x, y)
    net(x)
    assert_close(net.backward(y), loss, scale=100)
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert parameter.grad.dtype is gradient.dtype
        assert_close(parameter.grad, gradient, scale=100)


@given(nets(elements=values(largest=1e4, non_finite=True)))
def test_gradients_by_hand_equal_autograds_where_numbers_are_huge_or_not_finite(case):
    net, x, y = case
    loss, expected = autograd(net, x, y)
    net(x)
    assert_close(net.backward(y), loss)
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert_close(parameter.grad, gradient, scale=1e16)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 64), st.integers(1, 32))
def test_gradients_by_hand_are_within_a_millionth_of_autograds_in_float32(seed, batch, hidden):
    torch.manual_seed(seed)
    net, samples = TwoLayerNet(hidden), noisy_line(batch)
    _, expected = autograd(net, samples.inputs, samples.labels)
    net(samples.inputs)
    net.backward(samples.labels)
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-6)


@settings(max_examples=20)
@given(nets(least=1))
def test_gradients_by_hand_are_the_slopes_that_small_moves_find(case):
    net, x, y = case
    assume(((x @ net.weight1.T + net.bias1).abs() > 1e-4).all())  # away from the rectifier's corner
    net(x)
    net.backward(y)
    move = 1e-6
    for parameter in net.parameters():
        for place in range(parameter.numel()):
            losses = []
            for moved in (move, -move):
                other = deepcopy(net)
                dict(other.named_parameters())[name_of(net, parameter)].data.view(-1)[place] += moved
                losses.append(half_mse(other(x), y))
            slope = (losses[0] - losses[1]).detach() / (2 * move)
            assert abs(slope - parameter.grad.reshape(-1)[place]) < 1e-5


def name_of(net, wanted) -> str:
    return next(name for name, parameter in net.named_parameters() if parameter is wanted)


def test_one_sample_worked_by_hand():
    net = TwoLayerNet()
    numbers = {"weight1": [[1.0], [-1.0]], "bias1": [0.5, 0.5], "weight2": [[2.0, 3.0]], "bias2": [0.25]}
    net.load_state_dict({name: torch.tensor(value) for name, value in numbers.items()})
    # z₁ = (2.5, -1.5), a₁ = (2.5, 0), ŷ = 5.25, ŷ - y = 0.25
    assert net(torch.tensor([[2.0]])).item() == 5.25
    assert net.backward(torch.tensor([[5.0]])).item() == 0.25**2 / 2
    gradients = {name: p.grad.tolist() for name, p in net.named_parameters()}
    expected = {"weight1": [[1.0], [0.0]], "bias1": [0.5, 0.0], "weight2": [[0.625, 0.0]], "bias2": [0.25]}
    assert gradients == expected


def test_the_error_of_the_book_that_it_prints_has_twice_these_gradients():
    net, samples = TwoLayerNet(4), noisy_line(10)
    _, doubled = autograd(net, samples.inputs, samples.labels, F.mse_loss)
    net(samples.inputs)
    net.backward(samples.labels)
    for parameter, gradient in zip(net.parameters(), doubled, strict=True):  # erratum E-10
        assert_close(2 * parameter.grad, gradient)


def test_a_dead_neuron_gets_no_gradient_and_never_moves_again():
    net, samples = TwoLayerNet(), noisy_line(50)
    net.bias1.data[0] = -100.0
    before = net.weight1.detach()[0].clone()
    for _ in range(5):
        net.train_epoch(samples)
    assert net.weight1.grad[0].abs() == net.bias1.grad[0].abs() == net.weight2.grad[0, 0].abs() == 0
    assert torch.equal(net.weight1[0], before)
    assert net.weight1.grad[1].abs() > 0


@settings(max_examples=20)
@given(nets(least=2), st.data())
def test_gradients_add_up_as_autograds_do(case, data):
    net, x, y = case
    _, expected = autograd(net, x, y)
    cut = data.draw(st.integers(0, len(x)))
    sums = [torch.zeros_like(p) for p in net.parameters()]
    for part in (slice(None, cut), slice(cut, None)):
        net.zero_grad()
        net(x[part])
        net.backward(y[part])
        for total, parameter in zip(sums, net.parameters(), strict=True):
            total.add_(parameter.grad * len(x[part]) / len(x))
    for total, gradient in zip(sums, expected, strict=True):
        assert_close(total, gradient, scale=100)
    net(x[cut:])
    once = [p.grad.clone() for p in net.parameters()]
    net.backward(y[cut:])
    for parameter, gradient in zip(net.parameters(), once, strict=True):
        assert_close(parameter.grad, 2 * gradient, scale=100)


@pytest.mark.parametrize("batch", [None, 7, 64, 1000], ids=["all at once", "by 7", "by 64", "more than there are"])
def test_an_epoch_equals_torchs_sgd_over_the_same_batches(batch):
    samples = noisy_line(100)
    ours = TwoLayerNet(4)
    theirs = deepcopy(ours)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.05)
    for epoch in range(3):
        loss = ours.train_epoch(samples, lr=0.05, batch=batch, generator=torch.Generator().manual_seed(epoch))
        total = 0.0
        for part in samples.batches(batch or 100, torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            expected = F.mse_loss(theirs(part.inputs), part.labels) / 2
            expected.backward()
            optimizer.step()
            total += float(expected.detach()) * len(part)
        assert_close(loss, torch.tensor(total / 100), scale=10)
    for mine, torchs in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(mine.data, torchs.data)


@settings(max_examples=15)
@given(st.integers(1, 30), st.integers(1, 35), st.booleans())
def test_an_epoch_sees_every_sample_once_in_full_batches_and_a_last_one(count, batch, shuffled):
    x = torch.arange(float(count)).unsqueeze(1)
    net, seen = TwoLayerNet(), []
    net.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][:, 0].tolist()))
    net.train_epoch(Samples(x, x), lr=0.0, batch=batch, generator=torch.Generator() if shuffled else None)
    order = list(chain.from_iterable(seen))
    assert sorted(order) == list(range(count))  # erratum E-12: a permutation
    assert shuffled or order == list(range(count))
    assert [len(part) for part in seen] == [batch] * (count // batch) + [count % batch] * (count % batch > 0)


def test_an_epoch_without_samples_changes_nothing():
    net = TwoLayerNet()
    before = deepcopy(net.state_dict())
    assert net.train_epoch(Samples(torch.zeros(0, 1), torch.zeros(0, 1))).isnan()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_an_optimizer_of_torchs_finds_the_gradients():
    net, samples = TwoLayerNet(8), noisy_line(32)
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        net(samples.inputs)
        losses.append(net.backward(samples.labels))
        optimizer.step()
    assert losses[-1] < losses[0] / 100


def test_gradient_norms_are_lengths_by_name():
    net, samples = TwoLayerNet(3), noisy_line(20)
    net(samples.inputs)
    with pytest.raises(RuntimeError, match="`weight1` has no gradient: call `backward` first"):
        net.gradient_norms()
    net.backward(samples.labels)
    norms = net.gradient_norms()
    assert list(norms) == ["weight1", "bias1", "weight2", "bias2"]
    for name, parameter in net.named_parameters():
        assert_close(norms[name], torch.linalg.vector_norm(parameter.grad))
        assert norms[name] > 0


def test_a_step_moves_what_has_a_gradient_down_it():
    net = TwoLayerNet()
    before = deepcopy(net.state_dict())
    net.bias1.grad = torch.tensor([1.0, -2.0])
    net.step(0.5)
    assert_close(net.bias1.data, torch.tensor([-0.5, 1.0]))
    assert torch.equal(net.weight1, before["weight1"])


def test_nothing_of_a_batch_is_left_after_going_back():
    net, samples = TwoLayerNet(), noisy_line(5)
    with pytest.raises(RuntimeError, match="call the model on a batch first"):
        net.backward(samples.labels)
    net(samples.inputs)
    assert not any(kept.requires_grad for kept in net._kept)
    net.backward(samples.labels)
    with pytest.raises(RuntimeError, match="call the model on a batch first"):
        net.backward(samples.labels)
    assert list(net.state_dict()) == ["weight1", "bias1", "weight2", "bias2"]


def test_targets_that_do_not_fit_are_refused():
    net = TwoLayerNet()
    with pytest.raises(ShapeError, match="`x` has 1 axis and takes 2"):
        net(torch.zeros(4))
    net(torch.zeros(4, 1))
    with pytest.raises(ShapeError, match="`targets` has 1 axis and takes 2"):
        net.backward(torch.zeros(4))
    with pytest.raises(ValueError, match="`targets`: expected 4 as there are outputs, got 1"):
        net.backward(torch.zeros(1, 1))
    with pytest.raises(ValueError, match="`batch`: expected at least 1, got 0"):
        net.train_epoch(noisy_line(3), batch=0)
    with pytest.raises(ShapeError, match="axis 0 of `targets` is 3"):
        half_mse(torch.zeros(4, 1), torch.zeros(3, 1))


def test_the_books_points_lie_along_its_line():
    samples = noisy_line(generator=torch.Generator().manual_seed(0))
    x, y = samples.inputs, samples.labels
    assert x.shape == y.shape == (1000, 1)
    assert -5 <= x.min() < -4.9
    assert 4.9 < x.max() <= 5
    assert 0.09 < (y - 2 * x - 1).abs().max() <= 0.1 + 1e-5
    assert torch.equal(noisy_line(generator=torch.Generator().manual_seed(0)).labels, y)


# --- whole trainings -------------------------------------------------------------------------------------------------


def trained(hidden, seed, epochs, lr=0.01, batch=None) -> tuple[float, int]:
    """Mean squared error after training, and how many hidden neurons are dead."""
    torch.manual_seed(seed)
    samples, net, generator = noisy_line(), TwoLayerNet(hidden), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        net.train_epoch(samples, lr=lr, batch=batch, generator=generator)
    with torch.no_grad():
        dead = (samples.inputs @ net.weight1.T + net.bias1 <= 0).all(0)
        return float(F.mse_loss(net(samples.inputs), samples.labels)), int(dead.sum())


def test_with_8_hidden_neurons_and_small_batches_the_line_is_found_soon():
    assert trained(8, 0, 5, lr=0.05, batch=20)[0] < 0.01


@pytest.mark.slow
def test_with_2_hidden_neurons_some_seeds_find_the_line_and_many_do_not():
    losses, dead = zip(*(trained(2, seed, 1000) for seed in range(20)), strict=True)
    assert 2 <= sum(loss < 0.01 for loss in losses) <= 14  # erratum E-13
    assert any(dead)
    assert all(loss < 40 for loss in losses)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_with_8_hidden_neurons_every_seed_finds_the_line(seed):
    assert trained(8, seed, 1000)[0] < 0.01
