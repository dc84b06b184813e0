"""What a model is to be checked with: tensors, or dims that stand for them, with every size that may vary by name."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from tensorscope.dims import Computed, Fixed, Free, Name, Rest, parse_dims
from tensorscope.errors import DimsError
from tensorscope.live.shapes import named_dims
from tensorscope.live.tensors import entries, tensors_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tensorscope.dims import Axis

# What the axes of a lone input are called where nothing names them; rank → names.
_BY_RANK = {
    1: ("batch",),
    2: ("batch", "features"),
    3: ("batch", "seq", "dim"),
    4: ("batch", "channels", "height", "width"),
    5: ("batch", "channels", "depth", "height", "width"),
}
_OF_IDS = {1: ("seq",), 2: ("batch", "seq")}
_KINDS = {"float": torch.float32, "int": torch.int64}  # as annotations write them
_PREFIX = re.compile(r"\s*([a-zA-Z_]\w*)\s*\[(.*)\]\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor that the model is to be given.

    Attributes:
        name: what the model calls it, `x` or `batch.mask`.
        axes: per axis a name whose size may vary, a size, or arithmetic over names.
        dtype: of its elements.
        device: where it is.
        declared: whether the dtype was given.
        order: axes from the largest stride to the smallest.
        range: its smallest and largest value, for whole numbers that are known.
    """

    name: str
    axes: tuple[str | int | Computed, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    declared: bool = True
    order: tuple[int, ...] = ()
    range: tuple[int, int] | None = None

    def shape(self, sizes: Mapping[str, Any]) -> list[Any]:
        """Its sizes, given those of the names."""
        return [_size(axis, sizes) for axis in self.axes]

    def made(self, sizes: Mapping[str, Any]) -> Tensor:
        """A tensor without meaning: zeros, or noise if it holds real numbers."""
        shape = self.shape(sizes)
        order = self.order or tuple(range(len(shape)))
        dense = [shape[axis] for axis in order]
        if self.dtype.is_floating_point and all(type(size) is int for size in shape):
            tensor = torch.randn(dense, dtype=torch.float32, device=self.device).to(self.dtype)
        else:
            tensor = torch.zeros(dense, dtype=self.dtype, device=self.device)
        return (
            tensor if order == tuple(range(len(shape))) else tensor.permute([order.index(i) for i in range(len(order))])
        )


@dataclass(frozen=True, slots=True)
class Given:
    """All that the model is to be given.

    Attributes:
        args: positional arguments, with a `Slot` in place of each tensor.
        kwargs: keyword arguments, likewise.
        slots: the slots, in order.
        sizes: name → size, None where it is open.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slots: tuple[Slot, ...]
    sizes: dict[str, int | None]

    @property
    def open(self) -> tuple[str, ...]:
        """The names without a size."""
        return tuple(name for name, size in self.sizes.items() if size is None)

    def made(self, sizes: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
        """The arguments for these sizes, and the tensors among them in the order of the slots."""
        tensors = {slot.name: slot.made(sizes) for slot in self.slots}
        args, kwargs = _swapped((self.args, self.kwargs), lambda slot: tensors[slot.name])
        return args, kwargs, list(tensors.values())

    def with_ids(self, name: str) -> Given:
        """The same, with whole numbers in one slot."""

        def change(slot: Slot) -> Slot:
            return _changed(slot) if slot.name == name else slot

        args, kwargs = _swapped((self.args, self.kwargs), change)
        return Given(args, kwargs, tuple(change(slot) for slot in self.slots), dict(self.sizes))


def given(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given:
    """Read what `check` was given.

    Raises:
        DimsError: dims cannot be read, leave the number of axes open or give one name two sizes.
    """
    reader = _Reader(model, args, kwargs)
    read = {name: reader.read(name, value) for name, value in _arguments(model, args, kwargs)}
    values = list(read.values())
    return Given(tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True)), *reader.result())


class _Reader:
    """Reads arguments one after the other; a name means the same size in all of them."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.slots: list[Slot] = []
        self.sizes: dict[str, int | None] = {}
        self.device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
        self.texts = _text_parameters(model)
        self.contract = _contract_names(model, args, kwargs)

    def result(self) -> tuple[tuple[Slot, ...], dict[str, int | None]]:
        for axis in (axis for slot in self.slots for axis in slot.axes if isinstance(axis, Computed)):
            for name in axis.uses:
                if name not in self.sizes:
                    raise DimsError(f"`{axis}` needs the size of `{name}`", hint=f"name an axis `{name}`")
        return tuple(self.slots), self.sizes

    def read(self, name: str, value: Any) -> Any:
        """The value with slots in place of tensors and of dims."""
        if isinstance(value, Tensor):
            return self._kept(self._of_tensor(name, value))
        if isinstance(value, str):
            return value if name in self.texts else self._kept(self._of_dims(name, value))
        if isinstance(value, dict):
            return type(value)({key: self.read(f"{name}.{key}", entry) for key, entry in value.items()})
        if type(value) in (list, tuple):
            return type(value)(self.read(f"{name}.{i}", entry) for i, entry in enumerate(value))
        places = {id(tensor): f"{name}.{place}".strip(".") for place, tensor in _nested(value)}
        return _tensors_swapped(value, lambda t: self._kept(self._of_tensor(places.get(id(t), name), t)))

    def _kept(self, slot: Slot) -> Slot:
        self.slots.append(slot)
        return slot

    def _of_tensor(self, name: str, tensor: Tensor) -> Slot:
        names = self.contract.get(name) or _names_by_rank(tensor)
        axes = []
        for axis, size in enumerate(tensor.shape):
            label = names[axis] if names and names[axis] else f"{name}.{axis}"
            if label in self.sizes:  # every axis is a symbol of its own: what must be equal will show
                label = f"{name}.{label}" if f"{name}.{label}" not in self.sizes else f"{name}.{axis}"
            self.sizes[label] = int(size)
            axes.append(label)
        device = self.device if tensor.device.type == "meta" else tensor.device
        order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True) if tensor.layout == torch.strided else ()
        return Slot(name, tuple(axes), tensor.dtype, device, order=tuple(order), range=_range(tensor))

    def _of_dims(self, name: str, text: str) -> Slot:
        dims, dtype = split_dtype(text)
        axes = tuple(self._axis(axis, text, f"{name}.{i}") for i, axis in enumerate(parse_dims(dims).axes))
        return Slot(name, axes, dtype or torch.float32, self.device, declared=dtype is not None)

    def _axis(self, axis: Axis, text: str, place: str) -> str | int | Computed:
        if isinstance(axis, Rest):
            raise DimsError(
                f"`{axis}` in `{text}` leaves the number of axes open", hint="write one name or size for every axis"
            )
        if isinstance(axis, Computed) or (isinstance(axis, Fixed) and not axis.name):
            return axis if isinstance(axis, Computed) else axis.size
        name = axis.name or place
        size = axis.size if isinstance(axis, Fixed) else None
        known = self.sizes.get(name)
        if known is not None and size is not None and known != size:
            raise DimsError(f"`{name}` is {known} and {size}", facts={"in": text}, hint="one name has one size")
        self.sizes[name] = known if size is None else size
        assert isinstance(axis, Name | Free | Fixed)
        return name


def split_dtype(text: str) -> tuple[str, torch.dtype | None]:
    """Dims and the dtype in front of them: `int64 batch seq`, `int64[batch seq]`; None if there is none.

    Raises:
        DimsError: what stands before the bracket is no dtype.
    """
    if bracketed := _PREFIX.fullmatch(text):
        dtype = _dtype(bracketed[1])
        if dtype is None:
            raise DimsError(f"`{bracketed[1]}` in `{text}` is no dtype", hint="write `int64[batch seq]`")
        return bracketed[2], dtype
    first, _, rest = text.strip().partition(" ")
    dtype = _dtype(first)
    return (text, None) if dtype is None else (rest, dtype)


def _dtype(name: str) -> torch.dtype | None:
    known = _KINDS.get(name.lower()) or getattr(torch, name.lower(), None)
    return known if isinstance(known, torch.dtype) else None


def _size(axis: str | int | Computed, sizes: Mapping[str, Any]) -> Any:
    if isinstance(axis, str):
        return sizes[axis]
    return axis if isinstance(axis, int) else _computed(axis, sizes)


def _computed(axis: Computed, sizes: Mapping[str, Any]) -> Any:
    """Arithmetic over names; the sizes may be symbols."""
    code = compile(ast.Expression(ast.fix_missing_locations(axis.tree)), "<dims>", "eval")
    return eval(code, {"__builtins__": {}}, dict(sizes))  # `parse_dims` lets nothing but arithmetic through


def _arguments(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    names = [p.name for p in _parameters(model) if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in _parameters(model) if p.kind is p.VAR_POSITIONAL), "input")
    for index, value in enumerate(args):
        yield names[index] if index < len(names) else f"{rest}.{index - len(names)}", value
    yield from kwargs.items()


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _text_parameters(model: nn.Module) -> set[str]:
    """Parameters that take a text, which is then no dims."""
    return {
        p.name for p in _parameters(model) if p.annotation is str or p.annotation == "str" or isinstance(p.default, str)
    }


def _contract_names(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, tuple[str, ...]]:
    names = named_dims(model, args, kwargs).inputs
    return {place: axes for place, axes in names.items() if any(axes)}


def _names_by_rank(tensor: Tensor) -> tuple[str, ...]:
    ids = not tensor.is_floating_point() and not tensor.is_complex()
    return (_OF_IDS.get(tensor.ndim) if ids else None) or _BY_RANK.get(tensor.ndim, ())


def _range(tensor: Tensor) -> tuple[int, int] | None:
    whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype is not torch.bool
    if tensor.is_meta or not whole or tensor.numel() == 0 or type(tensor) is not Tensor:
        return None
    low, high = tensor.aminmax()
    return int(low), int(high)


def _changed(slot: Slot) -> Slot:
    return Slot(slot.name, slot.axes, torch.int64, slot.device, declared=False, order=slot.order)


def _nested(value: Any) -> Iterator[tuple[str, Tensor]]:
    for key, entry in entries(value):
        for place, tensor in tensors_in(entry):
            yield f"{key}.{place}".strip("."), tensor


def _swapped(value: Any, convert: Any) -> Any:
    """A value with its slots converted, also inside of dataclasses."""
    if isinstance(value, Slot):
        return convert(value)
    if isinstance(value, dict):
        return type(value)({key: _swapped(entry, convert) for key, entry in value.items()})
    if type(value) in (list, tuple):
        return type(value)(_swapped(entry, convert) for entry in value)
    return _tensors_swapped(value, convert, Slot)


def _tensors_swapped(value: Any, convert: Any, kind: type = Tensor) -> Any:
    """Convert what is inside of a structure that torch knows, or of a dataclass."""
    import copy
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type | Slot):
        twin = copy.copy(value)
        for part in dataclasses.fields(value):
            entry = getattr(value, part.name, None)
            object.__setattr__(twin, part.name, _converted(entry, convert, kind))
        return twin
    if not any(isinstance(leaf, kind) for leaf in tree_flatten(value)[0]):
        return value
    return tree_map_only(kind, convert, value)


def _converted(entry: Any, convert: Any, kind: type) -> Any:
    return convert(entry) if isinstance(entry, kind) else _tensors_swapped(entry, convert, kind)
