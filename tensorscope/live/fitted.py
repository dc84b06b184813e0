"""A contract fitted to the parameters of a function: what a call binds, and whether the result fits."""

from __future__ import annotations

import difflib
import inspect
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tensorscope.contracts import Each, Fields, One, Several
from tensorscope.errors import DimsError
from tensorscope.live.keys import key_maker, shapes_and_dtypes_of, shapes_of
from tensorscope.live.places import contradiction, found
from tensorscope.live.violations import argument_error, result_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tensorscope.contracts import Contract, Item, What
    from tensorscope.dims import Sizes
    from tensorscope.live.places import Met

    _Key = tuple[object, ...]


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_STARS: dict[object, str] = dict(zip(VARIADIC, ("*", "**"), strict=True))
_MEMORY = 64  # combinations of shapes remembered of one function


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a declared argument is found, and what it has to look like.

    Attributes:
        name: of the parameter.
        what: what it has to look like.
        index: its position among the positional arguments.
        default: what it is if it is not given.
        stars: of the parameter, `*` or `**` if it takes the remaining arguments.
        others: names of the parameters that take a keyword before `**` does.
    """

    name: str
    what: What
    index: int = sys.maxsize
    default: object = None
    stars: str = ""
    others: frozenset[str] = frozenset()

    def value(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """What a call gives for it."""
        if self.stars == "*":
            return args[self.index :]
        if self.stars:
            return {name: value for name, value in kwargs.items() if name not in self.others}
        return args[self.index] if self.index < len(args) else kwargs.get(self.name, self.default)


@dataclass(frozen=True, slots=True)
class Bound:
    """The sizes that a call's tensors have bound so far, and what tensors bound next in earlier calls.

    Training repeats the same shapes step after step: looking them up takes a fraction of the time of binding them.
    """

    sizes: Sizes
    then: dict[_Key, Bound] = field(default_factory=dict)

    def known(self, key: _Key) -> Bound | None:
        """What was bound after tensors like these in an earlier call."""
        try:
            return self.then.get(key)
        except TypeError:  # symbolic sizes cannot be looked up
            return None

    def bind(self, met: Sequence[Met], key: _Key) -> Bound | None:
        """What is bound after these tensors, None if they do not fit."""
        after = Bound(dict(self.sizes))
        for each in met:
            if contradiction(each, after.sizes) is not None:
                return None
        # Tracers put tensors and symbols where sizes were; those must not be kept alive.
        if all(type(size) is int for each in met if isinstance(each.value, Tensor) for size in each.value.shape):
            if len(self.then) >= _MEMORY:
                self.then.clear()
            self.then[key] = after
        return after


class Fitted:
    """A function's contract, fitted to its parameters.

    Args:
        function: what is called.
        contract: what its tensors have to do with each other.

    Raises:
        DimsError: the contract does not fit the function's parameters.
    """

    def __init__(self, function: Callable[..., object], contract: Contract) -> None:
        self.name = name_of(function)
        self.contract = contract
        self.inputs = tuple(_slots(function, self.name, contract))
        self.result = contract.result
        self._start = Bound({})
        # Lone tensors are what nearly every function takes and returns: their keys are made in one go.
        self._plain = None
        if all(isinstance(slot.what, One) and not slot.stars for slot in self.inputs):
            self._plain = [(slot.index, slot.name, slot.default) for slot in self.inputs]
        self._keys = [(slot.value, key_maker(slot.what)) for slot in self.inputs]
        self._many = isinstance(self.result, Several)
        parts = self.result.parts if isinstance(self.result, Several) else (self.result,)
        self._plain_result = all(isinstance(part, One) for part in parts)
        self._result_key = key_maker(self.result) if self.result else None
        self._make_key = _maker(slot.what for slot in self.inputs)
        self._make_result_key = _maker(parts)

    def enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound:
        """What the arguments bind.

        Raises:
            ShapeError: they do not fit.
        """
        try:
            if self._plain is None:
                key = tuple([make(value(args, kwargs)) for value, make in self._keys])
            else:
                given = len(args)
                key = self._make_key(
                    [args[i] if i < given else kwargs.get(name, default) for i, name, default in self._plain]
                )
            known = self._start.known(key)
            if known is not None:
                return known
            met = list(self._met(args, kwargs))
            bound = self._start.bind(met, key)
            if bound is None:
                raise argument_error(self.name, met)
            return bound
        except RuntimeError:  # a tensor without a shape, such as a strided nested one
            return Bound({})

    def leave(self, result: Any, bound: Bound, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Hold the result against what the arguments bound.

        Raises:
            ShapeError: it does not fit.
        """
        if self._result_key is None or self.result is None:
            return
        try:
            if self._plain_result and (not self._many or isinstance(result, tuple | list)):
                key = self._make_result_key(result if self._many else (result,))
            else:
                key = (self._result_key(result),)
            if bound.known(key) is None:
                met = list(returned(self.result, result))
                if bound.bind(met, key) is None:
                    raise result_error(self.name, list(self._met(args, kwargs)), met, self.result, result)
        except RuntimeError:
            return

    def _met(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Met]:
        for slot in self.inputs:
            yield from found(slot.what, slot.value(args, kwargs), slot.name)


def name_of(function: object) -> str:
    """A function's name as it is written, without the functions around it."""
    function = getattr(function, "func", function) if not hasattr(function, "__qualname__") else function
    name: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name.rpartition("<locals>.")[2]


def returned(what: What, result: object) -> Iterator[Met]:
    """What is declared of a result, in it; the name of a lone tensor is for the reader."""
    if isinstance(what, Fields) and len(what.parts) == 1 and isinstance(result, Tensor):
        what = what.parts[0][1]
    return found(what, result, "", returned=True)


def _maker(parts: Iterable[What | None]) -> Callable[[Sequence[object]], _Key]:
    """What makes the keys of lone tensors: dtypes are part of them only where one is declared."""
    typed = any(isinstance(part, One) and part.dtype is not None for part in parts)
    return shapes_and_dtypes_of if typed else shapes_of


def _slots(function: Callable[..., object], name: str, contract: Contract) -> Iterator[Slot]:
    """Find the parameter of each input; unnamed ones follow each other."""
    parameters = _parameters(function, name)
    names = [each.name for each in parameters.values() if each.kind not in VARIADIC]
    following = 1 if names[:1] in (["self"], ["cls"]) else 0
    for item in contract.inputs:
        parameter = parameters.get(item.parameter)
        if item.parameter == "" and following < len(names):
            parameter = parameters[names[following]]
        if parameter is None or (parameter.kind in VARIADIC and not isinstance(item.what, Each | Fields)):
            raise _unfitting(name, list(parameters.values()), contract, item)
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        if parameter.kind in VARIADIC:
            positional = [each for each in parameters.values() if each.kind < inspect.Parameter.VAR_POSITIONAL]
            stars = _STARS[parameter.kind]
            yield Slot(parameter.name, item.what, len(positional), default, stars, frozenset(names))
            continue
        index = names.index(parameter.name)
        place = sys.maxsize if parameter.kind is inspect.Parameter.KEYWORD_ONLY else index
        yield Slot(parameter.name, item.what, place, default)
        following = index + 1


def _parameters(function: Callable[..., object], name: str) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        hint = "put it into a function of your own, and decorate that"
        raise DimsError(f"`{name}` does not tell its parameters", hint=hint) from None


def _unfitting(name: str, parameters: list[inspect.Parameter], contract: Contract, item: Item) -> DimsError:
    written = [f"`{_STARS.get(each.kind, '')}{each.name}`" for each in parameters]
    facts = {"contract": str(contract), "takes": ", ".join(written) or "no parameters"}
    if not item.parameter:
        title = f"`{name}` has no parameter for `{item}`"
        hint = "commas separate tensors, spaces the axes of one tensor; `name: dims` points at a parameter"
        return DimsError(title, facts=facts, hint=hint)
    if any(each.name == item.parameter for each in parameters):
        title = f"`{item.parameter}` of `{name}` takes any number of arguments"
        return DimsError(title, facts=facts, hint=f"write `*{item}` for every one of them")
    close = difflib.get_close_matches(item.parameter, [each.name for each in parameters], n=1)
    hint = f"did you mean `{close[0]}`?" if close else "write one of its parameters before the colon"
    return DimsError(f"`{name}` has no parameter `{item.parameter}`", facts=facts, hint=hint)
