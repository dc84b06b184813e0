"""The names of a failed call's arguments, what the user's line calls them, and one of them changed."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tensorscope.live.postmortem.calls import Call, Slot, changed, operand, read_call, spoken
from tensorscope.live.transcript import name_of


class Listening(TorchFunctionMode):
    """Keeps the last call."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.call = func, name_of(func), args, kwargs or {}
        return func(*args, **(kwargs or {}))


X, Y, ROW, INDEX = torch.arange(6.0).view(2, 3), torch.ones(3, 2), torch.ones(3), torch.zeros(2, 1, dtype=torch.long)
SCOPE = {"torch": torch, "F": F, "x": X, "y": Y, "row": ROW, "index": INDEX, "parts": [X, X], "mask": X > 1, "n": 2}


def call_of(text: str) -> Call:
    """The call that an expression makes, as torch sees it, with what the expression calls its arguments."""
    with Listening() as heard:
        eval(text, dict(SCOPE))
    call = read_call(*heard.call)
    call.texts.update(spoken(ast.parse(text, mode="eval").body, call))
    return call


CALLS: list[tuple[str, str, dict[str, str]]] = [
    ("F.linear(x, x)", "linear", {"input": "x", "weight": "x"}),
    ("F.linear(input=x, weight=x)", "linear", {"input": "x", "weight": "x"}),
    ("x @ y", "matmul", {"input": "x", "other": "y"}),
    ("torch.matmul(x, y)", "matmul", {"input": "x", "other": "y"}),
    ("x.matmul(other=y)", "matmul", {"input": "x", "other": "y"}),
    ("x + row", "add", {"input": "x", "other": "row"}),
    ("2 - x", "sub", {"input": "2", "other": "x"}),
    ("torch.cat([x, x * 2])", "cat", {"tensors[0]": "x", "tensors[1]": "x * 2"}),
    ("torch.cat(parts, dim=0)", "cat", {"tensors[0]": "parts[0]", "tensors[1]": "parts[1]", "dim": "0"}),
    ("torch.stack((x, x), 1)", "stack", {"tensors[0]": "x", "tensors[1]": "x", "dim": "1"}),
    ("x.gather(1, index)", "gather", {"input": "x", "dim": "1", "index": "index"}),
    ("torch.gather(x, 1, index)", "gather", {"input": "x", "dim": "1", "index": "index"}),
    ("torch.gather(x, dim=1, index=index)", "gather", {"input": "x", "dim": "1", "index": "index"}),
    ("x.masked_fill(mask, 0.0)", "masked_fill", {"input": "x", "mask": "mask", "value": "0.0"}),
    ("torch.where(mask, x, x)", "where", {"condition": "mask", "input": "x", "other": "x"}),
    ("x[0]", "getitem", {"input": "x", "index": "0"}),
    ("x[:, 1:]", "getitem", {"input": "x", "index": "(slice(None, None, None), 1:)"}),
    ("torch.einsum('ij,jk->ik', x, y)", "einsum", {"equation": "'ij,jk->ik'", "operands[0]": "x", "operands[1]": "y"}),
    ("torch.addmm(y.t()[:, :2], x, y)", "addmm", {"mat1": "x", "mat2": "y"}),
    ("x.sum(0).mul(row)", "mul", {"input": "x.sum(0)", "other": "row"}),
    ("F.cross_entropy(y, index[:, 0].new_zeros(3))", "cross_entropy", {"input": "y"}),
    ("x.view(3, n)", "view", {"input": "x"}),
]


@pytest.mark.parametrize(("text", "op", "texts"), CALLS, ids=[text for text, _, _ in CALLS])
def test_arguments_have_their_names_in_torch_and_in_the_users_line(text: str, op: str, texts: dict[str, str]) -> None:
    call = call_of(text)
    said = {name: call.text(name) for name in texts if name != "index" or ":" not in text}
    assert call.op == op
    assert texts.items() >= said.items()
    assert call.tensors().keys() >= {name for name in texts if isinstance(call.roles.get(name), Tensor)}


@pytest.mark.parametrize("name", ["__rsub__", "__rmatmul__", "__rpow__", "__rtruediv__"])
def test_a_reflected_operators_first_argument_stands_on_the_right(name: str) -> None:
    call = read_call(getattr(torch.Tensor, name), name, (X, Y), {})
    assert call.roles["input"] is Y
    assert call.roles["other"] is X
    assert call.slots == {"input": (1,), "other": (0,)}


def test_arguments_beyond_those_that_are_known_have_numbers() -> None:
    call = read_call(object(), "unheard_of", (X, Y, ROW), {"extra": 1})
    assert list(call.roles) == ["input", "other", "argument 3", "extra"]


def test_a_function_of_the_users_has_the_names_of_its_own_parameters() -> None:
    def scale(points: Tensor, factor: float) -> Tensor:
        return points * factor

    call = read_call(scale, "scale", (X, 2.0), {})
    assert list(call.roles) == ["points", "factor"]


def test_the_call_of_a_method_is_told_without_its_object() -> None:
    layer = torch.nn.LSTM(3, 4)
    call = read_call(torch.nn.LSTM.forward, "", (layer, X), {"hx": None}).without_self("lstm")
    assert (call.op, list(call.roles)) == ("lstm", ["input", "hx"])
    assert (call.slots["input"], call.slots["hx"]) == ((0,), ("hx",))


def test_a_text_that_is_longer_than_a_name_should_be_is_left_out() -> None:
    long = f"x[{', '.join(['...'] + ['None'] * 9)}]"
    call = call_of(f"torch.neg({long})")
    assert call.text("input") == "input"


def test_arguments_that_are_unpacked_keep_torchs_names() -> None:
    assert call_of("torch.matmul(*[x, y])").texts == {}


def test_a_call_that_makes_something_else_says_nothing_about_its_arguments() -> None:
    call = read_call(torch.matmul, "matmul", (X, Y), {})
    assert spoken(None, call) == {}
    assert spoken(ast.parse("name", mode="eval").body, call) == {}


def test_an_operation_in_place_is_read_as_it_is_written() -> None:
    call = read_call(torch.Tensor.__iadd__, "add_", (X, ROW), {})
    assert spoken(ast.parse("total += row").body[0], call) == {"input": "total", "other": "row"}


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (torch.zeros(2, 3), "x (2, 3) float32"),
        (torch.zeros(0, dtype=torch.int64), "x (0,) int64"),
        (torch.tensor(1.0, dtype=torch.bfloat16), "x () bfloat16"),
        (torch.zeros(2, 3, device="meta"), "x (2, 3) float32"),
    ],
)
def test_an_operand_is_a_name_dims_and_dtype(tensor: Tensor, text: str) -> None:
    told = operand("x", tensor)
    assert str(told) == text
    assert told.device == str(tensor.device)


# -- one argument changed --

values = st.integers(0, 9)


@given(st.lists(values, min_size=1, max_size=4), st.dictionaries(st.sampled_from("abc"), values, min_size=1), st.data())
def test_changing_an_argument_changes_that_one_alone(
    args: list[int], kwargs: dict[str, int], data: st.DataObject
) -> None:
    key = data.draw(st.one_of(st.integers(0, len(args) - 1), st.sampled_from(sorted(kwargs))))
    new_args, new_kwargs = changed((key,), lambda value: -1 - value, tuple(args), dict(kwargs))
    expected = dict(enumerate(args)) | kwargs
    expected[key] = -1 - expected[key]
    assert dict(enumerate(new_args)) | new_kwargs == expected


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(("slot", "args", "kwargs"), [((0, 1), True, False), (("tensors", 1), False, True)])
def test_an_entry_of_a_list_is_changed_in_a_copy(slot: Slot, args: bool, kwargs: bool, kind: Any) -> None:
    entries = kind([1, 2, 3])
    got = changed(slot, lambda _: 9, (entries,) * args, {"tensors": entries} if kwargs else {})
    assert got == (((kind([1, 9, 3]),), {}) if args else ((), {"tensors": kind([1, 9, 3])}))
    assert entries == kind([1, 2, 3])
