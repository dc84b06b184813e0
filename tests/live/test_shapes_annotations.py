"""The bare shape decorator: contracts read from jaxtyping's annotations and from `Annotated`."""

# Dims in annotations look like forward references to a linter, and the fixture below brings in jaxtyping's names.
# ruff: noqa: F722, F821, UP037

from __future__ import annotations

import importlib
import re
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NotRequired, Optional, TypedDict, TypeVar, Union

import jaxtyping_twin
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from tensorscope import DimsError, ShapeError, shapes
from tensorscope.live.shapes import contract_of, fitted_of
from tensorscope.testing import arguments

if TYPE_CHECKING:
    import elsewhere

zeros = torch.zeros


@pytest.fixture(params=["jaxtyping", "jaxtyping_twin"], autouse=True)
def jaxtyping(request, monkeypatch):
    """Every test runs with the real annotations where they are installed, and with classes that carry the same."""
    module = pytest.importorskip(request.param)
    for name in ("Float", "Float32", "Int", "Int64", "Integer", "Bool", "Num", "Shaped"):
        monkeypatch.setitem(globals(), name, getattr(module, name))
    return module


def contract(function) -> str:
    return str(fitted_of(function).contract)


def title(call) -> str:
    with pytest.raises(ShapeError) as caught:
        call()
    return str(caught.value).partition("\n")[0]


# --- what is read ----------------------------------------------------------------------------------------------------


def test_annotations_are_a_contract():
    @shapes
    def pooled(
        x: Float[Tensor, "batch seq dim"], mask: Bool[Tensor, "batch seq"] | None = None, scale: float = 1.0
    ) -> tuple[Float[Tensor, "batch dim"], ...]:
        return (x.sum(1) * scale,)

    assert contract(pooled) == "x: float[batch seq dim], mask: bool[batch seq] -> *: float[batch dim]"
    assert pooled(zeros(2, 3, 4))[0].shape == (2, 4)
    assert pooled(zeros(2, 3, 4), None, 2.0)[0].shape == (2, 4)
    assert "axis 1 of `mask` is 4 and takes `seq` = 3" in title(lambda: pooled(zeros(2, 3, 4), zeros(2, 4) > 0))
    assert "`mask` is float32 and takes bool" in title(lambda: pooled(zeros(2, 3, 4), zeros(2, 3)))


FORMS = [
    ("Float[Tensor, 'batch 3 #seq *rest']", "float[batch 3 #seq *rest]"),
    ("Float32[Tensor, '']", "float32[]"),
    ("Integer[Tensor, 'a']", "integer[a]"),
    ("Shaped[Tensor, 'a ...']", "a ..."),
    ("Num[Tensor, 'a a+1 rows=4']", "num[a a+1 rows=4]"),
    ("Float[nn.Parameter, 'a']", "float[a]"),
    ("Float[Float[Tensor, 'b'], 'a']", "float[a b]"),
    ("Float[Tensor, 'a ?tree {n} min(a,3)']", "float[a _ _ _]"),
    ("Annotated[Tensor, 'batch dim']", "batch dim"),
    ("Annotated[Tensor, 'int64[batch seq]']", "int64[batch seq]"),
    ("Annotated[Float[Tensor, 'a'], 'what it is for']", "float[a]"),
    ("Annotated[Tensor, 7, 'a']", "a"),
    ("Optional[Float[Tensor, 'a']]", "float[a]"),
    ("Int[Tensor | None, 'a']", "int[a]"),
    ("Union[Float[Tensor, 'a'], Int[Tensor, 'a b']]", "float[a] | int[a b]"),
    ("Float[Tensor, 'a'] | float", "float[a]"),
    ("tuple[Float[Tensor, 'a'], int, Int[Tensor, 'b']]", "(float[a], ..., int[b])"),
    ("list[tuple[Float[Tensor, 'a'], Float[Tensor, 'b']]]", "*x: (float[a], float[b])"),
    ("dict[str, list[Float[Tensor, 'a']]]", "x.*.*: float[a]"),
    ("typing.Sequence[Float[Tensor, 'a']]", "*x: float[a]"),
    ("Halves", "x.first: float[a], x.second: float[a]"),
    ("Pair", "x.left: float[a], x.right.first: float[a], x.right.second: float[a]"),
    ("Scores", "x.logits: float[batch classes], x.loss: float[]"),
    ("Bounded", "float[a]"),
    ("'Float[Tensor, \"a\"]'", "float[a]"),
]


@dataclass
class Halves:
    first: Float[Tensor, "a"]
    second: Float[Tensor, "a"]
    note: str = ""
    kind: typing.ClassVar[int] = 3


class Pair(NamedTuple):
    left: Float[Tensor, "a"]
    right: Halves


class Scores(TypedDict):
    logits: Float[Tensor, "batch classes"]
    loss: NotRequired[Float[Tensor, ""]]


Bounded = TypeVar("Bounded", bound="Float[Tensor, 'a']")


@pytest.mark.parametrize(("annotation", "said"), FORMS)
def test_each_form_of_annotation_is_read(annotation, said):
    def function(x):
        return x

    function.__annotations__ = {"x": annotation}
    assert contract(shapes(function)) == (said if said.startswith(("x.", "*x")) else f"x: {said}")


def test_a_union_with_any_tensor_is_not_checked():
    @shapes
    def loose(x: Float[Tensor, "a"] | Tensor, y: Float[Tensor, "a"] | Any, z: Float[Tensor, "a"]):
        return x

    assert contract(loose) == "z: float[a]"


def test_other_libraries_arrays_are_not_checked():
    @shapes
    def mixed(x: Float[np.ndarray, "a"], y: Float[Tensor | np.ndarray, "a b"]):
        return y

    assert contract(mixed) == "y: float[a b]"
    assert mixed(3, np.zeros(3)).shape == (3,)
    assert "`y` has 1 axis" in title(lambda: mixed(3, zeros(3)))


def test_kinds_of_elements_of_the_users_own_are_read(jaxtyping):
    class Half(jaxtyping.AbstractDtype):
        dtypes: typing.ClassVar = ["float16", re.compile("bfloat.*")]

    @shapes
    def halved(x: Half[Tensor, "batch"]):
        return x

    assert halved(zeros(2, dtype=torch.bfloat16)).shape == (2,)
    assert title(lambda: halved(zeros(2))) == (
        "`test_kinds_of_elements_of_the_users_own_are_read.<locals>.halved`: `x` is float32 and takes Half"
    ).replace("test_kinds_of_elements_of_the_users_own_are_read.<locals>.", "")


# --- what is checked -------------------------------------------------------------------------------------------------


def test_what_is_annotated_must_be_a_tensor():
    @shapes
    def strict(x: Float[Tensor, "batch"], y: Float[Tensor, "batch"] | None, z: Float[Tensor, ""] = 1.0):
        return x

    assert strict(zeros(2), None).shape == (2,)
    assert strict(zeros(2), None, 3).shape == (2,)
    assert title(lambda: strict(None, None)) == "`strict`: `x` is None and takes a tensor"
    assert title(lambda: strict(np.zeros(2), None)) == "`strict`: `x` is a numpy array and takes a tensor"
    assert title(lambda: strict(zeros(2), [1.0])) == "`strict`: `y` is a list of 1 and takes a tensor"
    assert "`z` has 1 axis" in title(lambda: strict(zeros(2), None, zeros(1)))


def test_one_of_several_has_to_fit():
    @shapes
    def either(x: Float[Tensor, "batch"], y: Int[Tensor, "batch"] | Float[Tensor, "batch classes"]):
        return x

    assert either(zeros(2), torch.tensor([0, 1])).shape == (2,)
    assert either(zeros(2), zeros(2, 5)).shape == (2,)
    assert title(lambda: either(zeros(2), zeros(3, 5))) == (
        "`either`: axis 0 of `y` is 3 and takes `batch` = 2 (from `x`)"
    )
    assert title(lambda: either(zeros(2), torch.tensor([0]))) == (
        "`either`: axis 0 of `y` is 1 and takes `batch` = 2 (from `x`)"
    )
    assert title(lambda: either(zeros(2), None)) == "`either`: `y` is None and takes a tensor"


def test_fields_of_classes_are_checked():
    @shapes
    def paired(pair: Pair, *halves: Halves, **named: Int[Tensor, "a"]) -> Scores:
        return {"logits": pair.left[None]}

    a = zeros(3)
    assert paired(Pair(a, Halves(a, a)), Halves(a, a))["logits"].shape == (1, 3)
    assert "axis 0 of `pair.right.second` is 4 and takes `a` = 3 (from `pair.left`)" in title(
        lambda: paired(Pair(a, Halves(a, zeros(4))))
    )
    assert "`halves[1].first` is int64 and takes float" in title(
        lambda: paired(Pair(a, Halves(a, a)), Halves(a, a), Halves(a.long(), a))
    )
    assert '`named["k"]` is float32 and takes int' in title(lambda: paired(Pair(a, Halves(a, a)), k=a))


def test_a_class_that_holds_its_like_is_read_once():
    @dataclass
    class Node:
        value: Float[Tensor, "n"]
        next: Optional["Node"] = None  # noqa: UP045

    @shapes
    def walk(node: Node):
        return node

    assert contract(walk) == "node.value: float[n]"
    assert walk(Node(zeros(2), Node(zeros(3)))).value.shape == (2,)


def test_a_module_is_read_by_its_forward():
    @shapes
    class Scale(nn.Module):
        def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
            return x * 2

    assert str(contract_of(Scale())) == "x: float[*batch dim] -> float[*batch dim]"
    assert Scale()(zeros(2, 3)).shape == (2, 3)
    assert "`x` is int64" in title(lambda: Scale()(zeros(2, 3).long()))
    assert fx.symbolic_trace(Scale())(zeros(2, 3)).shape == (2, 3)


# --- what cannot be resolved -----------------------------------------------------------------------------------------


def test_annotations_that_cannot_be_resolved_are_not_checked():
    @shapes
    def partly(x: Float[Tensor, "batch"], y: elsewhere.Thing, z: "NotThere", w: list["NotThere"]) -> "NotThere":
        return x

    assert contract(partly) == "x: float[batch]"
    assert partly(zeros(2), 1, 2, 3).shape == (2,)


def test_arithmetic_over_a_name_that_only_an_unresolved_annotation_binds_is_let_through():
    @shapes
    def partly(x: elsewhere.Thing, y: Float[Tensor, "2*n"]):
        return y

    assert partly(1, zeros(3)).shape == (3,)
    with pytest.raises(DimsError, match="computes with `n`, which has no size there"):

        @shapes
        def wholly(y: Float[Tensor, "2*n"]):
            return y


def test_names_that_only_type_checkers_import_are_known(monkeypatch):
    for name in ("Float", "Bool", "Tensor"):
        monkeypatch.delitem(globals(), name)

    @shapes
    def unaware(x: Float[Tensor, "batch dim"], mask: Bool[Tensor | None, "batch"] = None) -> list[Float[Tensor, "dim"]]:
        return list(x)

    assert contract(unaware) == "x: float[batch dim], mask: bool[batch] -> *: float[dim]"


NOTHING = {
    "no annotation": (
        lambda x: x,
        """\
`<lambda>` has no annotation that declares a tensor's dims

hint: write `@shapes("batch seq dim -> …")`, or annotate: `x: Annotated[Tensor, "batch seq dim"]`""",
    ),
    "annotations without dims": (
        lambda: importlib.import_module("torch.nn.functional").normalize,
        """\
`normalize` has no annotation that declares a tensor's dims

hint: write `@shapes("batch seq dim -> …")`, or annotate: `x: Annotated[Tensor, "batch seq dim"]`""",
    ),
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_function_that_declares_nothing_is_refused(case):
    function, text = NOTHING[case]
    with pytest.raises(DimsError) as caught:
        shapes(function() if case.startswith("annotations") else function)
    assert str(caught.value) == text


def test_a_function_whose_annotations_cannot_be_resolved_is_refused():
    def lost(x: elsewhere.Thing) -> elsewhere.Thing:
        return x

    with pytest.raises(DimsError) as caught:
        shapes(lost)
    assert str(caught.value) == (
        "`lost` has no annotation that declares a tensor's dims\n  unresolved  `elsewhere.Thing`\n\n"
        "hint: import what the annotations name before the function is defined, and not for type checkers alone"
    )


def test_dims_that_cannot_be_read_are_refused():
    with pytest.raises(DimsError, match="cannot be read at `dim-`"):

        @shapes
        def wrong(x: Annotated[Tensor, "batch head dim-"]):
            return x


# --- oracle ----------------------------------------------------------------------------------------------------------

entries = st.sampled_from(["a", "b", "#a", "#b", "3", "_", "2*a", "a+b", "*r", "*#r", "..."])
dims = st.lists(entries, max_size=4).map(" ".join)
some_shapes = st.lists(st.integers(1, 4), max_size=4)


@settings(suppress_health_check=list(HealthCheck), max_examples=150)
@given(st.lists(dims, min_size=2, max_size=2), st.lists(some_shapes, min_size=2, max_size=2), st.data())
def test_a_call_passes_exactly_if_jaxtyping_lets_it(texts, sizes, data):
    real = pytest.importorskip("jaxtyping")

    def function(x, y):
        return "ran"

    try:
        hints = [real.Float[Tensor, text] for text in texts]
        function.__annotations__ = dict(zip("xy", hints, strict=True))
        checked = shapes(function)
        fitting = data.draw(arguments(checked))
    except ValueError:  # dims that one of the two does not read
        return
    values = [
        data.draw(st.sampled_from([zeros(size), fitted])) for size, fitted in zip(sizes, fitting.args, strict=True)
    ]
    with real.jaxtyped("context"):
        try:
            theirs = all(isinstance(value, hint) for value, hint in zip(values, hints, strict=True))
        except Exception:  # arithmetic over a name that an axis of one left open
            return
    if theirs:
        assert checked(*values) == "ran"
    else:
        title(lambda: checked(*values))


def test_the_twin_carries_what_jaxtyping_does(jaxtyping):
    for name in ("Float", "Int", "Bool", "Num", "Float32"):
        real, twin = getattr(jaxtyping, name)[Tensor, " a b"], getattr(jaxtyping_twin, name)[Tensor, " a b"]
        assert set(real.dtypes) == set(twin.dtypes)
        assert (real.array_type, real.dim_str) == (twin.array_type, twin.dim_str)
        assert real.dtype.__name__ == twin.dtype.__name__
    assert typing.get_origin(jaxtyping.Int[Tensor | None, "a"]) is Union
