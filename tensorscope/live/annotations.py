"""Reads contracts from annotations, jaxtyping's and `Annotated[Tensor, "batch dim"]`; jaxtyping need not be installed.

jaxtyping's classes are told by what they carry: `dim_str`, `dtypes` and `array_type`. Of its grammar, what a contract
has no words for (`{…}`, `?name`, arithmetic beyond ours) stands for an axis of any size.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections import ChainMap, abc
from contextlib import suppress
from typing import Annotated, Any, ForwardRef, NamedTuple, get_args, get_origin

import torch
from torch import Tensor

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
    What,
    parse_tensor,
    require_bound,
)
from tensorscope.dims import Axis, Dims, parse_dims
from tensorscope.errors import DimsError

_DEEPEST = 6  # classes within classes that are looked into
_UNREADABLE = (NameError, AttributeError, TypeError, SyntaxError, ImportError, LookupError, ValueError)
_UNIONS = {typing.Union, types.UnionType}
_LISTS = {list, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection, set, frozenset}
_DICTS = {dict, abc.Mapping, abc.MutableMapping}
_YIELDING = {abc.Iterator, abc.Iterable, abc.Generator}
_WRAPPERS = {getattr(typing, name, None) for name in ("Required", "NotRequired", "ReadOnly", "Final")}
_TENSOR_TEXT = "batch seq dim"


class _Unread(NamedTuple):
    """Stands for an annotation that cannot be resolved here."""

    text: str


def contract_from(function: Any, names: typing.MutableMapping[str, Any]) -> Contract:
    """The contract that a function's annotations declare.

    Args:
        function: what is decorated.
        names: those of the place where it is, for annotations that are strings.

    Raises:
        DimsError: no annotation declares a tensor, or one cannot be read as dims.
    """
    reader = _Reader(function, names)
    signature = _signature(function)
    inputs = []
    for parameter in signature.parameters.values():
        what = reader.what(parameter.annotation)
        if what is not None:
            inputs.append(Item(_as_parameter(what, parameter), parameter.name))
    result = reader.what(_returned(reader.resolved(signature.return_annotation), function))
    if not inputs and result is None:
        raise _nothing_declared(function, reader.unread)
    contract = Contract(tuple(inputs), None if result is None else (Item(result),))
    if not reader.unread:  # what cannot be read might bind the name
        require_bound(contract, str(contract))
    return contract


def _signature(function: Any) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature()


def _as_parameter(what: What, parameter: inspect.Parameter) -> What:
    """What a parameter takes: as annotated, its default, or any number of them."""
    if parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return Each(what, keyed=parameter.kind is inspect.Parameter.VAR_KEYWORD)
    default = parameter.default
    if default is None:
        return _besides(what, Besides.NONE)
    plain = default is not inspect.Parameter.empty and not isinstance(default, Tensor | tuple | list | dict)
    return _besides(what, Besides.ANYTHING) if plain and not dataclasses.is_dataclass(default) else what


def _besides(what: What, besides: Besides) -> What:
    return dataclasses.replace(what, besides=max(besides, what.besides))


def _returned(hint: Any, function: Any) -> Any:
    """What a call gives: of a generator what it yields."""
    if inspect.isasyncgenfunction(function):
        return None
    if inspect.isgeneratorfunction(function):
        return get_args(hint)[0] if get_origin(hint) in _YIELDING and get_args(hint) else None
    return hint


def _nothing_declared(function: Any, unread: list[str]) -> DimsError:
    name = getattr(function, "__qualname__", type(function).__qualname__).rpartition("<locals>.")[2]
    facts = {"unresolved": ", ".join(f"`{text}`" for text in dict.fromkeys(unread))} if unread else {}
    if unread:
        hint = "import what the annotations name before the function is defined, and not for type checkers alone"
    else:
        hint = f'write `@shapes("{_TENSOR_TEXT} -> …")`, or annotate: `x: Annotated[Tensor, "{_TENSOR_TEXT}"]`'
    return DimsError(f"`{name}` has no annotation that declares a tensor's dims", facts=facts, hint=hint)


class _Reader:
    """Reads the annotations of one function.

    Attributes:
        unread: annotations that could not be resolved.
    """

    def __init__(self, function: Any, names: typing.MutableMapping[str, Any]) -> None:
        function = getattr(function, "func", function)  # of a `functools.partial`
        self._globals = getattr(inspect.unwrap(function), "__globals__", {})
        self._names = names
        self.unread: list[str] = []
        self._open: list[type] = []  # classes that are being read, so that one may hold its like

    def resolved(self, hint: Any) -> Any:
        """The annotation itself where it was given as text."""
        for _ in range(_DEEPEST):
            if isinstance(hint, ForwardRef):
                hint = hint.__forward_arg__
            if not isinstance(hint, str):
                break
            try:
                hint = eval(hint, self._globals, ChainMap(self._names, self._globals, _STANDINS))  # as `typing` does
            except _UNREADABLE:
                self.unread.append(hint)
                return _Unread(hint)
        return hint

    def what(self, hint: Any) -> What | None:
        """What an annotation declares, None if it declares no tensor."""
        hint = self._bare(self.resolved(hint))
        if hasattr(hint, "dim_str") and hasattr(hint, "dtypes"):
            return _jaxtyped(hint)
        origin, args = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._annotated(args)
        if origin in _UNIONS:
            return self._union(args)
        if origin is not None:
            return self._container(origin, args)
        return self._fields(hint) if isinstance(hint, type) else None

    def _bare(self, hint: Any) -> Any:
        """Without what says nothing about shapes: aliases, new types, bounds, `Required` and the like."""
        for _ in range(_DEEPEST):
            if get_origin(hint) in _WRAPPERS and get_origin(hint) is not None:
                hint = get_args(hint)[0]
            inner = getattr(hint, "__value__", None) or getattr(hint, "__supertype__", None)
            if isinstance(hint, typing.TypeVar):
                inner = hint.__bound__
            if inner is None:
                break
            hint = self.resolved(inner)
        return hint

    def _annotated(self, args: tuple[Any, ...]) -> What | None:
        kind = self._bare(self.resolved(args[0]))
        texts = [text for text in args[1:] if isinstance(text, str)]
        optional = get_origin(kind) in _UNIONS and type(None) in get_args(kind)
        members = get_args(kind) if get_origin(kind) in _UNIONS else (kind,)
        tensors = [each for each in members if isinstance(each, type) and issubclass(each, Tensor)]
        if not tensors or not texts:
            return self.what(kind)
        one = parse_tensor(texts[0])
        return One(one.dims, one.dtype, Besides.NONE if optional else Besides.NOTHING)

    def _union(self, args: tuple[Any, ...]) -> What | None:
        members = [self._bare(self.resolved(arg)) for arg in args]
        declared = [(self.what(member), member) for member in members]
        options = [what for what, _ in declared if what is not None]
        silent = [member for what, member in declared if what is None and not _stands_for_none(member)]
        if not options or any(_may_be_tensor(member) for member in silent):
            return None
        besides = Besides.NONE if any(_stands_for_none(member) for _, member in declared) else Besides.NOTHING
        besides = Besides.ANYTHING if silent else besides
        if len(options) == 1:
            return _besides(options[0], besides)
        besides = max(besides, *(option.besides for option in options))
        flat = tuple(
            leaf for option in options for leaf in (option.options if isinstance(option, Either) else (option,))
        )
        return Either(flat, besides)

    def _container(self, origin: Any, args: tuple[Any, ...]) -> What | None:
        if origin is tuple and args and args[-1] is not Ellipsis:
            parts = [self.what(arg) for arg in args]
            anything = One(parse_dims("..."), None, Besides.ANYTHING)
            return Several(tuple(part or anything for part in parts)) if any(parts) else None
        if origin is tuple or origin in _LISTS | _DICTS:
            position = 1 if origin in _DICTS else 0
            what = self.what(args[position]) if position < len(args) else None
            besides = Besides.NOTHING if origin in {tuple, list, *_DICTS} else Besides.ANYTHING
            return None if what is None else Each(what, besides, origin in _DICTS)
        return self._fields(origin) if isinstance(origin, type) else None

    def _fields(self, kind: type) -> What | None:
        """The parts of a dataclass, named tuple or typed dict."""
        named = dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") or typing.is_typeddict(kind)
        if not named or kind in self._open or len(self._open) == _DEEPEST:
            return None
        self._open.append(kind)
        outer, self._globals = self._globals, getattr(sys.modules.get(kind.__module__), "__dict__", {})
        optional: frozenset[str] = getattr(kind, "__optional_keys__", frozenset())
        parts = []
        try:
            for name, hint in _hints(kind).items():
                what = self.what(hint)
                if what is not None:
                    missing = name in optional or get_origin(self.resolved(hint)) is getattr(typing, "NotRequired", 0)
                    parts.append((name, _besides(what, Besides.ANYTHING) if missing else what))
        finally:
            self._open.pop()
            self._globals = outer
        return Fields(tuple(parts), Besides.NOTHING, kind) if parts else None


def _hints(kind: type) -> dict[str, Any]:
    """Annotations of a class and of those that it extends, of what its objects have."""
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        # Annotations that are evaluated late may name what is not there yet.
        with suppress(NameError):
            found |= inspect.get_annotations(each)
    names = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else found
    return {name: hint for name, hint in found.items() if name in names}


def _stands_for_none(hint: Any) -> bool:
    # `Int[Tensor | None, "batch"]` becomes a union with `Int[None, "batch"]`.
    return hint is None or hint is type(None) or getattr(hint, "array_type", ...) in {None, type(None)}


def _may_be_tensor(hint: Any) -> bool:
    if hint is Any or hint is object or isinstance(hint, _Unread):
        return True
    return isinstance(hint, type) and issubclass(hint, Tensor) and not hasattr(hint, "dim_str")


def _jaxtyped(hint: Any) -> What | None:
    kind = getattr(hint, "array_type", None)
    if kind is not Any and not (isinstance(kind, type) and issubclass(kind, Tensor)):
        return None
    besides = Besides.ANYTHING if kind is Any else Besides.NOTHING
    return One(_dims(hint.dim_str), _dtype(hint), besides)


def _dims(text: str) -> Dims:
    axes: list[Axis] = []
    for token in text.split():
        try:
            axes += parse_dims(token).axes
        except DimsError:
            axes += parse_dims("_").axes
    return Dims(tuple(axes))


def _dtype(hint: Any) -> Dtype | None:
    """The kind of element as one of ours; None if it is any."""
    members = hint.dtypes
    if not isinstance(members, tuple | list):
        return None
    word: str = getattr(getattr(hint, "dtype", None), "__name__", "its dtype")
    known = tuple(name for name in _TORCH_DTYPES if any(_is(name, member) for member in members))
    ours = DTYPES.get(word.lower(), ())
    return Dtype(word.lower(), ours) if set(ours) == DTYPES.keys() & known else Dtype(word, known)


def _is(name: str, member: str | typing.Pattern[str]) -> bool:
    return name == member if isinstance(member, str) else bool(member.match(name))


_TORCH_DTYPES = dict.fromkeys(
    str(each).removeprefix("torch.") for each in vars(torch).values() if isinstance(each, torch.dtype)
)


class _Word:
    """Stands for one of jaxtyping's dtypes where jaxtyping is imported for type checkers alone, or not there at all."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getitem__(self, item: tuple[Any, str]) -> Any:
        kind, text = item
        kinds = get_args(kind) if get_origin(kind) in _UNIONS else (kind,)
        carried = {"dtype": self, "dtypes": DTYPES.get(self.__name__.lower()), "dim_str": text}
        return typing.Union[tuple(type(self.__name__, (), {**carried, "array_type": each}) for each in kinds)]  # noqa: UP007


_WORDS = ("Bool", "UInt", "Int", "Integer", "Float", "Complex", "Inexact", "Real", "Num", "Shaped", "BFloat16")
_SIZED = [name.replace("uint", "UInt").capitalize() for name in DTYPES if name[-1].isdecimal()]
# What annotations may name although the module does not: it imported the name for type checkers alone.
_STANDINS: dict[str, Any] = {
    **{name: _Word(name) for name in (*_WORDS, *_SIZED)},
    **{name: getattr(abc, name) for name in ("Sequence", "Iterable", "Iterator", "Generator", "Mapping")},
    **{"Tensor": Tensor, "torch": torch},
}
