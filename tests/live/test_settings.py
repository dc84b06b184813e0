"""What is said of optimizers: settings once, and what schedules move."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, StepLR

from tensorscope.live.settings import MOST_GROUPS, describe, numbers

OPTIMIZERS = [
    kind
    for kind in vars(optim).values()
    if isinstance(kind, type) and issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer
]


def names_of(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_every_optimizer_of_torch_is_described_and_followed(kind: type[optim.Optimizer]) -> None:
    model = nn.Linear(3, 2, bias=False)
    optimizer = kind(model.parameters(), lr=0.25)
    said = json.loads(json.dumps(describe(optimizer, names_of(model))))
    assert said["type"] == kind.__name__
    (group,) = said["groups"]
    assert (group["parameters"], group["others"]) == (["weight"], 0)
    assert group["settings"].keys() == optimizer.param_groups[0].keys() - {"params"}  # nothing was left out
    assert numbers(optimizer)["lr"] == 0.25


@pytest.mark.parametrize("way", ["foreach", "fused", "capturable", "differentiable"])
def test_ways_of_computing_are_settings_too(way: str) -> None:
    model = nn.Linear(3, 2)
    settings = describe(optim.Adam(model.parameters(), **{way: True}), {})["groups"][0]["settings"]
    assert settings[way] is True


def test_groups_keep_their_own_settings_and_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    stranger = nn.Parameter(torch.zeros(1))
    groups = [
        {"params": [*model[0].parameters(), stranger], "lr": 0.1, "name": "trunk"},
        {"params": model[1].parameters(), "momentum": 0.5},
    ]
    optimizer = optim.SGD(groups, lr=0.01, weight_decay=0.125)
    first, second = describe(optimizer, names_of(model))["groups"]
    assert (first["parameters"], first["others"]) == (["0.weight", "0.bias"], 1)
    assert (second["parameters"], second["others"]) == (["1.weight", "1.bias"], 0)
    assert (first["settings"]["name"], second["settings"]["momentum"]) == ("trunk", 0.5)
    assert numbers(optimizer) == {
        "lr": 0.1, "momentum": 0.0, "weight_decay": 0.125, "lr[1]": 0.01, "momentum[1]": 0.5, "weight_decay[1]": 0.125,
    }  # fmt: skip


def test_the_first_beta_is_followed_and_the_second_is_not() -> None:
    found = numbers(optim.AdamW(nn.Linear(1, 1).parameters(), betas=(0.75, 0.5)))
    assert found == {"lr": 1e-3, "beta1": 0.75, "weight_decay": 1e-2}


@pytest.mark.parametrize("schedule", [lambda o: StepLR(o, 1, 0.5), lambda o: LambdaLR(o, lambda step: 0.5**step)])
def test_a_schedule_is_seen_step_by_step(schedule) -> None:
    model = nn.Linear(1, 1)
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    scheduler = schedule(optimizer)
    seen = []
    for _ in range(3):
        seen.append(numbers(optimizer)["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == [1.0, 0.5, 0.25]
    assert describe(optimizer, {})["groups"][0]["settings"]["initial_lr"] == 1.0


def test_a_cycle_moves_beta_too() -> None:
    optimizer = optim.Adam(nn.Linear(1, 1).parameters())
    scheduler = OneCycleLR(optimizer, max_lr=1.0, total_steps=4)
    before = numbers(optimizer)
    optimizer.step()
    scheduler.step()
    after = numbers(optimizer)
    assert after["lr"] > before["lr"]
    assert after["beta1"] < before["beta1"]


def test_a_learning_rate_that_is_a_tensor_stays_one_and_is_copied() -> None:
    rate = torch.tensor(0.5)
    optimizer = optim.Adam(nn.Linear(1, 1).parameters(), lr=rate, capturable=True)
    kept = numbers(optimizer)["lr"]
    rate.fill_(0.25)
    assert isinstance(kept, torch.Tensor)
    assert (kept.item(), kept.requires_grad, kept.ndim) == (0.5, False, 0)
    assert describe(optimizer, {})["groups"][0]["settings"]["lr"] == "tensor"


class Odd(optim.Optimizer):
    """Somebody's own optimizer."""

    def step(self, closure=None) -> None:
        """Do nothing."""


def test_odd_groups_of_an_optimizer_of_ones_own_lose_only_what_has_no_number() -> None:
    weight = nn.Parameter(torch.zeros(2))
    odd = {
        "lr": np.float32(0.5), "momentum": None, "betas": (), "weight_decay": True, "rule": lambda x: x,
        "sizes": np.int64(3), "pair": (1, "two", torch.ones(2)), "long": list(range(100)), 7: 8,
    }  # fmt: skip
    optimizer = Odd([weight], odd)
    assert numbers(optimizer) == {"lr": 0.5}
    said = describe(optimizer, {})["groups"][0]
    assert json.loads(json.dumps(said["settings"])) == {
        "lr": 0.5, "momentum": None, "betas": [], "weight_decay": True, "sizes": 3, "pair": [1, "two", "tensor"],
        "7": 8,
    }  # fmt: skip
    assert said["others"] == 1


@pytest.mark.parametrize(
    "rate",
    ["fast", torch.ones(3), torch.empty((), device="meta"), torch.tensor(1j), lambda: 1.0, 1j],
    ids=["text", "three numbers", "no data", "complex tensor", "function", "complex"],
)
def test_what_is_no_number_is_not_followed(rate: object) -> None:
    assert numbers(Odd([nn.Parameter(torch.zeros(1))], {"lr": rate})) == {}


def test_a_group_per_parameter_is_followed_up_to_a_limit() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(100)]
    found = numbers(optim.SGD(groups, lr=0.1))
    assert f"lr[{MOST_GROUPS - 1}]" in found
    assert f"lr[{MOST_GROUPS}]" not in found
