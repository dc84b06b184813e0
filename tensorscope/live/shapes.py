"""The shape decorator: what a function's tensors have to look like, said once above it and checked at every call.

    @shapes("batch channels height width -> batch classes")
    def forward(self, images): ...

    @shapes
    def attend(x: Float[Tensor, "batch seq dim"], mask: Bool[Tensor, "seq seq"] | None = None) -> Tensor: ...

A call costs a few microseconds. Nothing is checked under `torch.compile` and `torch.export`, and with the environment
variable `TENSORSCOPE_SHAPES=off` (read when a function is decorated) functions stay exactly as they were written. Only
`.shape` and, where it is declared, `.dtype` is looked at; symbolic sizes are left alone, so that a traced program is
not tied to the sizes it was traced with.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, overload

from torch import Tensor, nn
from torch.compiler import is_compiling

from tensorscope.contracts import Each, Several, parse_contract
from tensorscope.errors import DimsError
from tensorscope.live.annotations import contract_from
from tensorscope.live.fitted import VARIADIC, Fitted, returned
from tensorscope.live.places import found
from tensorscope.live.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping

    from tensorscope.contracts import Contract
    from tensorscope.live.places import Met

F = TypeVar("F", bound="Callable[..., Any]")

SWITCH = "TENSORSCOPE_SHAPES"
_MARK = "__tensorscope_shapes__"


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


@overload
def shapes(contract: str) -> Callable[[F], F]: ...
@overload
def shapes(contract: F) -> F: ...
def shapes(contract: Any) -> Any:
    """Check a function's tensors against a contract at every call.

    Works on functions, methods (above or below `staticmethod` and `classmethod`), coroutines, generators (whatever they
    yield has to fit the result) and classes of modules, of which it checks the `forward` in place.

    Args:
        contract: dims of the parameters `->` dims of the result, see `tensorscope.contracts`. Arguments that are no
            tensors (None, numbers, containers that the contract does not look into) are not looked at. Several outputs
            are a tuple or list of that many, in which None stands for a tensor left out.
            Without a contract, the annotations are one: jaxtyping's `Float[Tensor, "batch dim"]` or
            `Annotated[Tensor, "batch dim"]`, alone and in tuples, lists, dicts, dataclasses, named tuples and unions.
            What they declare must be a tensor, and not None unless they say so. What cannot be resolved is not checked.

    Raises:
        DimsError: when decorating, if the contract cannot be read or does not fit the function's parameters, or if no
            annotation declares a tensor.
        ShapeError: when calling, if a tensor contradicts the contract.
    """
    if isinstance(contract, str):
        parsed = parse_contract(contract)
        return lambda function: _decorated(function, lambda _: parsed)
    names = sys._getframe(1).f_locals
    return _decorated(contract, lambda function: contract_from(function, names))


def _decorated(target: Any, contract: Callable[[Any], Contract]) -> Any:
    """The same function or class, checked."""
    if isinstance(target, staticmethod | classmethod):
        return type(target)(_decorated(target.__func__, contract))
    if isinstance(target, type) and issubclass(target, nn.Module):
        if target.forward is nn.Module.forward:
            raise DimsError(f"`{target.__qualname__}` has no `forward`", hint="decorate the class that defines it")
        setattr(target, "forward", _decorated(target.forward, contract))  # noqa: B010  (mypy knows better)
        return target
    if isinstance(target, type | nn.Module) or not callable(target):
        kind = "another class" if isinstance(target, type) else "an object"
        raise DimsError(
            f"shapes are declared of functions and of classes of modules, not of {kind}",
            facts={"got": repr(target).partition("\n")[0]},
            hint='put `@shapes("batch dim -> batch dim")` above the function or method that takes the tensors',
        )
    check = Fitted(target, contract(target))
    if os.environ.get(SWITCH, "").lower() == "off":
        with suppress(AttributeError):  # a bound method takes no marks
            setattr(target, _MARK, check)
        return target
    checked = _wrapper(target, check)
    setattr(checked, _MARK, check)
    return checked


def _wrapper(function: Any, check: Fitted) -> Any:
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, check)
    if inspect.isgeneratorfunction(function):
        return _generator(function, check)
    if inspect.isasyncgenfunction(function):
        return _async_generator(function, check)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return function(*args, **kwargs)
        bound = check.enter(args, kwargs)
        result = function(*args, **kwargs)
        check.leave(result, bound, args, kwargs)
        return result

    return checked


def _coroutine(function: Any, check: Fitted) -> Any:
    @functools.wraps(function)
    async def checked(*args: Any, **kwargs: Any) -> Any:
        bound = check.enter(args, kwargs)
        result = await function(*args, **kwargs)
        check.leave(result, bound, args, kwargs)
        return result

    return checked


def _generator(function: Any, check: Fitted) -> Any:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        if is_compiling():
            return (yield from function(*args, **kwargs))
        bound = check.enter(args, kwargs)
        generator = function(*args, **kwargs)
        resume, sent = generator.send, None
        while True:  # what `yield from` does, with a look at each value
            try:
                value = resume(sent)
            except StopIteration as stop:
                return stop.value
            check.leave(value, bound, args, kwargs)
            try:
                resume, sent = generator.send, (yield value)
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as error:  # noqa: BLE001  (thrown in by the caller: the generator's to handle)
                resume, sent = generator.throw, error

    return checked


def _async_generator(function: Any, check: Fitted) -> Any:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        check.enter(args, kwargs)
        return function(*args, **kwargs)  # type: ignore[no-any-return]

    return checked


def fitted_of(target: object) -> Fitted | None:
    """What a function, or the `forward` of a module's class, is checked by; None if nothing is declared of it."""
    function = getattr(type(target), "forward", None) if isinstance(target, nn.Module) else target
    check = getattr(function, _MARK, None)
    return check if isinstance(check, Fitted) else None


def contract_of(module: nn.Module) -> Contract | None:
    """The contract that a module's class declares on its `forward`, None if it declares none."""
    check = fitted_of(module)
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
    check = fitted_of(module)
    parameters, rest = _positional(getattr(type(module), "forward", None))
    given: dict[str, Any] = {}
    for position, value in enumerate(args):
        given[parameters[position] if position < len(parameters) else str(position)] = value
    given.update(kwargs or {})
    several = isinstance(output, tuple | list)
    whole = {str(i): v for i, v in enumerate(output)} if isinstance(output, tuple | list) else {"": output}
    if check is None:
        return Named(_named(given, ()), _named(whole, ()))
    result = check.result
    if several and isinstance(result, Several):  # also where more or fewer came back than are declared
        pairs = zip(result.parts, whole.values(), strict=False)
        outputs = [met for part, value in pairs for met in found(part, value, "")]
    else:
        outputs = list(returned(result, output)) if result is not None else []
    return Named(_named(given, _declared(check, given, rest)), _named(whole, outputs))


def _declared(check: Fitted, given: Mapping[str, Any], rest: str) -> Iterable[Met]:
    """What the contract declares of the arguments of a call."""
    for slot in check.inputs:
        if not slot.stars:
            yield from found(slot.what, given.get(slot.name), "")
        elif isinstance(slot.what, Each):
            others = {name: value for name, value in given.items() if name not in slot.others}
            keys = [name for name in others if name.isdecimal() == (slot.name == rest)]
            for key in keys:
                yield from found(slot.what.what, others[key], "")


@functools.lru_cache(maxsize=1024)
def _positional(forward: object) -> tuple[tuple[str, ...], str]:
    """Names of a forward's positional parameters without `self`, and of `*rest`; none if it has no signature."""
    try:
        parameters = inspect.signature(forward).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return (), ""
    names = tuple(p.name for p in parameters if p.kind not in (*VARIADIC, inspect.Parameter.KEYWORD_ONLY))
    return names[1:], next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), "")


def _named(values: Mapping[str, object], met: Iterable[Met]) -> dict[str, tuple[str, ...]]:
    """Names for every tensor in values, found by the tensor itself."""
    dims: dict[int, tuple[str, ...]] = {}
    for each in met:
        if isinstance(each.value, Tensor) and each.options:
            rank = each.value.ndim
            names = [option.dims.names(rank) for option in each.options]
            dims.setdefault(id(each.value), next((name for name in names if any(name)), names[0]))
    return {
        f"{name}.{place}".strip("."): dims.get(id(tensor), ("",) * tensor.ndim)
        for name, value in values.items()
        for place, tensor in tensors_in(value)
    }
