"""The shape decorator: what a function's tensors have to look like, said once above it and checked at every call.

    @shapes("batch channels height width -> batch classes")
    def forward(self, images): ...

A call costs a few microseconds. Nothing is checked under `torch.compile` and `torch.export`, and with the environment
variable `TENSORSCOPE_SHAPES=off` (read when a function is decorated) functions stay exactly as they were written. Only
`.shape` is looked at; symbolic sizes are left alone, so that a traced program is not tied to the sizes it was traced
with.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from torch import Tensor
from torch.compiler import is_compiling

from tensorscope.contracts import parse_contract
from tensorscope.dims import bind
from tensorscope.errors import DimsError
from tensorscope.live.tensors import tensors_in
from tensorscope.live.violations import Seen, argument_error, result_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from tensorscope.contracts import Contract, Item
    from tensorscope.dims import Dims, Sizes
    from tensorscope.errors import ShapeError

P = ParamSpec("P")
R = TypeVar("R")
_Shapes = tuple[tuple[int, ...] | None, ...]  # None stands for what is no tensor

SWITCH = "TENSORSCOPE_SHAPES"
_MARK = "__tensorscope_shapes__"
_MEMORY = 64  # combinations of shapes remembered of one function
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Named:
    """Axis names of a call's tensors, in the order in which a depth-first walk over arguments and result meets them.

    Every tensor has an entry with one name per axis, empty where nothing names it.

    Attributes:
        inputs: where the tensor came in → names: `images`; in a container `state` (its first tensor), `state.1`.
        outputs: where it is in the result → names: empty for a lone tensor, else `0`, `1`, `1.hidden`.
    """

    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def shapes(contract: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check a function's tensors against a contract at every call.

    Args:
        contract: dims of the parameters `->` dims of the result, see `tensorscope.contracts`. Arguments that are no
            tensors (None, numbers, containers) are not looked at. Several outputs are a tuple or list of that many, in
            which None stands for a tensor left out.

    Raises:
        DimsError: when decorating, if the contract cannot be read or does not fit the function's parameters.
        ShapeError: when calling, if a tensor contradicts the contract.
    """
    parsed = parse_contract(contract)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        check = _Check(function, parsed)
        if os.environ.get(SWITCH, "").lower() == "off":
            setattr(function, _MARK, check)
            return function

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if is_compiling():
                return function(*args, **kwargs)
            bound = check.accept(args, kwargs)
            if bound is None:
                raise check.argument_error(args, kwargs)
            result = function(*args, **kwargs)
            if not check.accept_result(result, bound):
                raise check.result_error(args, kwargs, result)
            return result

        setattr(checked, _MARK, check)
        return checked

    return decorate


def contract_of(module: nn.Module) -> Contract | None:
    """The contract that a module's class declares on its `forward`, None if it declares none."""
    check = _check_of(module)
    return check.contract if check else None


def named_dims(
    module: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, output: object = None
) -> Named:
    """Name the axes of the tensors of one call of a module, as far as its contract does; never raises.

    Args:
        module: the module that was called.
        args: its positional arguments, as a forward hook gets them.
        kwargs: its keyword arguments.
        output: what it returned.
    """
    check = _check_of(module)
    parameters = _positional(getattr(type(module), "forward", None))
    given: dict[str, Any] = {}
    for position, value in enumerate(args):
        given[parameters[position] if position < len(parameters) else str(position)] = value
    given.update(kwargs or {})
    returned = {str(i): v for i, v in enumerate(output)} if isinstance(output, tuple | list) else {"": output}
    return Named(_named(given, check.inputs if check else ()), _named(returned, check.outputs if check else ()))


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a declared tensor is found, and what it has to look like.

    Attributes:
        name: of the parameter; for an output its position, empty for a lone one.
        dims: what it has to look like.
        index: its position among the positional arguments.
        default: what it is if it is not given.
    """

    name: str
    dims: Dims
    index: int = sys.maxsize
    default: object = None

    def value(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """What a call gives for it."""
        return args[self.index] if self.index < len(args) else kwargs.get(self.name, self.default)


@dataclass(frozen=True, slots=True)
class _Bound:
    """The sizes that a call's tensors have bound so far, and what shapes bound next in earlier calls.

    Training repeats the same shapes step after step: looking them up takes a fraction of the time of binding them.
    """

    sizes: Sizes
    then: dict[_Shapes, _Bound] = field(default_factory=dict)

    def bind(self, slots: tuple[_Slot, ...], shapes: _Shapes) -> _Bound | None:
        """What is bound after these shapes, None if they do not fit."""
        try:
            after = self.then.get(shapes)
        except TypeError:  # symbolic sizes cannot be looked up
            after = None
        if after is None:
            after = _Bound(dict(self.sizes))
            for slot, shape in zip(slots, shapes, strict=True):
                if shape is not None and bind(slot.dims, shape, after.sizes) is not None:
                    return None
            # Tracers put tensors and symbols where sizes were; those must not be kept alive.
            if all(type(size) is int for shape in shapes for size in shape or ()):
                if len(self.then) >= _MEMORY:
                    self.then.clear()
                self.then[shapes] = after
        return after


class _Check:
    """A function's contract, fitted to its parameters."""

    def __init__(self, function: Callable[..., object], contract: Contract) -> None:
        self.name: str = function.__qualname__.rpartition("<locals>.")[2]
        self.contract = contract
        self.inputs = tuple(_slots(function, self.name, contract))
        outputs = contract.outputs or ()
        self.outputs = tuple(_Slot(str(i) if len(outputs) > 1 else "", item.dims) for i, item in enumerate(outputs))
        self._start = _Bound({})

    def accept(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Bound | None:
        """What the arguments bind, None if they do not fit."""
        values = [slot.value(args, kwargs) for slot in self.inputs]
        return self._start.bind(self.inputs, _shapes(values))

    def accept_result(self, result: object, bound: _Bound) -> bool:
        """Whether the result fits what the arguments bound."""
        if not self.outputs:
            return True
        values = result if len(self.outputs) > 1 else (result,)
        if not isinstance(values, tuple | list) or len(values) != len(self.outputs):
            return False
        shapes = _shapes(values)
        if None in shapes and not _left_out(values):
            return False
        return bound.bind(self.outputs, shapes) is not None

    def argument_error(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ShapeError:
        """Tell which argument contradicts the contract."""
        return argument_error(self.name, self._seen(args, kwargs))

    def result_error(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: object) -> ShapeError:
        """Tell what about the result contradicts the contract."""
        return result_error(self.name, self._seen(args, kwargs), [slot.dims for slot in self.outputs], result)

    def _seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Seen]:
        values = ((slot, slot.value(args, kwargs)) for slot in self.inputs)
        return [Seen(slot.name, slot.dims, value) for slot, value in values if isinstance(value, Tensor)]


def _shapes(values: Sequence[object]) -> _Shapes:
    return tuple([value.shape if isinstance(value, Tensor) else None for value in values])


def _left_out(values: Sequence[object]) -> bool:
    """Whether what is no tensor is a None in place of one of several."""
    return len(values) > 1 and all(value is None or isinstance(value, Tensor) for value in values)


def _slots(function: Callable[..., object], name: str, contract: Contract) -> Iterator[_Slot]:
    """Find the parameter of each input; unnamed ones follow each other."""
    parameters = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind not in _VARIADIC}
    names = list(parameters)
    following = 1 if names[:1] in (["self"], ["cls"]) else 0
    for item in contract.inputs:
        index = names.index(item.parameter) if item.parameter in parameters else following
        if index >= len(names) or (item.parameter and item.parameter not in parameters):
            raise _unfitting(name, names, contract, item)
        parameter = parameters[names[index]]
        place = sys.maxsize if parameter.kind is inspect.Parameter.KEYWORD_ONLY else index
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        yield _Slot(parameter.name, item.dims, place, default)
        following = index + 1


def _unfitting(name: str, names: list[str], contract: Contract, item: Item) -> DimsError:
    facts = {"contract": str(contract), "takes": ", ".join(f"`{each}`" for each in names) or "no parameters"}
    if not item.parameter:
        title = f"`{name}` has no parameter for `{item}`"
        hint = "commas separate tensors, spaces the axes of one tensor; `name: dims` points at a parameter"
        return DimsError(title, facts=facts, hint=hint)
    close = difflib.get_close_matches(item.parameter, names, n=1)
    hint = f"did you mean `{close[0]}`?" if close else "write one of its parameters before the colon"
    return DimsError(f"`{name}` has no parameter `{item.parameter}`", facts=facts, hint=hint)


def _check_of(module: nn.Module) -> _Check | None:
    check = getattr(getattr(type(module), "forward", None), _MARK, None)
    return check if isinstance(check, _Check) else None


@functools.lru_cache(maxsize=1024)
def _positional(forward: object) -> tuple[str, ...]:
    """Names of a forward's positional parameters without `self`; none if it has no signature."""
    try:
        parameters = inspect.signature(forward).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind not in (*_VARIADIC, inspect.Parameter.KEYWORD_ONLY))[1:]


def _named(values: Mapping[str, object], slots: tuple[_Slot, ...]) -> dict[str, tuple[str, ...]]:
    dims = {slot.name: slot.dims for slot in slots}
    return {
        f"{name}.{place}".strip("."): dims[name].names(tensor.ndim)
        if name in dims and tensor is value
        else ("",) * tensor.ndim
        for name, value in values.items()
        for place, tensor in tensors_in(value)
    }
