"""Training and evaluation modes and frozen parameters, said when they change."""

from __future__ import annotations

import json
from typing import Any

import torch
from graph_models import GPT
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tensorscope.live.modes import AT_ONCE, Modes


def net() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(2, 2)), nn.ReLU())


def is_training(path: str, said: dict[str, Any]) -> bool:
    """How an answer is read: each toggled module around a path turns the model's flag over."""
    turns = sum(path == toggled or path.startswith(f"{toggled}.") for toggled in said["toggled"])
    return bool(said["training"] ^ (turns % 2 == 1))


def is_frozen(name: str, said: dict[str, Any]) -> bool:
    return any(frozen in ("", name) or name.startswith(f"{frozen}.") for frozen in said["frozen"])


def test_the_first_answer_says_how_things_stand_and_then_nothing_changes() -> None:
    modes = Modes(net())
    assert modes.changes(3) == {"step": 3, "training": True, "toggled": [], "frozen": []}
    assert modes.changes(4) is None


def test_evaluation_and_back_are_two_changes() -> None:
    model = net()
    modes = Modes(model)
    modes.changes(0)
    model.eval()
    assert modes.changes(1) == {"step": 1, "training": False, "toggled": [], "frozen": []}
    model.train()
    assert modes.changes(2) == {"step": 2, "training": True, "toggled": [], "frozen": []}
    assert modes.changes(3) is None


def test_a_part_in_evaluation_is_one_path_and_an_exception_in_it_another() -> None:
    model = net()
    model[0].eval()
    modes = Modes(model)
    said = modes.changes(0)
    assert said is not None
    assert said["toggled"] == ["0"]
    model[0][1].train()
    said = modes.changes(1)
    assert said is not None
    assert said["toggled"] == ["0", "0.1"]


def test_a_frozen_module_is_one_path_and_a_frozen_parameter_its_name() -> None:
    model = net()
    modes = Modes(model)
    model[0].requires_grad_(False)
    model[1][0].bias.requires_grad_(False)
    said = modes.changes(0)
    assert said is not None
    assert said["frozen"] == ["0", "1.0.bias"]
    model.requires_grad_(False)
    said = modes.changes(1)
    assert said is not None
    assert said["frozen"] == [""]


def test_a_change_that_is_taken_back_in_time_is_none() -> None:
    model = net()
    modes = Modes(model)
    modes.changes(0)
    model.eval()
    model.train()
    assert modes.changes(1) is None


def test_a_new_part_is_seen_after_another_look_and_the_old_one_let_go() -> None:
    model = net()
    modes = Modes(model)
    modes.changes(0)
    model[2] = nn.Linear(2, 2).eval()
    modes.look()
    said = modes.changes(1)
    assert said is not None
    assert said["toggled"] == ["2"]


def test_a_replaced_parameter_is_seen_without_another_look() -> None:
    model = net()
    modes = Modes(model)
    modes.changes(0)
    model[1][0].weight = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    said = modes.changes(1)
    assert said is not None
    assert said["frozen"] == ["1.0.weight"]


def test_in_a_large_model_what_is_frozen_is_noticed_within_one_round() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(5 * AT_ONCE)))
    modes = Modes(model)
    modes.changes(0)
    for place in (0, 3 * AT_ONCE, len(model) - 1):
        model[place].requires_grad_(False)
        said = [answer for step in range(6) if (answer := modes.changes(step)) is not None]
        assert len(said) == 1
        assert str(place) in said[0]["frozen"]


def test_tied_parameters_and_a_model_without_any_are_no_trouble() -> None:
    gpt = GPT(2, 16, 2, 50)
    gpt.requires_grad_(False)
    said = Modes(gpt).changes(0)
    assert said is not None
    assert said["frozen"] == [""]
    assert Modes(nn.ReLU()).changes(0) == {"step": 0, "training": True, "toggled": [], "frozen": []}


@given(st.data())
def test_every_flag_can_be_read_back(data: st.DataObject) -> None:
    model = nn.Sequential(net(), net(), nn.BatchNorm1d(2))
    modes = Modes(model)
    last: dict[str, Any] | None = None
    for step in range(3):
        for module in model.modules():
            module.training = data.draw(st.booleans())
        for parameter in model.parameters():
            parameter.requires_grad_(data.draw(st.booleans()))
        said = modes.changes(step)
        last = json.loads(json.dumps(said)) if said is not None else last
        assert last is not None
        assert {p: is_training(p, last) for p, _ in model.named_modules()} == {
            p: module.training for p, module in model.named_modules()
        }
        assert {n: is_frozen(n, last) for n, _ in model.named_parameters()} == {
            n: not parameter.requires_grad for n, parameter in model.named_parameters()
        }
