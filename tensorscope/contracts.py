"""Contracts: what the tensors that go into a function and come out of it have to do with each other.

    batch seq dim, mask: bool[seq seq] -> batch seq dim

Commas separate tensors, which are the function's parameters in their order. Nothing right of the arrow is a 0-d tensor;
without an arrow the result is not declared.

mask: seq seq         a parameter by its name
float[batch dim]      of a dtype: jaxtyping's words in lower case (bool uint int integer float complex inexact real num)
                      or one of torch's dtypes (float32 bfloat16 int64 …)
(batch dim, batch)    a tuple or list of that many; `(batch dim,)` of one
state.0: batch dim    a part of a tuple, dict, dataclass or other object, by position, key or attribute
layers.*: batch dim   every entry of a list, tuple or dict
*xs: batch dim        every one of `*xs` (or `**xs`), as `xs.*`

Right of the arrow several entries are a tuple of that many; `logits: batch classes` is a part of the result by key,
attribute or position, and `*: batch dim` every entry of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from tensorscope.dims import Computed, Dims, Name, parse_dims, unreadable
from tensorscope.errors import DimsError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BOOL = ("bool",)
_UINT = ("uint8", "uint16", "uint32", "uint64")
_INT = ("int8", "int16", "int32", "int64")
_FLOAT = (
    *("float32", "float64", "float16", "bfloat16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
)
_COMPLEX = ("complex64", "complex128")

# Word of a contract → the torch dtypes that it stands for, the usual one first.
DTYPES: dict[str, tuple[str, ...]] = {
    "bool": _BOOL,
    "uint": _UINT,
    "int": (*_INT[::-1],),
    "integer": (*_INT[::-1], *_UINT),
    "float": _FLOAT,
    "complex": _COMPLEX,
    "inexact": (*_FLOAT, *_COMPLEX),
    "real": (*_FLOAT, *_INT[::-1], *_UINT),
    "num": (*_FLOAT, *_INT[::-1], *_UINT, *_COMPLEX),
} | {name: (name,) for name in (*_UINT, *_INT, *_FLOAT, *_COMPLEX)}

_OTHER_WORDS = {"long": "int64", "double": "float64", "half": "float16", "floating": "float", "boolean": "bool"}
_TYPED = re.compile(r"(\w+)\s*\[(.*)\]", re.DOTALL)
_PLACE = re.compile(r"\*{0,2}[^\s.:,*()\[\]]+(\.([^\s.:,*()\[\]]+|\*))*|\*(\.([^\s.:,*()\[\]]+|\*))*")


class Besides(IntEnum):
    """What else may stand where something is declared."""

    NOTHING = 0
    NONE = 1  # None
    ANYTHING = 2  # whatever is no tensor


@dataclass(frozen=True, slots=True)
class Dtype:
    """A kind of element: its word, and the torch dtypes that it stands for, the usual one first."""

    word: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True, slots=True)
class One:
    """A tensor."""

    dims: Dims
    dtype: Dtype | None = None
    besides: Besides = Besides.NOTHING

    def __str__(self) -> str:
        return f"{self.dtype}[{self.dims}]" if self.dtype else str(self.dims)


@dataclass(frozen=True, slots=True)
class Several:
    """A tuple or list with one part after the other."""

    parts: tuple[What, ...]
    besides: Besides = Besides.NOTHING

    def __str__(self) -> str:
        texts = list(map(str, self.parts))
        ends = len(texts) == 1 or not texts[-1]  # a comma that makes it a tuple, or keeps a last scalar
        return f"({', '.join(texts)}{',' * ends})"


@dataclass(frozen=True, slots=True)
class Each:
    """A list or tuple (a dict if `keyed`, or if it is not annotated) of any length whose entries all look the same."""

    what: What
    besides: Besides = Besides.NOTHING
    keyed: bool = False

    def __str__(self) -> str:
        return f"entries {self.what}"


@dataclass(frozen=True, slots=True)
class Fields:
    """A dict, dataclass, named tuple or other object with named parts; `made_by` makes one from them."""

    parts: tuple[tuple[str, What], ...]
    besides: Besides = Besides.NOTHING
    made_by: type | None = None

    def __str__(self) -> str:
        return " and ".join(f"`{name}`" for name, _ in self.parts)


@dataclass(frozen=True, slots=True)
class Either:
    """One of several."""

    options: tuple[What, ...]
    besides: Besides = Besides.NOTHING

    def __str__(self) -> str:
        return " | ".join(map(str, self.options))


What = One | Several | Each | Fields | Either


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a contract: what it is and, if the contract says so, the parameter (or part of the result)."""

    what: What
    parameter: str = ""

    @property
    def dims(self) -> Dims:
        """Dims of a lone tensor; none of anything else."""
        return self.what.dims if isinstance(self.what, One) else Dims()

    def __str__(self) -> str:
        start = (self.parameter,) if self.parameter else ()
        return ", ".join(
            f"{_written(path)}: {what}".strip() if path else str(what) for path, what in _entries(self.what, start)
        )


@dataclass(frozen=True, slots=True)
class Contract:
    """What a function's tensors have to do with each other; `outputs` is None if nothing is said of them."""

    inputs: tuple[Item, ...]
    outputs: tuple[Item, ...] | None = None

    def __str__(self) -> str:
        sides = [self.inputs] if self.outputs is None else [self.inputs, self.outputs]
        return " -> ".join(", ".join(map(str, side)).strip() for side in sides).strip()

    @property
    def result(self) -> What | None:
        """What is returned, in one piece."""
        if not self.outputs:
            return None
        if any(item.parameter for item in self.outputs):
            return Fields(tuple((item.parameter, item.what) for item in self.outputs))
        return self.outputs[0].what if len(self.outputs) == 1 else Several(tuple(item.what for item in self.outputs))


def parse_contract(text: str) -> Contract:
    """Read a contract, such as `batch seq dim, mask: bool[seq seq] -> batch seq dim`.

    Raises:
        DimsError: the text does not follow the grammar, or computes with a name that nothing before it binds.
    """
    left, *right = text.split("->")
    if len(right) > 1:
        raise unreadable(text, "->", "more than one arrow", "write inputs `->` outputs, once")
    inputs = _side(left, text, Besides.ANYTHING) if left.strip() else ()
    outputs = _results(right[0], text) if right else None
    contract = Contract(inputs, outputs)
    require_bound(contract, text)
    return contract


def parse_tensor(text: str, whole: str = "") -> One:
    """Read one tensor, such as `float[batch dim]`.

    Args:
        text: what is read.
        whole: what it is part of, for the error.

    Raises:
        DimsError: the text does not follow the grammar.
    """
    typed, whole = _TYPED.fullmatch(text.strip()), whole or text
    return One(_dims(typed[2], whole), _dtype(typed[1], whole)) if typed else One(_dims(text, whole))


def tensors_of(what: What) -> Iterator[One]:
    """Every tensor that is declared in it, in order."""
    match what:
        case One():
            yield what
        case Each():
            yield from tensors_of(what.what)
        case Fields():
            for _, part in what.parts:
                yield from tensors_of(part)
        case Several(parts=parts) | Either(options=parts):
            for part in parts:
                yield from tensors_of(part)


def require_bound(contract: Contract, text: str) -> None:
    """Refuse arithmetic over names that no tensor up to its own gives a size.

    Raises:
        DimsError: there is such arithmetic.
    """
    bound: set[str] = set()
    for item in (*contract.inputs, *(contract.outputs or ())):
        for tensor in tensors_of(item.what):
            bound |= {axis.name for axis in tensor.dims.axes if isinstance(axis, Name)}
            for axis, name in _uses(tensor):
                if name not in bound:
                    raise _unbound(axis, name, text, bound)


def _unbound(axis: Computed, name: str, text: str, bound: set[str]) -> DimsError:
    snake = axis.text.replace("-", "_")
    meant = f"; one axis of two words is `{snake}`" if snake.isidentifier() else ""
    return DimsError(
        f"`{axis}` computes with `{name}`, which has no size there",
        facts={"in": text, "sizes": " ".join(sorted(bound)) or "none yet"},
        hint=f"let an axis of this or an earlier tensor be `{name}`{meant}",
    )


def _uses(tensor: One) -> Iterator[tuple[Computed, str]]:
    for axis in tensor.dims.axes:
        if isinstance(axis, Computed):
            yield from ((axis, name) for name in axis.uses)


def _results(side: str, text: str) -> tuple[Item, ...]:
    items = _side(side, text, Besides.NONE)
    unnamed = [str(item) for item in items if not item.parameter and not isinstance(item.what, Each)]
    if unnamed and len(unnamed) < len(items):
        hint = "name every part of the result, or none: `logits: batch classes, loss:`"
        raise unreadable(text, unnamed[0], "some parts of the result have names and this one has none", hint)
    if len(items) > 1 and any(isinstance(item.what, Each) and not item.parameter for item in items):
        raise unreadable(text, "*", "stands for the whole result", "let it be the only one right of the arrow")
    lone = len(items) == 1 and not items[0].parameter
    return tuple(Item(_required(item.what)) for item in items) if lone else items


def _required(what: What) -> What:
    """The same, but it may not be None."""
    match what:
        case One():
            return One(what.dims, what.dtype)
        case Several():
            return Several(what.parts)
        case Each():
            return Each(what.what)
    return what


def _side(side: str, text: str, besides: Besides) -> tuple[Item, ...]:
    """Read the entries left or right of the arrow; those of the same parameter become one."""
    found: dict[object, list[tuple[tuple[str, ...], What]]] = {}
    for number, part in enumerate(_split(side, text)):
        place, colon, rest = part.partition(":")
        path = _path(place.strip(), part, text, besides) if colon else ()
        found.setdefault(path[0] if path else number, []).append((path, _what(rest if colon else part, text, besides)))
    items = []
    for entries in found.values():
        path = entries[0][0]
        name = path[0] if path and path[0] != "*" else ""
        parts = [(path[1:] if name else path, what) for path, what in entries]
        items.append(Item(_joined(parts, text, besides), name))
    return tuple(items)


def _path(place: str, part: str, text: str, besides: Besides) -> tuple[str, ...]:
    """`*xs` and `xs.*` → ("xs", "*")."""
    star = place[: len(place) - len(place.lstrip("*"))]
    path = tuple(place.removeprefix(star).split(".")) if place != "*" else ("*",)
    fits = _PLACE.fullmatch(place) and (besides is Besides.NONE or path[0].isidentifier())
    if not fits or (besides is Besides.NONE and star and len(place) > 1 and place[1] != "."):
        raise unreadable(
            text, part.strip(), "what stands before `:` is not a parameter's name", "write `mask: seq seq`"
        )
    if star and len(place) > 1 and place[1] == ".":
        return ("*", *place[2:].split("."))
    return (path[0], "*", *path[1:]) if star and place != "*" else path


def _joined(entries: list[tuple[tuple[str, ...], What]], text: str, besides: Besides) -> What:
    """One piece from the parts below one name."""
    if not entries[0][0] and len(entries) == 1:
        return entries[0][1]
    steps: dict[str, list[tuple[tuple[str, ...], What]]] = {}
    for path, what in entries:
        steps.setdefault(path[0] if path else "", []).append((path[1:], what))
    if "" in steps or ("*" in steps and len(steps) > 1):
        problem = "it is declared twice" if "" in steps else "`*` stands for every entry, so no other can be named"
        raise unreadable(text, str(entries[-1][1]), problem, "write each tensor once")
    if "*" in steps:
        return Each(_joined(steps["*"], text, besides), besides)
    return Fields(tuple((name, _joined(parts, text, besides)) for name, parts in steps.items()), besides)


def _what(part: str, text: str, besides: Besides) -> What:
    """Read what stands in one place: dims, `dtype[dims]` or `(…, …)`."""
    part = part.strip()
    inside = part[1:-1]
    if part.startswith("(") and _closes(part) and len(parts := _split(inside, text)) > 1:
        if not parts[-1].strip():
            del parts[-1]  # `(batch dim,)`
        return Several(tuple(_what(each, text, besides) for each in parts), besides)
    one = parse_tensor(part, text)
    return One(one.dims, one.dtype, besides)


def _dims(part: str, text: str) -> Dims:
    try:
        return parse_dims(part)
    except DimsError as error:
        raise DimsError(error.title, facts={**error.facts, "in": text}, hint=error.hint) from None


def _dtype(word: str, text: str) -> Dtype:
    if word not in DTYPES:
        meant = _OTHER_WORDS.get(word.lower(), word.lower())
        hint = f"did you mean `{meant}`?" if meant in DTYPES else did_you_mean(meant, DTYPES)
        raise unreadable(text, word, "not a dtype", hint or "write `float[batch dim]`, `int64[batch]` or `bool[batch]`")
    return Dtype(word, DTYPES[word])


def _split(text: str, whole: str) -> list[str]:
    """The parts between the commas that no bracket encloses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        bracket = "a closing bracket without an opening one" if depth < 0 else "a bracket is not closed"
        raise unreadable(whole, text.strip(), bracket, "a tuple is `(batch dim, batch)`, a dtype `float[batch dim]`")
    return parts


def _closes(text: str) -> bool:
    """Whether the bracket that a text begins with is closed by its last character."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index == len(text) - 1
    return False


def _entries(what: What, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], What]]:
    """What is written for it, place by place."""
    parts: Iterable[tuple[str, What]]
    match what:
        case Each():
            parts = [("*", what.what)]
        case Fields():
            parts = what.parts
        case Several() if any(isinstance(part, Each | Fields) for part in what.parts):
            parts = [(str(number), part) for number, part in enumerate(what.parts)]
        case _:
            yield path, what
            return
    for name, part in parts:
        yield from _entries(part, (*path, name))


def _written(path: tuple[str, ...]) -> str:
    return f"*{path[0]}" if len(path) == 2 and path[1] == "*" else ".".join(path)
