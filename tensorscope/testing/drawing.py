"""Hypothesis strategies for tensors, and for all that one call of a function takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tensorscope.contracts import (
    Besides,
    Contract,
    Dtype,
    Each,
    Either,
    Fields,
    One,
    Several,
    What,
    parse_contract,
    parse_tensor,
    tensors_of,
)
from tensorscope.errors import DimsError
from tensorscope.live.fitted import VARIADIC, Fitted, name_of
from tensorscope.live.shapes import fitted_of
from tensorscope.testing.sizes import Pins, assignments, shapes_from

if TYPE_CHECKING:
    from tensorscope.dims import Sizes

Given = Mapping[str, Any] | None

_EMPTY = inspect.Parameter.empty
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_POOL = 8  # different numbers of a tensor whose elements are given
_MOST_ENTRIES = 3  # of lists and of `*xs`
_MOST_SPECIAL = 3  # numbers of a tensor that are not like the others


@dataclass(frozen=True)
class Call:
    """What one call of a function takes.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        sizes: of the contract's names, such as `{"batch": 3}`.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sizes: Sizes


def tensors(
    dims: str,
    *,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] | None = None,
    sizes: Pins = None,
    elements: st.SearchStrategy[Any] | None = None,
    non_finite: bool = False,
    extreme: bool = False,
) -> st.SearchStrategy[Tensor]:
    """Tensors of given dims.

        tensors("batch 3 height width", sizes={"height": 28, "width": st.integers(20, 40)})
        tensors("int64[batch seq]", elements=st.integers(0, 255))
        tensors("*batch dim", non_finite=True)

    Args:
        dims: in the grammar of `tensorscope.dims`, also `float[batch dim]`.
        dtype: of the numbers; by default what the dims say, or torch's default.
        sizes: of names, or strategies for them; or one strategy for all, such as `odd_sizes(empty=True)`.
        elements: the numbers. By default normally distributed ones; integers are 0 or 1, so that any table has a row
            for them.
        non_finite: whether NaN and ±Inf are among them.
        extreme: whether the largest, smallest and tiniest numbers of the dtype are among them.

    Raises:
        DimsError: the dims cannot be read.
    """
    one = parse_tensor(dims)
    dtypes = dtype if isinstance(dtype, st.SearchStrategy) else st.just(dtype or _usual(one.dtype))
    return _tensors(one, dtypes, sizes, elements, (non_finite, extreme))


def arguments(target: Any, *, sizes: Pins = None, given: Given = None) -> st.SearchStrategy[Call]:
    """All that one call takes, with sizes that agree with each other as the contract says.

        arguments(attend, sizes={"dim": 64})
        arguments("batch dim, labels: int64[batch]")

    A parameter that has a default gets it now and then.

    Args:
        target: a function, method or module with a contract (`@shapes`), or a contract.
        sizes: of names that are fixed, or strategies for them; or one strategy for all.
        given: arguments that the contract does not tell, by the parameter's name: a value, a strategy, or a function
            from the drawn sizes to either: `{"size": 2, "labels": lambda sizes: one_hot(sizes["batch"])}`.

    Raises:
        DimsError: there is no contract, or a parameter needs something that neither it nor `given` tells.
    """
    plan = target if isinstance(target, Plan) else planned(target)
    for parameter in plan.parameters:
        told = parameter.name in plan.declared or parameter.name in (given or {})
        if not told and parameter.default is _EMPTY and parameter.kind not in VARIADIC:
            raise _untold(plan, parameter.name)
    return _calls(plan, sizes, given or {})


@st.composite
def _tensors(
    draw: st.DrawFn,
    one: One,
    dtypes: st.SearchStrategy[torch.dtype],
    sizes: Pins,
    elements: st.SearchStrategy[Any] | None,
    with_special: tuple[bool, bool],
) -> Tensor:
    shape = draw(shapes_from(one, draw(assignments([one], sizes))))
    dtype = draw(dtypes)
    tensor = draw(_filled(shape, dtype, elements))
    special = _special(dtype, *with_special)
    if special and tensor.numel():
        for place in draw(st.lists(st.integers(0, tensor.numel() - 1), max_size=_MOST_SPECIAL)):
            tensor.view(-1)[place] = draw(st.sampled_from(special))
    return tensor


@st.composite
def _calls(draw: st.DrawFn, plan: Plan, sizes: Pins, given: Mapping[str, Any]) -> Call:
    drawn = draw(assignments([tensor for what in plan.declared.values() for tensor in tensors_of(what)], sizes))
    call = Call((), {}, drawn)
    for parameter in plan.parameters:
        name, default = parameter.name, parameter.default
        if name in given:
            value = _chosen(draw, given[name], drawn)
        elif name in plan.declared:
            what = plan.declared[name]
            strategy = _values(what if default is _EMPTY else replace(what, besides=Besides.NOTHING), drawn)
            value = draw(strategy if default is _EMPTY else st.just(default) | strategy)
        else:
            value = () if parameter.kind in VARIADIC else default
        call = _with(call, parameter, value)
    return call


@dataclass(frozen=True)
class Plan:
    """What is known of a target: its parameters without `self`, and what the contract declares of them."""

    name: str
    contract: Contract
    parameters: tuple[inspect.Parameter, ...]
    declared: Mapping[str, What]
    check: Fitted | None = None
    bound: bool = False


def planned(target: Any, contract: str | None = None) -> Plan:
    """Find the contract of a function or module, or make parameters for a contract alone.

    Raises:
        DimsError: there is no contract, or it does not fit the parameters.
    """
    if isinstance(target, str):
        read = parse_contract(target)
        names = [item.parameter or f"_{number}" for number, item in enumerate(read.inputs)]
        kinds = [_KEYWORD if item.parameter else inspect.Parameter.POSITIONAL_ONLY for item in read.inputs]
        made = [inspect.Parameter(name, kind) for name, kind in zip(names, kinds, strict=True)]
        whats = (item.what for item in read.inputs)
        return Plan(target, read, tuple(made), dict(zip(names, whats, strict=True)))
    check = Fitted(_function(target), parse_contract(contract)) if contract else fitted_of(target)
    if check is None:
        title = f"`{name_of(type(target) if isinstance(target, nn.Module) else target)}` declares no contract"
        raise DimsError(title, hint='put `@shapes("batch dim -> batch dim")` above it')
    parameters = tuple(inspect.signature(_function(target)).parameters.values())
    bound = isinstance(target, nn.Module) or inspect.ismethod(target)
    declared = {slot.name: slot.what for slot in check.inputs}
    return Plan(check.name, check.contract, parameters[1:] if bound else parameters, declared, check, bound)


def _function(target: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = type(target).forward if isinstance(target, nn.Module) else target
    return getattr(function, "__func__", function)


def _untold(plan: Plan, name: str) -> DimsError:
    return DimsError(
        f"`{plan.name}` needs `{name}`, of which its contract says nothing",
        facts={"contract": str(plan.contract)},
        hint=f'give it: `given={{"{name}": …}}`, a value, a strategy or a function of the sizes',
    )


def _chosen(draw: st.DrawFn, value: Any, sizes: Sizes) -> Any:
    value = value(sizes) if inspect.isfunction(value) else value
    return draw(value) if isinstance(value, st.SearchStrategy) else value


def _with(call: Call, parameter: inspect.Parameter, value: Any) -> Call:
    match parameter.kind:
        case inspect.Parameter.KEYWORD_ONLY:
            return replace(call, kwargs={**call.kwargs, parameter.name: value})
        case inspect.Parameter.VAR_KEYWORD:
            return replace(call, kwargs={**call.kwargs, **dict(value)})
        case inspect.Parameter.VAR_POSITIONAL:
            return replace(call, args=(*call.args, *value))
    return replace(call, args=(*call.args, value))


@st.composite
def _values(draw: st.DrawFn, what: What, sizes: Sizes) -> Any:
    """Anything that is as declared."""
    if what.besides is Besides.NONE and draw(st.booleans()):
        return None
    match what:
        case One():
            return draw(_filled(draw(shapes_from(what, sizes)), _usual(what.dtype), None))
        case Several():
            return tuple(draw(_values(part, sizes)) for part in what.parts)
        case Each():
            entries = draw(st.lists(_values(what.what, sizes), min_size=1, max_size=_MOST_ENTRIES))
            return {f"key{number}": entry for number, entry in enumerate(entries)} if what.keyed else entries
        case Fields():
            return _made(what, {name: draw(_values(part, sizes)) for name, part in what.parts})
        case Either():
            return draw(st.one_of([_values(option, sizes) for option in what.options]))


class Parts(dict[str, Any]):
    """Named parts that code may take for a dict or for an object."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


def _made(what: Fields, parts: dict[str, Any]) -> Any:
    """An object with these parts, of the annotated class if there is one."""
    if what.made_by is None:
        positions = all(name.isdecimal() for name in parts)
        return tuple(parts[name] for name in sorted(parts, key=int)) if positions else Parts(parts)
    try:
        return what.made_by(**parts)
    except TypeError as error:
        name = what.made_by.__qualname__
        hint = "give the argument: `given={…: st.builds(…)}`"
        raise DimsError(f"`{name}` cannot be made of its tensors alone: {error}", hint=hint) from None


def _usual(dtype: Dtype | None) -> torch.dtype:
    usual: torch.dtype = getattr(torch, dtype.names[0]) if dtype and dtype.names else torch.get_default_dtype()
    return usual


@st.composite
def _filled(
    draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype, elements: st.SearchStrategy[Any] | None
) -> Tensor:
    # One seed instead of every number: drawing each of them would take seconds.
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    if elements is not None:
        pool = torch.tensor(draw(st.lists(elements, min_size=1, max_size=_POOL)), dtype=dtype)
        return pool[torch.randint(len(pool), shape, generator=generator)]
    if dtype.is_floating_point or dtype.is_complex:
        wide = torch.complex128 if dtype.is_complex else torch.float64
        return torch.randn(shape, generator=generator, dtype=wide).to(dtype)
    return torch.randint(2, shape, generator=generator).to(dtype)


def _special(dtype: torch.dtype, non_finite: bool, extreme: bool) -> list[Any]:
    inexact = dtype.is_floating_point or dtype.is_complex
    found = [math.nan, math.inf, -math.inf] if non_finite and inexact else []
    if extreme and inexact:
        info = torch.finfo(dtype)
        found += [info.max, info.min, info.tiny, -info.tiny, info.smallest_normal / 2, 0.0, -0.0]
    elif extreme and dtype is not torch.bool:
        found += [torch.iinfo(dtype).max, torch.iinfo(dtype).min]
    return found
