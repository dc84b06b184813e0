"""The shape decorator over tuples, dicts, dataclasses, any number of tensors, and dtypes."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tensorscope import DimsError, ShapeError, shapes
from tensorscope.live.shapes import named_dims

zeros = torch.zeros
State = namedtuple("State", "h c")


@dataclass
class Batch:
    ids: torch.Tensor
    mask: torch.Tensor | None = None


@shapes("x: batch seq dim, state: (layers batch hidden, layers batch hidden) -> batch seq hidden, (batch, batch)")
def recurrent(x, state=None, give=lambda x: (x[..., :2], (x[:, 0, 0], x[:, 0, 0]))):
    return give(x)


@shapes("batch.ids: int64[batch seq], batch.mask: bool[batch seq] -> logits: batch classes, loss:")
def scored(batch, give=lambda: {"logits": zeros(2, 3), "loss": zeros(())}):
    return give()


@shapes("*xs: batch dim, **named: batch -> *: batch dim")
def joined(*xs, give=list, **named):
    return give(xs)


def title(call) -> str:
    with pytest.raises(ShapeError) as caught:
        call()
    return str(caught.value).partition("\n")[0]


# --- tuples ----------------------------------------------------------------------------------------------------------


def test_the_tensors_of_a_tuple_are_checked_in_order():
    x, h = zeros(2, 3, 4), zeros(1, 2, 2)
    assert recurrent(x, (h, h))[0].shape == (2, 3, 2)
    assert recurrent(x, [h, h])[0].shape == (2, 3, 2)
    assert recurrent(x, State(h, h))[0].shape == (2, 3, 2)
    assert recurrent(x)[0].shape == (2, 3, 2)
    said = title(lambda: recurrent(x, (h, zeros(1, 3, 2))))
    assert said == "`recurrent`: axis 1 of `state[1]` is 3 and takes `batch` = 2 (from `x`)"


def test_a_tuple_has_as_many_parts_as_are_declared():
    x, h = zeros(2, 3, 4), zeros(1, 2, 2)
    assert title(lambda: recurrent(x, (h,))) == "`recurrent`: `state` is a tuple of 1 and takes a tuple of 2"
    assert title(lambda: recurrent(x, h)) == "`recurrent`: `state` is a tensor and takes a tuple of 2"


def test_what_is_no_tensor_inside_a_tuple_is_not_looked_at():
    assert recurrent(zeros(2, 3, 4), (None, 7))[0].shape == (2, 3, 2)
    assert recurrent(zeros(2, 3, 4), 7)[0].shape == (2, 3, 2)


def test_a_tuple_inside_the_result_is_checked():
    x = zeros(2, 3, 4)
    assert "axis 0 of the returned tensor [1][1] is 9 and should be `batch` = 2" in title(
        lambda: recurrent(x, None, lambda x: (x, (x[:, 0, 0], zeros(9))))
    )
    assert "the returned value [1] is a tensor and should be a tuple of 2" in title(
        lambda: recurrent(x, None, lambda x: (x, x))
    )
    assert recurrent(x, None, lambda x: (x, None))[1] is None


# --- parts by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [dict, UserDict, Batch, SimpleNamespace])
def test_parts_are_found_by_key_or_attribute(make):
    ids, mask = torch.zeros(2, 3, dtype=torch.int64), zeros(2, 3) > 0
    assert scored(make(ids=ids, mask=mask))["logits"].shape == (2, 3)
    where = '`batch["mask"]`' if make in {dict, UserDict} else "`batch.mask`"
    said = title(lambda: scored(make(ids=ids, mask=mask[:1])))
    assert said.startswith(f"`scored`: axis 0 of {where} is 1 and takes `batch` = 2 (from ")


def test_a_part_that_is_not_there_is_not_looked_at_when_it_is_given_and_missed_when_it_is_returned():
    assert scored({"ids": torch.zeros(2, 3, dtype=torch.int64)})["loss"].shape == ()
    assert scored(None)["loss"].shape == ()
    assert title(lambda: scored({}, lambda: {"logits": zeros(2, 3)})) == (
        '`scored`: the returned value ["loss"] is missing'
    )
    assert "the returned value is a tensor and should be an object with `logits` and `loss`" in title(
        lambda: scored({}, lambda: zeros(2))
    )
    assert scored({}, lambda: {"logits": zeros(2, 3), "loss": None})["loss"] is None


def test_the_names_of_a_plain_tuple_and_of_a_lone_tensor_are_for_the_reader():
    assert scored({}, lambda: (zeros(2, 3), zeros(())))[1].shape == ()
    assert "axis 1" not in title(lambda: scored({}, lambda: (zeros(2), zeros(()))))
    lone = shapes("batch dim -> logits: batch")(lambda x: x[:, 0])
    assert lone(zeros(2, 3)).shape == (2,)


def test_parts_of_tuples_can_be_named_by_position():
    first = shapes("x.1: batch, x.3: batch")(lambda x: x)
    assert len(first((zeros(9), zeros(2)))) == 2
    assert "`x[3]` is 3 and takes `batch` = 2" in title(lambda: first([None, zeros(2), 0, zeros(3)]))


# --- any number ------------------------------------------------------------------------------------------------------


def test_each_of_many_arguments_is_checked():
    assert len(joined(zeros(2, 3), zeros(2, 3), extra=zeros(2))) == 2
    assert joined() == []
    assert "axis 1 of `xs[1]` is 4 and takes `dim` = 3 (from `xs[0]`)" in title(
        lambda: joined(zeros(2, 3), zeros(2, 4))
    )
    assert 'axis 0 of `named["extra"]` is 5' in title(lambda: joined(zeros(2, 3), extra=zeros(5)))
    assert "axis 1 of the returned tensor [1] is 1 and should be `dim` = 3" in title(
        lambda: joined(zeros(2, 3), give=lambda xs: [xs[0], xs[0][:, :1]])
    )


def test_each_entry_of_a_list_or_dict_is_checked():
    stacked = shapes("layers.*: batch dim -> batch dim")(lambda layers: zeros(2, 3))
    assert stacked([zeros(2, 3)] * 5).shape == (2, 3)
    assert stacked({"a": zeros(2, 3)}).shape == (2, 3)
    assert stacked(zeros(5, 2, 3)).shape == (2, 3)  # its rows are entries, too
    assert 'axis 1 of `layers["b"]` is 4' in title(lambda: stacked({"a": zeros(2, 3), "b": zeros(2, 4)}))


def test_a_parameter_that_takes_many_needs_a_star():
    with pytest.raises(DimsError) as caught:
        shapes("xs: batch dim")(lambda *xs: xs)
    assert str(caught.value) == (
        "`xs` of `<lambda>` takes any number of arguments\n  contract  xs: batch dim\n  takes     `*xs`\n\n"
        "hint: write `*xs: batch dim` for every one of them"
    )


# --- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "fitting", "other"),
    [
        ("float", torch.bfloat16, torch.int64),
        ("float32", torch.float32, torch.float64),
        ("int", torch.int8, torch.uint8),
        ("integer", torch.uint8, torch.bool),
        ("bool", torch.bool, torch.uint8),
        ("complex", torch.complex64, torch.float32),
        ("inexact", torch.complex64, torch.int32),
        ("real", torch.int32, torch.complex64),
        ("num", torch.complex64, torch.bool),
    ],
)
def test_a_dtype_is_one_of_those_that_its_word_stands_for(word, fitting, other):
    same = shapes(f"{word}[batch]")(lambda x: x)
    for _ in range(2):  # also once shapes are remembered
        assert same(zeros(3, dtype=fitting)).dtype is fitting
        said = title(lambda: same(zeros(3, dtype=other)))
        assert said == f"`<lambda>`: `x` is {str(other).removeprefix('torch.')} and takes {word}"


def test_the_dtype_of_a_result_is_checked():
    mean = shapes("batch -> float[]")(lambda x, to: x.sum().to(to))
    assert mean(zeros(2), torch.float16).dtype is torch.float16
    assert title(lambda: mean(zeros(2), torch.int64)) == "`<lambda>`: the returned tensor is int64 and should be float"


# --- what trace and graph ask ----------------------------------------------------------------------------------------


class Encoder(nn.Module):
    @shapes(
        "x: batch seq dim, *more: batch, state: (layers batch hidden, cells), **kw: seq -> out: batch dim, all.*: seq"
    )
    def forward(self, x, *more, state=None, **kw):
        return x


def test_axes_of_nested_tensors_are_named():
    x, row, h = zeros(2, 3, 4), zeros(2), zeros(1, 2, 5)
    given, returned = {"state": (h, zeros(7)), "bias": zeros(3)}, {"out": zeros(2, 4), "all": [zeros(3), zeros(3)]}
    named = named_dims(Encoder(), (x, row, row), given, returned)
    assert named.inputs == {
        "x": ("batch", "seq", "dim"),
        "1": ("batch",),
        "2": ("batch",),
        "state": ("layers", "batch", "hidden"),
        "state.1": ("cells",),
        "bias": ("seq",),
    }
    assert list(named.outputs.values()) == [("batch", "dim"), ("seq",), ("seq",)]


# --- law -------------------------------------------------------------------------------------------------------------

sizes = st.integers(0, 2)


@given(st.lists(st.tuples(sizes, sizes), max_size=3), st.lists(st.tuples(sizes, sizes), max_size=3), st.booleans())
def test_a_call_passes_exactly_if_all_entries_agree(lists, tuples, again):
    check = shapes("xs.*: rows columns, pairs.*: (rows, columns)")(lambda xs, pairs: "ran")
    agree = len({*lists, *tuples}) <= 1
    for _ in range(1 + again):
        xs, pairs = [zeros(*size) for size in lists], {i: (zeros(a), zeros(b)) for i, (a, b) in enumerate(tuples)}
        if agree:
            assert check(xs, pairs) == "ran"
        else:
            title(lambda xs=xs, pairs=pairs: check(xs, pairs))
