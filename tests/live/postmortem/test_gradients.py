"""Errors of the backward pass, weights of another checkpoint, and what autograd remembers of a tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crashes import caught
from torch import Tensor, nn

from tensorscope.live.postmortem.crash import Crash, Level, read_crash
from tensorscope.live.postmortem.gradients import autograd_chain, of_backward, of_checkpoint


def crash_of(function: Any, *args: Any) -> Crash:
    return read_crash(caught(function, *args))


def level(function: Any) -> Level:
    """The frame of a function of the user's, which failed on purpose."""
    found = crash_of(function).scene
    assert found is not None
    return found


# -- what autograd remembers --


def test_the_operations_that_made_a_tensor_are_told_newest_first_with_their_layers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    out = model(torch.zeros(5, 3)).softmax(-1)

    def fail() -> Tensor:
        assert model is not None
        return out + torch.zeros(7)  # type: ignore[no-any-return]

    told = [(step.op, step.module, step.dims, step.label) for step in autograd_chain(out, level(fail))]
    assert told == [
        ("softmax", "", (5, 2), "softmax"),
        ("addmm", "2", (5, 2), "2"),
        ("relu", "", (5, 4), "relu"),
        ("addmm", "0", (5, 4), "0"),
    ]


def test_without_a_graph_nothing_is_remembered() -> None:
    with torch.no_grad():
        out = nn.Linear(3, 4)(torch.zeros(5, 3))
    assert list(autograd_chain(out, None)) == []
    assert list(autograd_chain(torch.zeros(3, requires_grad=True), None)) == []


def test_a_long_chain_is_told_as_far_as_eight_operations() -> None:
    x = torch.zeros(2, requires_grad=True)
    for _ in range(20):
        x = x.exp()
    assert [step.op for step in autograd_chain(x, None)] == ["exp"] * 8


# -- errors of the backward pass --


def test_backward_begins_at_one_number() -> None:
    loss = torch.zeros(4, requires_grad=True) * 2
    found = of_backward(crash_of(lambda: loss.backward()))  # type: ignore[no-untyped-call]  # noqa: PLW0108
    assert found is not None
    assert found["op"] == "backward"
    assert found["title"].startswith("`loss.backward()`: `loss` is (4")
    assert found["tensors"] == {"loss": loss}
    assert [fix.text for fix in found["fixes"]] == ["`loss.mean().backward()`", "`loss.sum().backward()`"]
    assert not any(fix.verified for fix in found["fixes"])


def test_a_gradient_has_the_shape_of_what_it_is_the_gradient_of() -> None:
    loss = torch.zeros(4, requires_grad=True) * 2
    found = of_backward(crash_of(lambda: loss.backward(torch.ones(3))))  # type: ignore[no-untyped-call]
    assert found is not None
    assert [(operand.name, operand.dims) for operand in found["operands"]] == [("torch.ones(3)", (3,))]
    assert found["fixes"][0].text == "`loss.backward(torch.ones_like(loss))`"


class Halved(torch.autograd.Function):
    """Its gradient has another shape than its argument."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0][:1]


def test_a_function_of_the_users_own_is_found_by_its_class() -> None:
    loss = Halved.apply(torch.zeros(4, requires_grad=True)).sum()  # type: ignore[no-untyped-call]
    found = of_backward(crash_of(lambda: loss.backward()))  # noqa: PLW0108
    assert found is not None
    assert found["title"].startswith("`Halved.backward` returns a gradient of another shape than its argument 0")
    assert found["notes"][0].startswith(f"`Halved` is at {__file__}:")


@pytest.mark.parametrize("function", [lambda: torch.zeros(2) + torch.zeros(3), lambda: torch.zeros(2).view(3)])
def test_other_errors_are_none_of_the_backward_pass(function: Any) -> None:
    assert of_backward(crash_of(function)) is None


def test_an_error_without_frames_is_none_of_the_backward_pass() -> None:
    assert of_backward(Crash(RuntimeError("grad can be implicitly created only for scalar outputs"), ())) is None


# -- checkpoints --


def test_a_checkpoint_of_other_shapes_is_told_weight_by_weight() -> None:
    saved, model = nn.Linear(3, 4).state_dict(), nn.Linear(5, 2)
    found = of_checkpoint(crash_of(model.load_state_dict, saved))
    assert found is not None
    assert found["op"] == "load_state_dict"
    assert found["title"].startswith("`weight` is (4, 3) in the checkpoint and (2, 5) in the model")
    assert found["title"].endswith("and 1 more")
    assert [(operand.name, operand.dims) for operand in found["operands"]] == [
        ("weight in the checkpoint", (4, 3)),
        ("weight in the model", (2, 5)),
    ]


def test_a_checkpoint_with_other_names_alone_is_not() -> None:
    assert of_checkpoint(crash_of(nn.Linear(3, 4).load_state_dict, {})) is None
