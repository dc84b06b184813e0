"""Strategies for tensors and calls: what is drawn is as declared, and all of it can be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypedDict

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from strategies import FLOATS, INTEGERS, dims_texts
from torch import Tensor, nn

from tensorscope import DimsError, shapes
from tensorscope.contracts import parse_contract
from tensorscope.dims import bind, parse_dims
from tensorscope.live.fitted import Fitted
from tensorscope.testing import Call, arguments, broadcastable, odd_sizes, tensors

quick = settings(max_examples=200, database=None)


# --- sizes -----------------------------------------------------------------------------------------------------------


def drawable(strategy: st.SearchStrategy) -> set:
    """All that is drawn in some hundred examples."""
    seen = set()

    @settings(max_examples=300, database=None)
    @given(strategy)
    def draw(value):
        seen.add(value)

    draw()
    return seen


def test_odd_sizes_are_one_primes_and_powers_of_two_with_their_neighbours():
    assert drawable(odd_sizes()) == {1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17}
    assert drawable(odd_sizes(6, empty=True)) == {0, 1, 2, 3, 4, 5}
    assert find(odd_sizes(empty=True), lambda n: True) == 1


@given(broadcastable(3, empty=True))
def test_broadcastable_shapes_broadcast(drawn):
    assert len(drawn) == 3
    torch.broadcast_shapes(*drawn)


def test_broadcastable_shapes_are_not_all_alike():
    for condition in (
        lambda s: s[0] != s[1],
        lambda s: len(s[0]) > len(s[1]),
        lambda s: 1 in s[0] and max(s[1], default=0) > 1,
    ):
        assert find(broadcastable(), condition, settings=quick)


# --- tensors ---------------------------------------------------------------------------------------------------------


@given(dims_texts(), st.data())
def test_a_drawn_tensor_fits_its_dims(text, data):
    tensor = data.draw(tensors(text))
    assert bind(parse_dims(text), tensor.shape, {}) is None


@given(tensors("batch 2*dim dim//heads heads #batch", sizes={"dim": 12, "heads": st.integers(1, 5)}))
def test_sizes_can_be_pinned_and_computed_ones_follow(tensor):
    batch, double, per_head, heads, stretched = tensor.shape
    assert (double, per_head) == (24, 12 // heads)
    assert stretched in {1, batch}


@given(tensors("dim heads dim//heads"))
def test_what_is_divided_comes_out(tensor):
    dim, heads, per_head = tensor.shape
    assert dim == heads * per_head


@given(tensors("*batch dim", sizes={"*batch": (2, 3)}))
def test_any_number_of_axes_can_be_pinned(tensor):
    assert tensor.shape[:2] == (2, 3)


@given(tensors("batch seq", sizes=odd_sizes(3, empty=True)))
def test_one_strategy_can_serve_all_sizes(tensor):
    assert max(tensor.shape) <= 3


@settings(max_examples=8)
@given(st.data())
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_every_dtype_can_be_drawn(dtype, data):
    tensor = data.draw(tensors("batch", dtype=dtype, non_finite=dtype.itemsize > 1, extreme=dtype.itemsize > 1))
    assert tensor.dtype is dtype


@settings(max_examples=5)
@given(tensors("int[n]"), tensors("float16[n]"), tensors("n", dtype=st.just(torch.uint8)))
def test_a_word_before_the_dims_says_the_dtype(ids, half, bytes_):
    assert (ids.dtype, half.dtype, bytes_.dtype) == (torch.int64, torch.float16, torch.uint8)


@given(tensors("batch seq"), tensors("int64[batch]"))
def test_ordinary_numbers_are_finite_and_integers_index_any_table(x, ids):
    assert x.isfinite().all()
    assert set(ids.tolist()) <= {0, 1}


@given(tensors("int64[batch]", elements=st.sampled_from([5, 7])))
def test_elements_can_be_given(ids):
    assert set(ids.tolist()) <= {5, 7}


def test_special_numbers_turn_up_when_asked_for():
    assert find(tensors("n", non_finite=True), lambda x: bool(x.isnan().any()), settings=quick).numel() == 1
    assert (
        find(tensors("n", extreme=True), lambda x: bool((x == torch.finfo(x.dtype).max).any()), settings=quick).numel()
        == 1
    )
    assert find(tensors("int8[n]", extreme=True), lambda x: -128 in x, settings=quick).numel() == 1


@pytest.mark.parametrize("text", ["(batch, seq)", "long[n]", "batch dim-"])
def test_dims_that_cannot_be_read_are_refused_at_once(text):
    with pytest.raises(DimsError):
        tensors(text)


# --- whole calls -----------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    ids: Annotated[Tensor, "int64[batch seq]"]
    mask: Annotated[Tensor | None, "bool[batch seq]"] = None


class State(NamedTuple):
    h: Annotated[Tensor, "layers batch hidden"]
    c: Annotated[Tensor, "layers batch hidden"]


class Options(TypedDict):
    bias: Annotated[Tensor, "hidden"]


@shapes
def everything(
    batch: Batch,
    state: State | None,
    /,
    pair: tuple[Annotated[Tensor, "batch"], int],
    *more: Annotated[Tensor, "batch seq"],
    options: Options,
    table: dict[str, Annotated[Tensor, "seq"]],
    scale: float = 1.0,
    either: Annotated[Tensor, "batch"] | Annotated[Tensor, "int[batch seq]"] | None = None,
    **named: Annotated[Tensor, "hidden"],
):
    return "ran"


@given(arguments(everything, given={"pair": lambda sizes: (torch.zeros(sizes["batch"]), 3)}))
def test_a_drawn_call_is_accepted(call):
    assert everything(*call.args, **call.kwargs) == "ran"
    assert isinstance(call.args[0], Batch)
    assert call.args[0].ids.shape == (call.sizes["batch"], call.sizes["seq"])


def test_everything_that_may_be_left_out_sometimes_is():
    seen: set[str] = set()

    @settings(max_examples=50, database=None, derandomize=True)
    @given(arguments(everything, given={"pair": (None, 3)}, sizes=st.just(1)))
    def draw(call):
        either = call.kwargs["either"]
        seen.add(f"state {type(call.args[1]).__name__}")
        seen.add(f"mask {type(call.args[0].mask).__name__}")
        seen.add("either of none" if either is None else f"either of {either.ndim} axes")
        seen.add(f"{len(call.args) > 4} more")
        seen.add(f"{len(call.kwargs) > 4} named")

    draw()
    assert {"state State", "state NoneType", "mask Tensor", "mask NoneType"} < seen
    assert {"either of none", "either of 1 axes", "either of 2 axes"} < seen
    assert {"True more", "True named"} < seen


CONTRACTS = [
    "batch seq dim, mask: bool[seq seq] -> batch seq dim",
    "*batch dim, *#batch, #dim ->",
    "heads head_dim, batch heads*head_dim",
    "x: (a b, (b, a)), y.left: a, y.right.0: b, *z: (a, b)",
    "float[batch dim], labels: int[batch] ->",
    "... seq, seq-1, _ seq%3",
]


@pytest.mark.parametrize("text", CONTRACTS)
@settings(max_examples=15)
@given(st.data())
def test_a_call_drawn_from_a_contract_fits_it(text, data):
    call = data.draw(arguments(text))
    assert isinstance(call, Call)
    parameters = [*(f"p{i}" for i in range(len(call.args))), *call.kwargs]
    Fitted(eval(f"lambda {', '.join(parameters)}: None"), parse_contract(text)).enter(call.args, call.kwargs)


@settings(max_examples=5)
@given(arguments("b.ids: int64[n], c.1: n, c.0: n"))
def test_parts_by_name_can_be_taken_by_key_and_by_attribute(call):
    assert call.kwargs["b"].ids is call.kwargs["b"]["ids"]
    assert isinstance(call.kwargs["c"], tuple)
    with pytest.raises(AttributeError):
        call.kwargs["b"].other  # noqa: B018


class Scale(nn.Module):
    @shapes("batch dim -> batch dim")
    def forward(self, x, by, *, to=None):
        return x * by


@given(arguments(Scale(), given={"by": st.integers(1, 3)}, sizes={"dim": 4}))
def test_arguments_of_a_module_are_those_of_its_forward(call):
    assert Scale()(*call.args, **call.kwargs).shape[1] == 4
    assert call.kwargs == {"to": None}


@given(arguments(Scale().forward, given={"by": 2}))
def test_arguments_of_a_bound_method_are_without_self(call):
    assert len(call.args) == 2


REFUSED = {
    "no contract": (
        lambda: arguments(len),
        '`len` declares no contract\n\nhint: put `@shapes("batch dim -> batch dim")` above it',
    ),
    "an argument that nothing tells": (
        lambda: arguments(Scale()),
        "`Scale.forward` needs `by`, of which its contract says nothing\n  contract  batch dim -> batch dim\n\n"
        'hint: give it: `given={"by": …}`, a value, a strategy or a function of the sizes',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drawn_is_refused_at_once(case):
    call, text = REFUSED[case]
    with pytest.raises(DimsError) as caught:
        call()
    assert str(caught.value) == text


def test_an_object_that_needs_more_than_tensors_is_refused():
    @dataclass
    class Picky:
        x: Annotated[Tensor, "n"]
        how: str

    @shapes
    def take(picky: Picky):
        return picky

    with pytest.raises(DimsError, match="cannot be made of its tensors alone"):
        find(arguments(take), lambda call: True)
