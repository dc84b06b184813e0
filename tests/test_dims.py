"""Dims and contracts: what is read, what fits, and what is said about what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dims_texts

from tensorscope.contracts import parse_contract
from tensorscope.dims import Computed, Dims, Fixed, Free, Mismatch, Name, Rest, Sizes, bind, parse_dims
from tensorscope.errors import DimsError

# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("", ()),
        ("batch 3", (Name("batch"), Fixed(3))),
        ("height=28 _ _width", (Fixed(28, "height"), Free(), Free("width"))),
        ("... dim", (Rest(), Name("dim"))),
        ("*batch #seq *#x", None),
        ("*#batch #seq", (Rest("batch", broadcast=True), Name("seq", broadcast=True))),
        ("#3 rows=#4", (Fixed(3, broadcast=True), Fixed(4, "rows", broadcast=True))),
        ("2*dim seq-1", (Computed("2*dim"), Computed("seq-1"))),
        ("hidden=4*dim #dim//2", (Computed("4*dim", "hidden"), Computed("dim//2", broadcast=True))),
        ("(a+b)*2", (Computed("(a+b)*2"),)),
        ("*_batch", (Rest(),)),
    ],
)
def test_each_form_of_the_grammar_is_read(text, axes):
    if axes is None:
        with pytest.raises(DimsError):
            parse_dims(text)
    else:
        assert parse_dims(text) == Dims(axes)


@given(dims_texts())
def test_reading_what_was_written_gives_the_same_dims(text):
    dims = parse_dims(text)
    assert parse_dims(str(dims)) == dims
    assert str(parse_dims(str(dims))) == str(dims)


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_in_the_house_format(text):
    try:
        outcome = parse_dims(text)
    except DimsError as error:
        outcome = error
    assert isinstance(outcome, Dims) or (outcome.hint and outcome.facts["in"] == text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "batch seq dim, seq seq -> batch seq dim",
        "batch dim, batch ->",
        "-> batch",
        "batch dim",
        "x: batch dim, mask: batch -> batch, batch dim",
        "->",
        "batch, -> batch,",
        "scale: -> batch",
    ],
)
def test_reading_what_was_written_gives_the_same_contract(text):
    contract = parse_contract(text)
    assert str(contract) == text
    assert parse_contract(str(contract)) == contract


def test_a_contract_without_an_arrow_says_nothing_of_the_result():
    assert parse_contract("batch dim").outputs is None
    assert parse_contract("batch dim ->").outputs == parse_contract("->").outputs != ()


REFUSED = {
    "(batch seq)": """\
dims cannot be read at `(batch`: not a name, an integer or arithmetic
  in  (batch seq)

hint: axes are separated by spaces, such as `batch seq dim`, `batch 3 height width` or `*batch seq 2*dim`""",
    "batch -1": """\
dims cannot be read at `-1`: not a name, an integer or arithmetic
  in  batch -1

hint: no axis has a negative size; an axis of any size is `_`""",
    "batch seq - 1": """\
dims cannot be read at `-`: not a name, an integer or arithmetic
  in  batch seq - 1

hint: arithmetic takes no spaces: `seq-1`, `2*dim`""",
    "batch dim/2": """\
dims cannot be read at `dim/2`: not a name, an integer or arithmetic
  in  batch dim/2

hint: axes divide without a remainder: `dim//heads`""",
    "batch → classes": """\
dims cannot be read at `→`: not a name, an integer or arithmetic
  in  batch → classes

hint: the arrow between inputs and outputs is `->`""",
    "?tree": """\
dims cannot be read at `?tree`: not a name, an integer or arithmetic
  in  ?tree

hint: `?name` speaks about trees of tensors, which a contract has none of; write the name alone""",
    "a -> b -> c": """\
dims cannot be read at `->`: more than one arrow
  in  a -> b -> c

hint: write inputs `->` outputs, once""",
    "... *batch": """\
dims cannot be read at `*batch`: more than one `...` or `*name`
  in  ... *batch

hint: keep one of them: a shape does not tell where one ends and the next begins""",
    "*3": """\
dims cannot be read at `*3`: `*` takes a name
  in  *3

hint: write `*batch` for any number of axes, `...` if they need no name""",
    "**batch": """\
dims cannot be read at `**batch`: `**` means nothing
  in  **batch

hint: write `*batch`, `#seq` or `*#batch`""",
    "a, b c: d": """\
dims cannot be read at `b c: d`: what stands before `:` is not a parameter's name
  in  a, b c: d

hint: write `mask: seq seq`""",
    "3=4": """\
dims cannot be read at `3=4`: what stands before `=` is not a name
  in  3=4

hint: write `height=28`""",
    "batch head-dim -> batch": """\
`head-dim` computes with `head`, which has no size there
  in     batch head-dim -> batch
  sizes  batch

hint: let an axis of this or an earlier tensor be `head`; one axis of two words is `head_dim`""",
    "2*dim -> dim": """\
`2*dim` computes with `dim`, which has no size there
  in     2*dim -> dim
  sizes  none yet

hint: let an axis of this or an earlier tensor be `dim`""",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_read_is_refused_with_a_way_out(text):
    with pytest.raises(DimsError) as caught:
        parse_contract(text)
    assert str(caught.value) == REFUSED[text]


@pytest.mark.parametrize("text", ["__import__('os')", "f(x)", "a.b", "a[0]", "1.5", "2*True", "lambda:a", "a**b", "~a"])
def test_nothing_but_arithmetic_is_let_through(text):
    with pytest.raises(DimsError):
        parse_dims(text)


# --- binding ---------------------------------------------------------------------------------------------------------


def bound(text: str, *shapes: tuple[int, ...]) -> Sizes:
    """Sizes after binding one shape per tensor, all of which must fit."""
    sizes: Sizes = {}
    for item, shape in zip(text.split(","), shapes, strict=True):
        assert bind(parse_dims(item), shape, sizes) is None
    return sizes


def mismatch(text: str, *shapes: tuple[int, ...]) -> Mismatch | None:
    """The first contradiction when binding one shape per tensor."""
    sizes: Sizes = {}
    found = (bind(parse_dims(item), shape, sizes) for item, shape in zip(text.split(","), shapes, strict=True))
    return next((each for each in found if each), None)


def test_a_name_has_one_size():
    assert bound("batch seq, seq seq", (4, 5), (5, 5)) == {"batch": 4, "seq": 5}
    assert mismatch("batch seq, seq seq", (4, 5), (5, 7)) == Mismatch(7, 5, 1, "seq")


def test_an_integer_is_the_only_size_that_fits_it():
    assert bound("batch height=28", (4, 28)) == {"batch": 4}
    assert mismatch("batch height=28", (4, 27)) == Mismatch(27, 28, 1, "height=28")


def test_the_number_of_axes_has_to_fit():
    assert mismatch("batch seq", (4,)) == Mismatch(1, 2)
    assert mismatch("batch ... dim", (4,)) == Mismatch(1, 2)
    assert mismatch("", (1,)) == Mismatch(1, 0)
    assert bound("batch ... dim", (4, 5)) == {"batch": 4, "dim": 5}


def test_a_sharp_lets_an_axis_of_one_pass_without_binding_it():
    assert bound("#seq, seq", (1,), (5,)) == {"seq": 5}
    assert bound("seq, #seq", (5,), (1,)) == {"seq": 5}
    assert mismatch("seq, #seq", (5,), (3,)) == Mismatch(3, 5, 0, "#seq")
    assert mismatch("#seq, seq", (5,), (1,)) == Mismatch(1, 5, 0, "seq")
    assert bound("#3", (1,)) == {}


def test_a_starred_name_stands_for_the_same_axes_everywhere():
    assert bound("*batch dim, *batch", (2, 3, 4), (2, 3)) == {"*batch": (2, 3), "dim": 4}
    assert bound("*batch dim", (4,)) == {"*batch": (), "dim": 4}
    assert mismatch("*batch dim, *batch", (2, 3, 4), (3,)) == Mismatch((3,), (2, 3), 0, "*batch")


def test_starred_axes_with_a_sharp_broadcast_together():
    assert bound("*#batch, *#batch, *batch", (3, 1), (4,), (3, 4)) == {"*#batch": (3, 4), "*batch": (3, 4)}
    assert mismatch("*#batch, *#batch", (3,), (4,)) == Mismatch((4,), (3,), 0, "*#batch")
    assert mismatch("*batch, *#batch", (4,), (3, 4)) == Mismatch((3, 4), (4,), 0, "*#batch")
    assert mismatch("*#batch, *batch", (3, 4), (4,)) == Mismatch((4,), (3, 4), 0, "*batch")


def test_arithmetic_uses_what_is_bound_wherever_it_stands():
    assert bound("seq-1 seq", (4, 5)) == {"seq": 5}
    assert mismatch("seq-1 seq", (5, 5)) == Mismatch(5, 4, 0, "seq-1")
    assert bound("dim heads, dim//heads (dim+heads)%5", (12, 3), (4, 0)) == {"dim": 12, "heads": 3}
    assert mismatch("dim, batch 2*dim", (6,), (1, 13)) == Mismatch(13, 12, 1, "2*dim")


def test_arithmetic_that_has_no_value_is_not_checked():
    assert bound("2*dim", (7,)) == {}  # `dim` belongs to a tensor that was left out
    assert bound("dim heads dim//heads", (7, 0, 3)) == {"dim": 7, "heads": 0}


def test_sizes_that_are_no_integers_are_neither_compared_nor_learnt():
    class Symbol:
        def __eq__(self, other):
            raise AssertionError("compared")

        __hash__ = None

    assert bound("batch 3 *rest, batch", (Symbol(), Symbol(), Symbol()), (4,)) == {"batch": 4}


def test_every_axis_has_a_name_or_an_empty_one():
    dims = parse_dims("batch height=28 3 _ _free #seq 2*seq hidden=4*seq")
    assert dims.names(8) == ("batch", "height", "", "", "free", "seq", "2*seq", "hidden")
    assert dims.names(2) == ("", "")
    assert parse_dims("*batch dim").names(1) == ("dim",)
    assert parse_dims("*batch dim").names(2) == ("batch", "dim")
    assert parse_dims("time *batch dim").names(4) == ("time", "batch0", "batch1", "dim")
    assert parse_dims("... dim").names(3) == ("", "", "dim")


# --- laws ------------------------------------------------------------------------------------------------------------


@st.composite
def dims_with_shapes(draw):
    """Dims, a shape that fits them, and the entry behind each of its axes."""
    dims = parse_dims(draw(dims_texts()))
    sizes = {}
    for axis in dims.axes:
        if isinstance(axis, Name):
            sizes.setdefault(axis.name, draw(st.integers(0, 9)))
    shape, entries = [], []
    for axis in dims.axes:
        if isinstance(axis, Rest):
            rest = draw(st.lists(st.integers(0, 9), max_size=3))
            shape += rest
            entries += [axis] * len(rest)
            continue
        size = draw(st.integers(0, 9))
        if isinstance(axis, Name):
            size = sizes[axis.name]
        elif isinstance(axis, Fixed):
            size = axis.size
        elif isinstance(axis, Computed):
            value = axis.value(sizes)
            size = size if value is None else value
        if getattr(axis, "broadcast", False) and draw(st.booleans()):
            size = 1
        shape.append(size)
        entries.append(axis)
    return dims, tuple(shape), entries


@given(dims_with_shapes())
def test_a_shape_built_from_dims_fits_them(case):
    dims, shape, _ = case
    sizes: Sizes = {}
    assert bind(dims, shape, sizes) is None
    assert bind(dims, shape, sizes) is None  # and what was learnt does not speak against it
    assert len(dims.names(len(shape))) == len(shape)


@given(dims_with_shapes(), st.data())
def test_a_shape_with_one_size_altered_does_not_fit(case, data):
    dims, shape, entries = case
    exact = [axis for axis in entries if isinstance(axis, Name) and not axis.broadcast]
    known = {axis.name: size for axis, size in zip(entries, shape, strict=True) if axis in exact}
    telling = [
        i
        for i, axis in enumerate(entries)
        if (isinstance(axis, Fixed) and not axis.broadcast)
        or exact.count(axis) > 1
        or (isinstance(axis, Computed) and not axis.broadcast and axis.value(known) is not None)
    ]
    if telling:
        i = data.draw(st.sampled_from(telling))
        assert bind(dims, (*shape[:i], shape[i] + 1, *shape[i + 1 :]), {}) is not None


@given(dims_with_shapes())
def test_a_shape_with_an_axis_more_or_less_does_not_fit(case):
    dims, shape, _ = case
    if dims.rest is None:
        assert bind(dims, (*shape, 1), {}) is not None
        if shape:
            assert bind(dims, shape[1:], {}) is not None
