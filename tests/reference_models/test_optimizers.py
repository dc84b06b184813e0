"""Optimizers, step by step against torch's."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import float_dtypes, shapes, tensors, values
from tolerances import assert_close

from reference_models import optimizers
from reference_models.optimizers import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop, clip_grad_norm, clip_grad_value

NAMES = ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam")
ADAMS = ({"betas": (0.5, 0.7), "eps": 1e-3}, {"betas": (0.0, 0.9), "lr": 0.02, "weight_decay": 0.3})
SETTINGS = {
    "SGD": (
        {"momentum": 0.9},
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
        {"lr": 1e-4, "weight_decay": 0.3},
    ),
    "Adagrad": ({"lr": 0.3, "lr_decay": 0.1}, {"weight_decay": 0.3, "eps": 1e-2}),
    "RMSprop": ({"lr": 1e-3, "alpha": 0.9, "eps": 1e-6}, {"momentum": 0.9, "weight_decay": 0.3}, {"alpha": 0.0}),
    "AdamW": (*ADAMS, {"lr": 0.05, "weight_decay": 0.3}, {"weight_decay": 0.0}),
    "NAdam": (*ADAMS, {"momentum_decay": 0.0}, {"momentum_decay": 0.5}),
    "RAdam": ({"betas": (0.5, 0.7), "eps": 1e-3}, {"betas": (0.0, 0.9), "weight_decay": 0.3}, {"betas": (0.9, 0.5)}),
}
CASES = [
    pytest.param(name, setting, id=f"{name}-{place}")
    for name in NAMES
    for place, setting in enumerate(({}, *SETTINGS.get(name, ADAMS)))
]


def ours_and_theirs(name, **setting):
    """Makers of the optimizer of that name, of here and of torch."""
    return [lambda params, home=home: getattr(home, name)(params, **setting) for home in (optimizers, torch.optim)]


def minimise(make, dtype, steps=20, scheduled=False):
    """Where an optimizer takes two tensors in so many steps on Rosenbrock's valley, (1 - x)² + 100(y - x²)² + z⁴."""
    point, rest = torch.tensor([-1.2, 1.0], dtype=dtype), torch.ones(3, dtype=dtype)
    idle = torch.ones(2, dtype=dtype)  # never gets a gradient
    optimizer = make([{"params": [point, rest, idle]}])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5) if scheduled else None
    path = []
    for _ in range(steps):
        x, y = point.tolist()
        point.grad = torch.tensor([2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)], dtype=dtype)
        rest.grad = 4 * rest**3
        optimizer.step()
        if schedule:
            schedule.step()
        path.append(torch.cat([point, rest]))
    assert torch.equal(idle, torch.ones(2, dtype=dtype))
    return torch.stack(path)


def follow(make, start, gradients):
    """Where an optimizer takes a parameter that has one gradient after the other."""
    point = start.clone().requires_grad_()
    optimizer = make([point])
    for gradient in gradients:
        point.grad = gradient.clone()
        optimizer.step()
    return point.detach()


@pytest.mark.parametrize(
    ("dtype", "scheduled"),
    [(torch.float64, False), (torch.float64, True), (torch.float32, True)],
    ids=["double", "double-scheduled", "float-scheduled"],
)
@pytest.mark.parametrize(("name", "setting"), CASES)
def test_it_walks_as_torchs_does(name, setting, scheduled, dtype):
    if name == "SGD":
        setting = {"lr": 1e-4, **setting}  # the valley's walls throw larger steps out
    ours, theirs = (minimise(make, dtype, scheduled=scheduled) for make in ours_and_theirs(name, **setting))
    assert theirs.isfinite().all()
    assert_close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_its_settings_are_torchs(name):
    ours, theirs = (make([torch.ones(1)]).param_groups[0] for make in ours_and_theirs(name))
    assert ours == {key: theirs[key] for key in ours if key != "params"} | {"params": ours["params"]}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(data=st.data(), shape=shapes(axes=3), dtype=float_dtypes)
def test_it_equals_torchs_on_parameters_of_any_shape_and_type(name, data, shape, dtype):
    setting = data.draw(st.sampled_from(({}, *SETTINGS.get(name, ADAMS))))
    start, *gradients = (data.draw(tensors(shape, dtype, values(largest=10.0))) for _ in range(4))
    ours, theirs = (follow(make, start, gradients) for make in ours_and_theirs(name, **setting))
    assert_close(ours, theirs, scale=10)


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_it_equals_torchs_on_gradients_that_are_not_finite_huge_or_tiny(name, setting):
    inf, nan = float("inf"), float("nan")
    gradients = torch.tensor(
        [[inf, -inf, nan, 1e30, -1e30, 1e4, 1e-30, 0.0, -0.0, 1e-8], [1.0] * 10, [0.0] * 10, [-1e4] * 10]
    )
    ours, theirs = (follow(make, torch.ones(10), gradients) for make in ours_and_theirs(name, **setting))
    assert_close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_the_bottom_of_a_bowl(name):
    point = torch.tensor([3.0, -2.0], requires_grad=True)
    optimizer = getattr(optimizers, name)([point], lr=0.1 if name != "Adagrad" else 1.0)
    for _ in range(100):
        point.grad = 2 * point.detach()
        optimizer.step()
    assert point.detach().abs().max() < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_walks_down_rosenbrocks_valley(name):
    lr = {"SGD": 1e-3, "Adagrad": 0.5, "RMSprop": 2e-3, "RAdam": 6e-3}.get(name, 0.02)
    setting = {"lr": lr, **({"momentum": 0.9} if name == "SGD" else {})}
    path = minimise(ours_and_theirs(name, **setting)[0], torch.float64, 8000)[:, :2]
    assert (path[-1] - 1).abs().max() < 0.1


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam"])
def test_the_first_step_does_not_depend_on_the_gradients_size(name):
    gradient = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    settings = {"weight_decay": 0.0, "eps": 1e-20}
    (there,) = (follow(lambda p: getattr(optimizers, name)(p, **settings), torch.zeros_like(gradient), [gradient]),)
    assert_close(there, there[:1].expand(3))
    assert (there < 0).all()


# ---- the book, and where it errs


def test_the_books_momentum_is_torchs_as_long_as_the_learning_rate_stays():
    """E-05: v = γv + ηg, θ -= v."""

    def books(rates):
        theta, v = 1.0, 0.0
        for lr in rates:
            v = 0.9 * v + lr * 2 * theta
            theta -= v
        return theta

    def ours(rates):
        point = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = SGD([point], momentum=0.9)
        for lr in rates:
            optimizer.param_groups[0]["lr"] = lr
            point.grad = 2 * point.detach()
            optimizer.step()
        return point.item()

    assert ours([0.01] * 10) == pytest.approx(books([0.01] * 10), rel=1e-12)
    assert abs(ours([0.1, 0.001, 0.001]) - books([0.1, 0.001, 0.001])) > 0.1


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam", "NAdam"])
def test_epsilon_is_added_to_the_root_and_not_under_it(name):
    """E-06: with g = 1 and ε = 0.5 the first step is g / (1 + ε), and not g / √(1 + ε)."""
    setting = {"alpha": 0.0} if name == "RMSprop" else {"betas": (0.0, 0.999)} if name != "Adagrad" else {}
    make = ours_and_theirs(name, lr=1.0, eps=0.5, **setting)[0]
    there = follow(make, torch.zeros(1, dtype=torch.float64), [torch.ones(1, dtype=torch.float64)])
    assert there.item() == pytest.approx(-1 / 1.5, rel=1e-9)


def test_the_books_rmsprop_follows_its_formula():
    gradients = np.random.default_rng(0).normal(size=(20, 4))
    theta, v = np.zeros(4), np.zeros(4)
    for g in gradients:
        v = 0.9 * v + 0.1 * g * g
        theta -= 1e-3 * g / (np.sqrt(v) + 1e-6)
    there = follow(lambda p: RMSprop(p, 1e-3, alpha=0.9, eps=1e-6), torch.zeros(4).double(), torch.tensor(gradients))
    assert_close(there, torch.from_numpy(theta))


def test_adam_undoes_that_its_means_start_at_zero():
    """E-07: 1 / (1 - βᵗ) falls, from 10 to 1 for β₁; so the mean of equal gradients is that gradient at every step."""
    corrections = [1 / (1 - 0.9**t) for t in range(1, 100)]
    assert corrections[0] == pytest.approx(10)
    assert corrections == sorted(corrections, reverse=True)
    gradients = torch.full((50, 1), 3.0, dtype=torch.float64)
    there = follow(lambda p: Adam(p, 0.01, eps=0.0), torch.zeros(1).double(), gradients)
    assert_close(there, torch.full_like(there, -0.5))


def test_adamw_shrinks_all_weights_alike_and_adam_those_with_large_gradients_less():
    start, gradients = torch.ones(2).double(), torch.tensor([[1.0, 100.0]] * 100).double()
    alternating = gradients * torch.tensor([1.0, -1.0] * 50).unsqueeze(1)
    coupled, decoupled, plain = (
        follow(make, start, alternating)
        for make in (
            lambda p: Adam(p, 1e-3, weight_decay=0.5),
            lambda p: AdamW(p, 1e-3, weight_decay=0.5),
            lambda p: Adam(p, 1e-3),
        )
    )
    lost = plain - decoupled
    assert lost[0] == pytest.approx(lost[1].item(), rel=1e-2)
    assert (plain - coupled)[0] > 10 * (plain - coupled)[1]


# ---- what it is to be an optimizer


@pytest.mark.parametrize("name", NAMES)
def test_groups_have_their_own_settings(name):
    points = [[torch.ones(2, requires_grad=True) for _ in range(2)] for _ in range(2)]
    for (fast, slow), home in zip(points, (optimizers, torch.optim), strict=True):
        groups = [{"params": [fast], "lr": 0.1, "weight_decay": 0.0}, {"params": [slow]}]
        optimizer = getattr(home, name)(groups, lr=0.01, weight_decay=0.5)
        optimizer.add_param_group({"params": [torch.ones(1)], "lr": 0.3})
        for _ in range(3):
            optimizer.zero_grad()
            (fast.square().sum() + slow.square().sum()).backward()
            optimizer.step()
        assert optimizer.param_groups[2]["lr"] == 0.3
    for ours, theirs in zip(*points, strict=True):
        assert_close(ours.detach(), theirs.detach())
    assert not torch.equal(*points[0])


def test_a_closure_is_called_once_with_gradients_and_its_loss_returned():
    point = torch.ones(1, requires_grad=True)
    optimizer = AdamW([point])

    def closure():
        optimizer.zero_grad()
        loss = (point**2).sum()
        loss.backward()
        return float(loss.detach())

    with torch.no_grad():
        assert optimizer.step(closure) == 1.0
    assert optimizer.step() is None
    assert point < 1


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_a_restored_optimizer_goes_on_where_it_stopped(name, setting):
    def step(optimizer, point):
        point.grad = point.detach() - 0.3
        optimizer.step()

    point = torch.ones(2, requires_grad=True)
    optimizer = getattr(optimizers, name)([point], **setting)
    for _ in range(3):
        step(optimizer, point)
    twin = point.detach().clone().requires_grad_()
    restored = getattr(optimizers, name)([twin])
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    for _ in range(5):
        step(optimizer, point)
        step(restored, twin)
    assert torch.equal(point, twin)


def test_hooks_on_the_step_are_called():
    for name in NAMES:
        point, seen = torch.ones(2, requires_grad=True), []
        optimizer = getattr(optimizers, name)([point])
        optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append(1))
        optimizer.step()
        assert seen == [1]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_left_as_they_are(name):
    point = torch.ones(3, requires_grad=True)
    optimizer = getattr(optimizers, name)([point], weight_decay=0.1)
    point.grad = torch.tensor([1.0, -2.0, 3.0])
    for _ in range(7):
        optimizer.step()
    assert point.grad.tolist() == [1, -2, 3]


def test_settings_out_of_range_are_refused_by_name():
    for make, fault, message in [
        (lambda: SGD([torch.ones(1)], -1.0), ValueError, r"`lr` takes numbers in \[0, inf\), got -1.0"),
        (lambda: SGD([torch.ones(1)], float("nan")), ValueError, "`lr` takes numbers"),
        (lambda: SGD([torch.ones(1)], nesterov=True), ValueError, "`nesterov` takes a `momentum` above 0"),
        (lambda: Adam([torch.ones(1)], betas=(0.9, 1.0)), ValueError, r"`betas` takes numbers in \[0, 1\), got 1.0"),
        (lambda: Adam([torch.ones(1)], betas=0.9), TypeError, "`betas` takes two numbers, got 0.9"),
        (lambda: Adam([torch.ones(1)], torch.tensor(0.1)), TypeError, "`lr` takes a number, got Tensor"),
        (lambda: Adam([torch.ones(1)], beta=0.9), TypeError, "Adam has the settings lr, betas, eps.*, got `beta`"),
        (lambda: Adam([{"params": [torch.ones(1)], "eps": -1.0}]), ValueError, "`eps` takes numbers"),
        (lambda: NAdam([torch.ones(1)], momentum_decay=-1), ValueError, "`momentum_decay` takes numbers"),
        (lambda: RMSprop([torch.ones(1)], alpha=1.5), ValueError, "`alpha` takes numbers"),
        (lambda: Adagrad([]), ValueError, "empty parameter list"),
    ]:
        with pytest.raises(fault, match=message):
            make()


def test_sparse_and_complex_gradients_are_refused_before_anything_moves():
    for odd in (torch.ones(2).to_sparse(), None):
        first = torch.ones(2, requires_grad=True)
        second = torch.ones(2, dtype=torch.float32 if odd is not None else torch.complex64, requires_grad=True)
        first.grad, second.grad = torch.ones(2), odd if odd is not None else torch.ones(2, dtype=torch.complex64)
        with pytest.raises(TypeError, match="expected a dense and real gradient, got"):
            SGD([first, second]).step()
        assert torch.equal(first.detach(), torch.ones(2))


# ---- clipping


def with_gradients(gradients):
    """Parameters with those gradients, and one without any."""
    made = [torch.zeros_like(gradient).requires_grad_() for gradient in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = gradient.clone()
    return [*made, torch.ones(2, requires_grad=True)]


@pytest.mark.parametrize("name", ["clip_grad_norm", "clip_grad_value"])
@settings(max_examples=25)
@given(
    gradients=float_dtypes.flatmap(
        lambda dtype: st.lists(tensors(shapes(axes=3), dtype, values(non_finite=True)), min_size=1, max_size=3)
    ),
    bound=st.one_of(st.sampled_from([0.0, 1.0, float("inf")]), st.floats(0, 100)),
)
def test_clipping_writes_what_torchs_writes(name, gradients, bound):
    ours, theirs = with_gradients(gradients), with_gradients(gradients)
    norm = getattr(optimizers, name)(iter(ours), bound)
    expected = getattr(torch.nn.utils, name + "_")(theirs, bound)
    if name == "clip_grad_norm":
        assert_close(norm, expected, scale=10)
    for actual, right in zip(ours[:-1], theirs[:-1], strict=True):
        assert_close(actual.grad, right.grad, scale=10)
    assert ours[-1].grad is None


@given(tensors((3, 4), torch.float64), st.floats(0.01, 50))
def test_a_clipped_gradient_keeps_its_direction_and_a_short_one_everything(gradient, bound):
    """E-54: the book's function computes the scaled gradients, and drops them."""
    (parameter, _) = with_gradients([gradient])
    norm = clip_grad_norm(parameter, bound)
    assert norm == pytest.approx(gradient.norm().item())
    if norm <= bound - 1e-6:
        assert torch.equal(parameter.grad, gradient)
    else:
        assert parameter.grad.norm() <= bound
        assert_close(parameter.grad / bound, gradient / (norm + 1e-6), scale=1e6)


def test_clipping_without_gradients_gives_zero_and_bad_bounds_are_refused():
    assert clip_grad_norm([], 1.0) == clip_grad_norm([torch.ones(2)], 1.0) == 0
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="`max_norm` takes a number of at least 0, got"):
            clip_grad_norm([], bad)
        with pytest.raises(ValueError, match="`clip_value` takes a number of at least 0, got"):
            clip_grad_value([], bad)
