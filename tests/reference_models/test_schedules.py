"""Schedules: exact at their knots, within bounds, and torch's wherever torch has them."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from reference_models.initialization import uniform
from reference_models.mlp import MLP, Linear
from reference_models.optimizers import SGD, Adam
from reference_models.regularization import Dropout
from reference_models.schedules import (
    Scheduler,
    Sweep,
    chained,
    constant,
    cosine,
    cyclical,
    exponential,
    geometric,
    inverse_time,
    linear_warmup,
    lr_finder,
    one_cycle,
    scaled_lr,
    step,
    warmup_cosine,
)

# name → our schedule from 0.1, and torch's scheduler of an optimizer with 0.1
PAIRS = {
    "constant": (constant(0.1), lambda o: theirs.LambdaLR(o, lambda _: 1.0)),
    "step": (step(0.1, 30, 0.1), lambda o: theirs.StepLR(o, 30, 0.1)),
    "step of 7": (step(0.1, 7, 0.8), lambda o: theirs.StepLR(o, 7, 0.8)),
    "exponential": (exponential(0.1, 0.97), lambda o: theirs.ExponentialLR(o, 0.97)),
    "inverse time": (inverse_time(0.1), lambda o: theirs.LambdaLR(o, lambda t: 1 / (1 + 0.1 * t))),
    "cosine": (cosine(0.1, 130), lambda o: theirs.CosineAnnealingLR(o, 130)),
    "cosine to 0.02": (cosine(0.1, 130, 0.02), lambda o: theirs.CosineAnnealingLR(o, 130, 0.02)),
    "warmup": (linear_warmup(0.1, 20, 0.25), lambda o: theirs.LinearLR(o, 0.25, total_iters=20)),
    "one cycle": (one_cycle(0.1, 131), lambda o: theirs.OneCycleLR(o, 0.1, 131, cycle_momentum=False)),
    "lopsided cycle": (
        one_cycle(0.1, 140, rising=0.55, start_divisor=10, end_divisor=50),
        lambda o: theirs.OneCycleLR(
            o, 0.1, 140, pct_start=0.55, div_factor=10, final_div_factor=50, cycle_momentum=False
        ),
    ),
    "cyclical": (cyclical(0.1, 0.7, 13), lambda o: theirs.CyclicLR(o, 0.1, 0.7, 13, cycle_momentum=False)),
    "halving cycles": (
        cyclical(0.1, 0.7, 9, 0.5),
        lambda o: theirs.CyclicLR(o, 0.1, 0.7, 9, mode="triangular2", cycle_momentum=False),
    ),
    "warmup and cosine": (
        chained(linear_warmup(0.1, 10, 0.1), 10, cosine(0.1, 121)),
        lambda o: theirs.SequentialLR(
            o, [theirs.LinearLR(o, 0.1, total_iters=10), theirs.CosineAnnealingLR(o, 121)], milestones=[10]
        ),
    ),
}
rates = st.floats(1e-6, 10.0)
counts = st.integers(1, 200)


@pytest.mark.parametrize("name", PAIRS)
def test_it_gives_torchs_learning_rates_for_130_steps(name):
    schedule, make = PAIRS[name]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = make(optimizer)
    for t in range(130):
        assert schedule(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15), t
        optimizer.step()
        scheduler.step()


def test_the_books_step_schedule_has_the_books_values():
    schedule = step(0.1, 30, 0.1)
    assert [schedule(t) for t in (0, 29, 30, 59, 60, 89, 90)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4], rel=1e-12
    )


def test_the_books_inverse_time_halves_after_ten_epochs():
    schedule = inverse_time(0.01)
    assert [schedule(t) for t in (0, 1, 10, 20)] == pytest.approx([0.01, 0.01 / 1.1, 0.005, 0.01 / 3])


def test_the_books_other_step_schedule_decays_after_hundred_steps_however_often_it_is_asked():
    """E-54: the book counts calls, and is called every tenth epoch."""
    optimizer = SGD([torch.zeros(1)])
    scheduler = Scheduler(optimizer, step(0.1, 100, 0.95))
    for epoch in range(0, 1000, 10):
        scheduler.step(epoch)
    assert scheduler.lr == [pytest.approx(0.1 * 0.95**9)]


@given(lr=rates, steps=counts, share=st.floats(0, 1))
def test_what_only_falls_never_rises_and_stays_within_bounds(lr, steps, share):
    for schedule in (
        constant(lr),
        inverse_time(lr, share),
        step(lr, steps, share),
        exponential(lr, share),
        cosine(lr, steps, lr * share),
    ):
        seen = [schedule(t) for t in range(0, 2 * steps + 2, max(1, steps // 20))]
        assert seen[0] == pytest.approx(lr)
        assert all(later <= sooner * (1 + 1e-12) for sooner, later in pairwise(seen))
        assert all(0 <= rate <= lr * (1 + 1e-12) for rate in seen)


@given(lr=rates, steps=counts, share=st.floats(0, 1))
def test_a_warmup_rises_to_the_learning_rate_and_stays_there(lr, steps, share):
    schedule = linear_warmup(lr, steps, share)
    seen = [schedule(t) for t in range(steps)]
    assert seen[0] == pytest.approx(lr * share)
    assert all(later >= sooner * (1 - 1e-12) for sooner, later in pairwise(seen))
    assert schedule(steps) == schedule(10 * steps) == pytest.approx(lr)


@given(lr=rates, steps=counts, share=st.floats(0, 1))
def test_a_cosine_is_exact_at_start_middle_and_end_and_symmetric(lr, steps, share):
    lowest = lr * share
    schedule = cosine(lr, steps, lowest)
    assert schedule(steps / 2) == pytest.approx((lr + lowest) / 2)
    assert schedule(steps) == schedule(steps + 1) == schedule(5 * steps) == pytest.approx(lowest)
    for t in range(0, steps, 7):
        assert schedule(t) + schedule(steps - t) == pytest.approx(lr + lowest)


@given(lr=rates, steps=st.integers(2, 300), data=st.data())
def test_warmup_and_cosine_meet_at_the_top_and_end_at_the_lowest(lr, steps, data):
    warmup = data.draw(st.integers(0, steps - 1))
    schedule = warmup_cosine(lr, steps, warmup, lr / 100)
    seen = [schedule(t) for t in range(steps + 2)]
    assert max(seen) == seen[warmup] == pytest.approx(lr)
    assert seen[steps] == seen[steps + 1] == pytest.approx(lr / 100)
    assert seen[: warmup + 1] == sorted(seen[: warmup + 1])
    assert seen[warmup:] == sorted(seen[warmup:], reverse=True)


def test_a_tenth_of_all_steps_is_warmup():
    schedule = warmup_cosine(1.0, 100)
    assert [schedule(t) for t in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert warmup_cosine(1.0, 5)(0) == 1.0


@given(lr=rates, steps=st.integers(10, 300), rising=st.floats(0.2, 0.8))
def test_one_cycle_climbs_to_the_top_and_ends_far_below_its_start(lr, steps, rising):
    schedule = one_cycle(lr, steps, rising=rising)
    top = rising * steps - 1
    assert schedule(0) == pytest.approx(lr / 25)
    assert schedule(top) == pytest.approx(lr)
    assert schedule(steps - 1) == schedule(steps + 9) == pytest.approx(lr / 25e4)
    seen = [schedule(t) for t in range(steps)]
    peak = seen.index(max(seen))
    assert seen[: peak + 1] == sorted(seen[: peak + 1])
    assert seen[peak:] == sorted(seen[peak:], reverse=True)


@given(lowest=rates, height=rates, half=counts, shrink=st.floats(0.1, 1), cycle=st.integers(0, 5))
def test_triangles_touch_their_foot_and_top(lowest, height, half, shrink, cycle):
    schedule = cyclical(lowest, lowest + height, half, shrink)
    foot = 2 * half * cycle
    assert schedule(foot) == pytest.approx(lowest)
    assert schedule(foot + half) == pytest.approx(lowest + height * shrink**cycle)
    assert schedule(foot + 1) == pytest.approx(schedule(foot + 2 * half - 1))


@given(low=rates, growth=st.floats(1.0, 1e6), steps=st.integers(2, 200))
def test_a_sweep_grows_by_the_same_factor_and_ends_where_it_should(low, growth, steps):
    schedule = geometric(low, low * growth, steps)
    assert schedule(0) == pytest.approx(low)
    assert schedule(steps - 1) == schedule(steps) == pytest.approx(low * growth)
    factors = [schedule(t + 1) / schedule(t) for t in range(steps - 1)]
    assert factors == pytest.approx([growth ** (1 / (steps - 1))] * (steps - 1))


def test_the_learning_rate_grows_with_the_batch():
    assert scaled_lr(0.1, 32, 256) == pytest.approx(0.8)
    assert scaled_lr(scaled_lr(0.1, 32, 256), 256, 32) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: step(0.1, 0), "`every` takes a number above 0, got 0"),
        (lambda: cosine(0.1, 0), "`steps` takes"),
        (lambda: linear_warmup(0.1, -1), "`steps` takes"),
        (lambda: geometric(0.0, 1.0, 9), "`low` takes"),
        (lambda: warmup_cosine(0.1, 10, 10), "`warmup` takes fewer than all 10 steps, got 10"),
        (lambda: one_cycle(0.1, 2), "`rising` takes a share of the 2 steps"),
        (lambda: cyclical(0.1, 0.2, 0), "`half` takes"),
        (lambda: scaled_lr(0.1, 0, 1), "`batch` takes"),
        (lambda: Scheduler(SGD([torch.zeros(1)]), constant(1.0)).step(-1), "`at` takes a step from 0 on, got -1"),
    ],
    ids=["every", "cosine", "warmup", "geometric", "no-cosine", "cycle", "half", "batch", "past"],
)
def test_arguments_out_of_range_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- the scheduler


def walk(make, schedule_of, steps=40):
    """Where an optimizer with a schedule goes, with gradients that turn."""
    point = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = make([point], lr=0.1)
    scheduler = schedule_of(optimizer)
    for t in range(steps):
        point.grad = torch.tensor([1.0, -2.0, (-1.0) ** t], dtype=torch.float64) * point.detach()
        optimizer.step()
        scheduler.step()
    return point.detach()


def test_moments_outlive_a_change_of_the_learning_rate():
    """E-04: a new optimizer every epoch forgets them; the walk with torch's optimizer and scheduler is the same."""
    ours = walk(Adam, lambda o: Scheduler(o, step(0.1, 3, 0.5)))
    theirs_ = walk(torch.optim.Adam, lambda o: theirs.StepLR(o, 3, 0.5))
    assert torch.allclose(ours, theirs_, rtol=1e-12)
    optimizer = Adam([torch.zeros(1)])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
    optimizer.step()
    before = optimizer.state[optimizer.param_groups[0]["params"][0]]
    kept = {name: value for name, value in before.items() if name != "step"}
    Scheduler(optimizer, constant(0.5)).step()
    after = optimizer.state[optimizer.param_groups[0]["params"][0]]
    assert all(after[name] is value for name, value in kept.items())
    assert after["step"] == 1


def test_a_relative_schedule_keeps_the_ratio_of_the_groups():
    groups = [{"params": [torch.zeros(1)], "lr": 0.1}, {"params": [torch.zeros(1)], "lr": 0.4}]
    relative, absolute = (Scheduler(SGD(deepcopy(groups)), exponential(1, 0.5), relative=yes) for yes in (True, False))
    for scheduler in (relative, absolute):
        scheduler.step()
        scheduler.step()
    assert relative.lr == pytest.approx([0.025, 0.1])
    assert absolute.lr == [0.25, 0.25]


def test_a_restored_scheduler_goes_on_where_it_stopped():
    def made():
        return Scheduler(SGD([torch.zeros(1)], 0.3), cosine(1, 20), relative=True)

    scheduler, restored = made(), made()
    for _ in range(7):
        scheduler.step()
    restored.optimizer.load_state_dict(deepcopy(scheduler.optimizer.state_dict()))
    restored.load_state_dict(scheduler.state_dict())
    assert restored.steps == 7
    for _ in range(3):
        assert restored.lr == scheduler.lr
        scheduler.step()
        restored.step()


def test_a_scheduler_works_on_torchs_optimizers_too():
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=1.0)
    assert Scheduler(optimizer, step(0.1, 1, 0.1)).lr == [0.1]


# ---- the finder


class Quadratic(torch.nn.Module):
    """θ²/2 around 0 from 1: gradient descent diverges above a learning rate of 2."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def loss(self):
        return (self.theta**2).sum() / 2


def test_the_sweep_tries_what_gradient_descent_does_with_each_learning_rate():
    sweep = lr_finder(Quadratic(), Quadratic.loss, SGD, low=1e-3, high=1.0, steps=20)
    theta, expected = 1.0, []
    for lr in sweep.lrs:
        theta *= 1 - lr
        expected.append(theta**2 / 2)
    assert sweep.losses == pytest.approx(expected)
    assert sweep.lrs == pytest.approx([10 ** (-3 + 3 * t / 19) for t in range(20)])


def test_it_suggests_a_tenth_of_where_the_loss_rises_and_where_it_falls_fastest():
    sweep = Sweep([1e-4, 1e-3, 1e-2, 1e-1, 1.0], [5.0, 4.9, 3.0, 0.5, 7.0])
    assert sweep.below_rise == pytest.approx(1e-2)
    assert sweep.steepest == 1e-2
    found = lr_finder(Quadratic(), Quadratic.loss, SGD, low=1e-4, high=1e2, steps=120)
    assert 1e-3 < found.steepest < 2
    assert found.below_rise < 2 / 5


def test_the_sweep_stops_where_the_loss_is_not_finite():
    sweep = lr_finder(Quadratic(), Quadratic.loss, SGD, low=1e-2, high=1e200, steps=100)
    assert 3 <= len(sweep.lrs) < 100
    assert len(sweep.lrs) == len(sweep.losses)
    assert torch.tensor(sweep.losses, dtype=torch.float64).isfinite().all()


def test_a_loss_that_is_never_finite_is_refused():
    with pytest.raises(ValueError, match="expected a finite loss at 3 learning rates or more, got 0, from 1e-06 on"):
        lr_finder(Quadratic(), lambda model: model.loss() * float("nan"), SGD)


@settings(max_examples=5)
@given(st.integers(0, 2**31))
def test_model_and_random_state_are_as_before_after_a_sweep(seed):
    """E-08: the book sweeps the model that is to be trained."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(Linear(3, 8), Dropout(0.5), MLP(8, 4, 2)).train()
    x = uniform(5, 3, bound=1.0)
    before, state = deepcopy(model.state_dict()), torch.get_rng_state()
    lr_finder(model, lambda m: m(x).square().mean(), Adam, steps=10)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_its_suggestion_trains_a_network_that_the_books_learning_rate_blows_up():
    """E-15: chapter 11's network on y = 2x + 1 with its learning rate of 0.1."""

    def trained(lr):
        twin = deepcopy(model)
        optimizer = SGD(twin.parameters(), lr)
        for _ in range(100):
            optimizer.zero_grad()
            loss(twin).backward()
            optimizer.step()
        return loss(twin).item()

    x = torch.arange(0, 10, 0.1).unsqueeze(1)
    y = 2 * x + 1 + uniform(100, 1, bound=0.1)
    model = MLP(1, 10, 1)

    def loss(m):
        return (m(x) - y).square().mean()

    sweep = lr_finder(model, loss, SGD, low=1e-6, high=1.0)
    assert sweep.below_rise < 0.01
    assert trained(sweep.below_rise) < loss(model).item() / 5
    assert not trained(0.1) < 10
