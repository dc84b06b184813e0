"""The grammar of contracts beyond lone tensors: dtypes, tuples, parts by name, any number of tensors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dims_texts, names

from tensorscope.contracts import (
    DTYPES,
    Besides,
    Contract,
    Dtype,
    Each,
    Either,
    Fields,
    Item,
    One,
    Several,
    parse_contract,
    parse_tensor,
    tensors_of,
)
from tensorscope.dims import parse_dims
from tensorscope.errors import DimsError

ANY, NONE = Besides.ANYTHING, Besides.NONE


def one(dims: str, besides: Besides = ANY, dtype: str = "") -> One:
    return One(parse_dims(dims), Dtype(dtype, DTYPES[dtype]) if dtype else None, besides)


IDS_AND_MASK = Fields((("ids", one("a")), ("mask", one("c"))), ANY)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("float[batch dim]", one("batch dim", dtype="float")),
        ("bfloat16 [ batch ]", one("batch", dtype="bfloat16")),
        ("int[]", one("", dtype="int")),
        ("bool", one("bool")),
        ("(batch dim, batch)", Several((one("batch dim"), one("batch")), ANY)),
        ("(batch dim,)", Several((one("batch dim"),), ANY)),
        (
            "(a, (int[b], (c,)))",
            Several((one("a"), Several((one("b", dtype="int"), Several((one("c"),), ANY)), ANY)), ANY),
        ),
        ("(a+1)*2", one("(a+1)*2")),
        ("(a+1) b", one("(a+1) b")),
    ],
)
def test_each_form_of_an_entry_is_read(text, what):
    assert parse_contract(f"a b, {text}").inputs[1] == Item(what)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("b.ids: a, b.mask: c", [Item(Fields((("ids", one("a")), ("mask", one("c"))), ANY), "b")]),
        (
            "b.ids: a, x: d, b.mask: c",
            [Item(Fields((("ids", one("a")), ("mask", one("c"))), ANY), "b"), Item(one("d"), "x")],
        ),
        ("b.x.0: a", [Item(Fields((("x", Fields((("0", one("a")),), ANY)),), ANY), "b")]),
        ("*xs: a", [Item(Each(one("a"), ANY), "xs")]),
        ("**xs: a", [Item(Each(one("a"), ANY), "xs")]),
        ("xs.*: a", [Item(Each(one("a"), ANY), "xs")]),
        ("xs.*.ids: a", [Item(Each(Fields((("ids", one("a")),), ANY), ANY), "xs")]),
        ("b.pixel-values: a", [Item(Fields((("pixel-values", one("a")),), ANY), "b")]),
    ],
)
def test_parts_of_one_parameter_are_joined(text, items):
    assert parse_contract(text).inputs == tuple(items)


def test_the_result_is_in_one_piece():
    assert parse_contract("a").result is None
    assert parse_contract("a ->").result == one("", Besides.NOTHING)
    assert parse_contract("-> a b").result == one("a b", Besides.NOTHING)
    assert (
        parse_contract("-> a, b").result
        == parse_contract("-> (a, b)").result
        == Several((one("a", NONE), one("b", NONE)))
    )
    assert parse_contract("-> (a,)").result == Several((one("a", NONE),))
    assert parse_contract("-> *: a").result == Each(one("a", NONE))
    assert parse_contract("-> logits: a, 1: b").result == Fields((("logits", one("a", NONE)), ("1", one("b", NONE))))


@pytest.mark.parametrize(
    "text",
    [
        "float[batch seq dim], mask: bool[seq seq] -> float[batch seq dim]",
        "x: batch, state: (layers batch hidden, layers batch hidden) -> batch, (batch, batch)",
        "b.ids: int64[batch seq], b.mask: bool[batch seq], *xs: batch -> logits: batch, loss:",
        "xs.*.ids: a, x.0: b c -> *: a",
        "(a,), (, a) -> (a,)",
        "-> *.h: a",
    ],
)
def test_reading_what_was_written_gives_the_same_contract(text):
    contract = parse_contract(text)
    assert str(contract) == text
    assert parse_contract(str(contract)) == contract


def test_what_annotations_declare_can_be_written_too():
    either = Either((one("a"), one("b c")))
    assert str(Item(either, "x")) == "x: a | b c"
    assert str(Item(Several((Fields((("h", one("a")),)), one("b"))), "x")) == "x.0.h: a, x.1: b"


def test_a_tensor_alone_is_read_like_an_entry():
    assert parse_tensor("float[batch]") == one("batch", Besides.NOTHING, "float")
    with pytest.raises(DimsError, match="not a dtype"):
        parse_tensor("floot[batch]")


def test_every_declared_tensor_is_found_in_order():
    contract = parse_contract("x: a, b.ids: c, *xs: (d, e)")
    assert [str(tensor) for item in contract.inputs for tensor in tensors_of(item.what)] == ["a", "c", "d", "e"]
    assert [str(item.dims) for item in contract.inputs] == ["a", "", ""]


def test_words_for_dtypes_are_jaxtypings():
    assert set(DTYPES["integer"]) == {*DTYPES["int"], *DTYPES["uint"]}
    assert set(DTYPES["num"]) == {*DTYPES["real"], *DTYPES["complex"]}
    assert DTYPES["float"][0] == "float32"
    assert DTYPES["int"][0] == "int64"
    assert all(DTYPES[name] == (name,) for name in DTYPES["num"])


REFUSED = {
    "(batch, seq": """\
dims cannot be read at `(batch, seq`: a bracket is not closed
  in  (batch, seq

hint: a tuple is `(batch dim, batch)`, a dtype `float[batch dim]`""",
    "batch], seq": """\
dims cannot be read at `batch], seq`: a closing bracket without an opening one
  in  batch], seq

hint: a tuple is `(batch dim, batch)`, a dtype `float[batch dim]`""",
    "long[batch]": """\
dims cannot be read at `long`: not a dtype
  in  long[batch]

hint: did you mean `int64`?""",
    "Float[batch]": """\
dims cannot be read at `Float`: not a dtype
  in  Float[batch]

hint: did you mean `float`?""",
    "qqq[batch]": """\
dims cannot be read at `qqq`: not a dtype
  in  qqq[batch]

hint: write `float[batch dim]`, `int64[batch]` or `bool[batch]`""",
    "x: a, x: b": """\
dims cannot be read at `b`: it is declared twice
  in  x: a, x: b

hint: write each tensor once""",
    "x.*: a, x.k: b": """\
dims cannot be read at `b`: `*` stands for every entry, so no other can be named
  in  x.*: a, x.k: b

hint: write each tensor once""",
    "-> a, k: b": """\
dims cannot be read at `a`: some parts of the result have names and this one has none
  in  -> a, k: b

hint: name every part of the result, or none: `logits: batch classes, loss:`""",
    "-> *: a, *.b: c": """\
dims cannot be read at `c`: it is declared twice
  in  -> *: a, *.b: c

hint: write each tensor once""",
    "x[0]: a": """\
dims cannot be read at `x[0]: a`: what stands before `:` is not a parameter's name
  in  x[0]: a

hint: write `mask: seq seq`""",
    "-> *xs: a": """\
dims cannot be read at `*xs: a`: what stands before `:` is not a parameter's name
  in  -> *xs: a

hint: write `mask: seq seq`""",
    "x: (a, 2*n)": """\
`2*n` computes with `n`, which has no size there
  in     x: (a, 2*n)
  sizes  a

hint: let an axis of this or an earlier tensor be `n`""",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_read_is_refused_with_a_way_out(text):
    with pytest.raises(DimsError) as caught:
        parse_contract(text)
    assert str(caught.value) == REFUSED[text]


# --- laws ------------------------------------------------------------------------------------------------------------

tensor_texts = st.one_of(dims_texts(), st.builds("{}[{}]".format, st.sampled_from(sorted(DTYPES)), dims_texts()))


def tuples(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({', '.join(parts)},)")


places = st.builds("{}{}".format, names, st.sampled_from(["", ".ids", ".0.k", ".*", ".*.k"]))
entry_texts = st.builds("{}: {}".format, places, st.recursive(tensor_texts, tuples, max_leaves=4))


@settings(max_examples=25)
@given(st.lists(entry_texts, max_size=3).map(", ".join))
def test_any_contract_that_can_be_read_reads_back_as_it_is_written(text):
    try:
        contract = parse_contract(text)
    except DimsError:
        return
    assert parse_contract(str(contract)) == contract


@given(st.text("ab2 *#_=+-/().,:[]>float", max_size=20))
def test_any_text_is_read_or_refused_in_the_house_format(text):
    try:
        outcome = parse_contract(text)
    except DimsError as error:
        outcome = error
    assert isinstance(outcome, Contract) or (outcome.hint and "in" in outcome.facts)
