"""Formulas of sizes, as text and as functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorscope.live.rehearsal.symbols import Symbols


def sizes(**examples: int) -> tuple[Symbols, list]:
    symbols = Symbols()
    return symbols, [symbols.size(name, example) for name, example in examples.items()]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda h, w: h, "h"),
        (lambda h, w: h - 2, "h-2"),
        (lambda h, w: h // 2 - 1, "h//2-1"),
        (lambda h, w: (h // 2 - 5) // 2 + 1, "(h//2-5)//2+1"),
        (lambda h, w: (h + 1) * (w // 4) * 64, "64*(h+1)*(w//4)"),
        (lambda h, w: h * w + h, "h*w+h"),
        (lambda h, w: h % 3, "h%3"),
        (lambda h, w: h * h, "h**2"),
        (lambda h, w: 2 * h - w, "2*h-w"),
    ],
)
def test_a_formula_reads_as_one_would_write_it(make, text: str) -> None:
    symbols, (h, w) = sizes(h=28, w=37)
    said, value = symbols.text(make(h, w).node.expr)
    assert said == text
    assert value is not None
    assert eval(said, {"h": 50, "w": 91}) == value({"h": 50, "w": 91}) == make(50, 91)


def test_a_number_reads_as_nothing() -> None:
    symbols, (h,) = sizes(h=28)
    assert symbols.text(7) == ("", None)
    assert symbols.text((h - h + 3).node.expr if not isinstance(h - h + 3, int) else 3) == ("", None)


def test_a_size_that_was_compared_with_a_number_becomes_one() -> None:
    symbols, (h,) = sizes(h=28)
    assert h == 28
    assert symbols.text(h.node.expr) == ("", None)
    assert [str(condition.text) for condition in symbols.conditions() if condition.equates] == ["h = 28"]


def test_conditions_hold_for_the_sizes_they_were_decided_with_and_tell_others_apart() -> None:
    symbols, (seq, length) = sizes(seq=7, length=14)
    assert bool(2 * seq == length)
    assert not seq > 100
    held = symbols.conditions()
    assert all(condition.holds({"seq": 7, "length": 14}) for condition in held)
    assert all(condition.holds({"seq": 9, "length": 18}) for condition in held)
    assert not all(condition.holds({"seq": 9, "length": 19}) for condition in held)
    assert any(condition.uses == ("seq", "length") and condition.equates for condition in held)


def test_equal_examples_and_ones_stay_apart() -> None:
    symbols, (a, b, one) = sizes(a=4, b=4, one=1)
    assert [symbols.text(size.node.expr)[0] for size in (a, b, one)] == ["a", "b", "one"]


LAYERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=4)


@given(LAYERS, st.integers(64, 96), st.integers(100, 300))
def test_formulas_of_convolutions_give_the_sizes_for_other_sizes_too(
    layers: list[tuple[int, int, int]], example: int, other: int
) -> None:
    symbols = Symbols()
    symbol, number = symbols.size("n", example), other
    for kernel, stride, padding in layers:
        symbol = (symbol + 2 * padding - kernel) // stride + 1
        number = (number + 2 * padding - kernel) // stride + 1
    text, value = symbols.text(symbol.node.expr)
    assert value is not None
    assert value({"n": other}) == number == eval(text, {"n": other})
