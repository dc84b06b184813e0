"""What readers are told of an axis, on real programs, word for word."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from provenance_programs import Watched, followed, watch
from torch import Tensor, nn

from tensorscope.live.postmortem.axes import Axis, InputAxis, Kind
from tensorscope.live.postmortem.wording import fitting, formula, terms


class Book(nn.Module):
    """The convolutional network of the book, with the mistake that readers make in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.MaxPool2d(2)
        self.fc1 = nn.Linear(4096, 128)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv2(self.pool(self.conv1(x))).relu())
        return self.fc1(x.flatten(1))


def said(program: Any, model: nn.Module | None = None, **given: Tensor) -> tuple[Any, ...]:
    """The formula and terms of the last axis of a program's result."""
    watched, result = watch(program, model, **given)
    assert watched.errors == []
    axis = watched.provenance.axes(result)[-1]
    return formula(axis), terms(axis)


def test_the_books_mistake() -> None:
    watched, _ = followed(Book(), x=torch.randn(4, 1, 28, 28))
    assert watched.failed is not None
    axis = watched.provenance.axes(watched.failed[0])[1]
    assert formula(axis) == "1600 = 64 · 5 · 5"
    assert terms(axis) == (
        ("64", "`conv2.out_channels`"),
        ("5", "height: 28 → conv1 26 → pool 13 → conv2 11 → pool 5"),
        ("5", "width, likewise"),
    )
    fit = fitting(axis, 4096)
    assert fit is not None
    assert fit.text == "images of height and width 38 to 41"
    assert fit.sizes == {InputAxis("x", 2): 38, InputAxis("x", 3): 38}
    assert fitting(axis, 4097) is None


X = torch.randn(4, 6, 10)
PROGRAMS = [
    (lambda _, x: x, None, (("10", "`x[2]`"),)),
    (lambda _, x: torch.cat([x, x[..., :3]], -1), "13 = 10 + 3", (("10", "`x[2]`"), ("3", "a part of `x[2]` 10"))),
    (lambda _, x: x[..., 1:], "9 = 10 − 1", (("10", "`x[2]`"),)),
    (lambda _, x: x[..., :-1], "9 = 10 − 1", (("10", "`x[2]`"),)),
    (lambda _, x: x[..., :4], "4 = first 4 of 10", (("10", "`x[2]`"),)),
    (lambda _, x: x[..., ::3], "4 = 10[::3]", (("10", "`x[2]`"),)),
    (lambda _, x: x.chunk(2, -1)[0], "5 = 10 / 2", (("10", "`x[2]`"),)),
    (lambda _, x: x.view(4, 6, 2, 5), "5 = 10 / 2", (("10", "`x[2]`"),)),
    (lambda _, x: x.repeat(1, 1, 3), "30 = 10 · 3", (("10", "`x[2]`"), ("3", "given to `repeat`"))),
    (lambda _, x: x.unsqueeze(-1), None, (("1", "made by `unsqueeze`"),)),
    (lambda _, x: torch.nn.functional.pad(x, (1, 1)), None, (("12", "`x[2]`: 10 → pad 12"),)),
    (lambda _, x: x.unfold(1, 3, 2).permute(0, 2, 3, 1), None, (("2", "`x[1]`: 6 → unfold 2"),)),
    (lambda _, x: x.flatten(1).nonzero()[:, 0], None, (("240", "depends on values (nonzero)"),)),
]


@pytest.mark.parametrize(("program", "text", "explained"), PROGRAMS)
def test_one_operation(program: Any, text: str | None, explained: tuple[tuple[str, str], ...]) -> None:
    assert said(program, x=X) == (text, explained)


def test_layers_are_called_by_their_attributes() -> None:
    lstm = nn.LSTM(10, 8, bidirectional=True)
    assert said(lambda _, x: lstm(x)[0], lstm, x=X) == (
        "16 = 2 · 8",
        (("2", "directions"), ("8", "`hidden_size`")),
    )
    attention = nn.ModuleDict({"attn": nn.MultiheadAttention(10, 2)})
    assert said(lambda _, x: x @ attention["attn"].in_proj_weight.mT, attention, x=X) == (
        "30 = 3 · 10",
        (("3", "query, key and value"), ("10", "`attn.embed_dim`")),
    )
    plain = nn.Module()
    plain.register_parameter("scale", nn.Parameter(torch.ones(10, 3)))
    assert said(lambda _, x: x @ plain.scale, plain, x=X) == (None, (("3", "axis 1 of `scale`"),))


def test_inputs_of_one_name_are_told_apart() -> None:
    def program(_: Watched, x: Tensor, y: Tensor) -> Tensor:
        conv = nn.functional.conv2d
        weight = torch.ones(1, 1, 3, 3)
        return torch.cat([conv(x, weight).flatten(1), conv(y, weight).flatten(1)], 1)

    watched, result = watch(program, x=torch.randn(1, 1, 5, 4), y=torch.randn(1, 1, 6, 3))
    axis = watched.provenance.axes(result)[1]
    assert formula(axis) == "10 = 6 + 4"
    assert terms(axis) == (
        ("6", "height of `x` 3 · width of `x` 2"),
        ("4", "height of `y` 4"),
    )


def test_a_sequence_would_fit_by_its_own_length() -> None:
    watched = Watched()
    watched.provenance.given("x", X, ("batch", "seq", "dim"))
    with watched:
        longer = torch.cat([X[:, :1], X], 1)
    axis = watched.provenance.axes(longer)[1]
    fit = fitting(axis, 21)
    assert fit is not None
    assert terms(axis) == (("1", "a part of seq of `x` 6"), ("6", "seq of `x`"))
    assert terms(axis, {InputAxis("x", 1): "time"})[1] == ("6", "time of `x`")
    assert (fit.text, fit.sizes) == ("`x` of seq 20", {InputAxis("x", 1): 20})


def test_unnamed_axes_are_counted() -> None:
    axis = Axis(10, Kind.INPUT, "x[1]", source=InputAxis("x", 1))
    fit = fitting(axis, 7)
    assert fit is not None
    assert fit.text == "`x` of size 7 in axis 1"
    assert fitting(axis, 1025) is None


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.integers(1, 30))
def test_sizes_that_fit_are_sizes_that_torch_makes_fit(side: int, kernel: int, stride: int, wanted: int) -> None:
    def program(_: Watched, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, kernel, stride)

    watched, result = watch(program, x=torch.zeros(1, 1, side, side))
    if result is None:
        return
    axis = watched.provenance.axes(result)[2]
    fit = fitting(axis, wanted)
    assert fit is not None
    side = fit.sizes[InputAxis("x", 2)]
    assert nn.functional.max_pool2d(torch.zeros(1, 1, side, side), kernel, stride).shape[2] == wanted
