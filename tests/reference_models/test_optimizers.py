"""Optimizers, step by step against torch's."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tolerances import assert_close

from reference_models.optimizers import AdamW


def minimise(make, dtype, steps=20, scheduled=False):
    """Where an optimizer takes two tensors in so many steps on Rosenbrock's valley."""
    points = [
        torch.tensor([-1.2, 1.0], dtype=dtype, requires_grad=True),
        torch.ones(3, dtype=dtype, requires_grad=True),
    ]
    idle = torch.ones(2, dtype=dtype, requires_grad=True)  # never gets a gradient
    optimizer = make([{"params": [*points, idle]}])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5) if scheduled else None
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        (x, y), rest = points
        ((1 - x) ** 2 + 100 * (y - x * x) ** 2 + (rest**4).sum()).backward()
        optimizer.step()
        if schedule:
            schedule.step()
        path.append(torch.cat([point.detach().clone() for point in points]))
    assert torch.equal(idle, torch.ones(2, dtype=dtype))
    return torch.stack(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"lr": 0.05, "weight_decay": 0.3}, {"betas": (0.5, 0.7), "eps": 1e-3}, {"weight_decay": 0.0}]
)
def test_adamw_walks_as_torchs_does(settings, scheduled, dtype):
    ours = minimise(lambda params: AdamW(params, **settings), dtype, scheduled=scheduled)
    theirs = minimise(lambda params: torch.optim.AdamW(params, **settings), dtype, scheduled=scheduled)
    assert_close(ours, theirs)


def test_groups_have_their_own_settings():
    fast, slow = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = AdamW([{"params": [fast], "lr": 0.1}, {"params": [slow]}], lr=0.01, weight_decay=0.0)
    (fast.sum() + slow.sum()).backward()
    optimizer.step()
    assert_close(fast.detach(), torch.full((2,), 0.9))
    assert_close(slow.detach(), torch.full((2,), 0.99))


def test_a_closure_is_called_once_with_gradients_and_its_loss_returned():
    point = torch.ones(1, requires_grad=True)
    optimizer = AdamW([point])

    def closure():
        optimizer.zero_grad()
        loss = (point**2).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 1.0
    assert optimizer.step() is None
    assert point < 1


def test_a_restored_optimizer_goes_on_where_it_stopped():
    def step(optimizer, point):
        point.grad = torch.full_like(point, 0.5)
        optimizer.step()

    point = torch.ones(2, requires_grad=True)
    optimizer = AdamW([point])
    step(optimizer, point)
    twin = point.detach().clone().requires_grad_()
    restored = AdamW([twin])
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    step(optimizer, point)
    step(restored, twin)
    assert torch.equal(point, twin)


def test_hooks_on_the_step_are_called():
    point, seen = torch.ones(2, requires_grad=True), []
    optimizer = AdamW([point])
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    optimizer.step()
    assert seen == [1]
