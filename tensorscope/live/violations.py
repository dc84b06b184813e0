"""What the shape decorator says when a tensor contradicts its contract."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING

from torch import Tensor

from tensorscope.dims import Computed, Fixed, Free, Name, Rest, Sizes, bind
from tensorscope.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tensorscope.dims import Axis, Dims, Mismatch


@dataclass(frozen=True, slots=True)
class Seen:
    """One tensor of a call, and what it should have looked like; `name` is empty for the result."""

    name: str
    dims: Dims
    value: Tensor
    place: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.value.shape)

    def __str__(self) -> str:
        return f"`{self.name}`" if self.name else f"the returned tensor{self.place}"


def argument_error(function: str, arguments: Sequence[Seen]) -> ShapeError:
    """Tell which argument contradicts the contract, and why."""
    sizes: Sizes = {}
    owners: dict[str, str] = {}
    for seen in arguments:
        error = _hold(function, seen, sizes, owners)
        if error:
            return error
    return _moved(function)


def result_error(function: str, arguments: Sequence[Seen], outputs: Sequence[Dims], result: object) -> ShapeError:
    """Tell what about the result contradicts the contract, and why."""
    values = (result,) if len(outputs) == 1 else result
    if not isinstance(values, tuple | list) or len(values) != len(outputs) or not _tensors(values, len(outputs)):
        return _wrong_kind(function, outputs, result)
    sizes: Sizes = {}
    owners: dict[str, str] = {}
    for seen in arguments:
        _hold(function, seen, sizes, owners)
    for place, (dims, value) in enumerate(zip(outputs, values, strict=True)):
        if isinstance(value, Tensor):
            error = _hold(function, Seen("", dims, value, f" [{place}]" if len(outputs) > 1 else ""), sizes, owners)
            if error:
                return error
    return _moved(function)


def _tensors(values: Sequence[object], count: int) -> bool:
    return all(isinstance(value, Tensor) or (value is None and count > 1) for value in values)


def _moved(function: str) -> ShapeError:
    return ShapeError(f"`{function}`: a tensor's shape changed during the call", hint="do not resize tensors in place")


def _wrong_kind(function: str, outputs: Sequence[Dims], result: object) -> ShapeError:
    expected = "a tensor" if len(outputs) == 1 else f"{len(outputs)} tensors"
    kind = type(result).__name__
    got = "None" if result is None else f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
    if isinstance(result, tuple | list):
        got += f" of {', '.join('None' if value is None else type(value).__name__ for value in result) or 'nothing'}"
    return ShapeError(
        f"`{function}`: returned {got} and declares {expected}",
        facts={"declared": ", ".join(f"`{dims}`" for dims in outputs), "got": got},
        hint=f"return {expected}"
        + (" as a tuple" if len(outputs) > 1 else "")
        + ", or change what is right of the arrow",
    )


def _hold(function: str, seen: Seen, sizes: Sizes, owners: dict[str, str]) -> ShapeError | None:
    """Bind one tensor; remember who gave each name its size."""
    before = dict(sizes)
    mismatch = bind(seen.dims, seen.value.shape, sizes)
    for key in sizes.keys() - owners.keys():
        owners[key] = str(seen)
    if mismatch is None:
        return None
    return ShapeError(
        f"`{function}`: {_problem(seen, mismatch, owners)}",
        facts={
            "expected": str(seen.dims) or "no axes (a 0-d tensor)",
            "got": f"{_shape(seen.shape)} {str(seen.value.dtype).removeprefix('torch.')}",
            "bound": _bound(before, owners),
        },
        hint=_hint(seen, before, mismatch, owners),
    )


def _problem(seen: Seen, mismatch: Mismatch, owners: dict[str, str]) -> str:
    if mismatch.axis is None:
        count = f"{mismatch.got} {'axis' if mismatch.got == 1 else 'axes'}"
        more = "" if seen.dims.rest is None else " or more"
        return f"{seen} has {count} and {'takes' if seen.name else 'should have'} {mismatch.wanted}{more}"
    entry = next(axis for axis in seen.dims.axes if str(axis) == mismatch.label)
    takes = "takes" if seen.name else "should be"
    if isinstance(entry, Rest):
        wanted = f"{_shape(mismatch.wanted)}{_from(entry, seen, owners)}"
        return f"{seen} has {_shape(mismatch.got)} for `{entry}`, which is {wanted}"
    label = f"`{entry.text if isinstance(entry, Computed) else entry.name}` = "
    one = " or 1" if not isinstance(entry, Free) and entry.broadcast else ""
    wanted = f"{'' if label == '`` = ' else label}{mismatch.wanted}{one}"
    return f"axis {mismatch.axis} of {seen} is {mismatch.got} and {takes} {wanted}{_from(entry, seen, owners)}"


def _from(entry: Axis, seen: Seen, owners: dict[str, str]) -> str:
    """Who gave the entry's name its size."""
    keys = (entry.name,) if isinstance(entry, Name) else (f"*{entry.name}", f"*#{entry.name}")
    owner = next((owners[key] for key in keys if key in owners), "") if isinstance(entry, Name | Rest) else ""
    return f" (from {owner}{' itself' if owner == str(seen) else ''})" if owner else ""


def _bound(sizes: Sizes, owners: dict[str, str]) -> str:
    """What was known before this tensor, one line per tensor that said so."""
    lines: dict[str, list[str]] = {}
    for key, size in sizes.items():
        lines.setdefault(owners[key], []).append(f"{key} = {_shape(size)}")
    return "\n".join(f"{', '.join(names)} from {owner}" for owner, names in lines.items()) or "nothing yet"


def _shape(sizes: object) -> str:
    """`(4, 28)` as Python writes it, of sizes or names."""
    if not isinstance(sizes, tuple):
        return str(sizes)
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def _wanted(dims: Dims, sizes: Sizes) -> str:
    """The shape that would fit: sizes where they are known, names elsewhere."""
    parts: list[object] = []
    for axis in dims.axes:
        if isinstance(axis, Rest):
            known = sizes.get(f"*{axis.name}", sizes.get(f"*#{axis.name}"))
            parts += known if isinstance(known, tuple) else [str(axis)]
        elif isinstance(axis, Fixed):
            parts.append(axis.size)
        elif isinstance(axis, Computed):
            value = axis.value(sizes)
            parts.append(axis.text if value is None else value)
        else:
            parts.append(sizes.get(axis.name, axis.name or "_"))
    return _shape(tuple(parts))


def _hint(seen: Seen, sizes: Sizes, mismatch: Mismatch, owners: dict[str, str]) -> str:
    """A way out, tried on the shape where it is a view of the tensor."""
    wanted = _wanted(seen.dims, sizes)
    if not seen.name:
        return f"return a tensor of shape {wanted}, or change the declared `{seen.dims}`"
    views = [text for text, shape in _views(seen) if bind(seen.dims, shape, dict(sizes)) is None]
    if views:
        return ", or ".join(views[:2])
    owner = owners.get(mismatch.label.lstrip("#"), "")
    other = f", or {owner} with `{mismatch.label.lstrip('#')}` = {mismatch.got}" if owner not in {"", str(seen)} else ""
    return f"pass {seen} with shape {wanted}{other}"


def _views(seen: Seen) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Ways to look at the same tensor that change its axes as the dims ask for, each with the shape it gives."""
    shape, axes, name = seen.shape, seen.dims.axes, seen.name
    rank, missing = len(shape), len(axes) - len(shape)
    if missing == 1:
        for i in range(rank + 1):
            yield f"`{name}.unsqueeze({i})` adds `{axes[i]}`", (*shape[:i], 1, *shape[i:])
    if missing == -1:
        for i in (i for i in range(rank) if shape[i] == 1):
            yield f"`{name}.squeeze({i})` drops the axis of size 1", (*shape[:i], *shape[i + 1 :])
    if missing < 0 < len(axes):
        for i in sorted(range(len(axes)), key=lambda i: (i == 0, i)):
            end = i + 1 - missing
            text = f"{i}" if end == rank else f"{i}, {end - 1}"
            yield (
                f"`{name}.flatten({text})` makes it {len(axes)} axes",
                (*shape[:i], _product(shape[i:end]), *shape[end:]),
            )
    if missing == 0 and rank <= 5:
        yield from _orders(name, shape)


def _orders(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The axes in other orders; first those that leave most pairs of axes in theirs."""
    orders = sorted(permutations(range(len(shape))), key=lambda order: sum(a > b for a, b in combinations(order, 2)))
    for order in orders[1:]:
        moved = [i for i, j in enumerate(order) if i != j]
        call = f"transpose({moved[0]}, {moved[1]})" if len(moved) == 2 else f"permute{order}"
        yield f"`{name}.{call}` fits", tuple(shape[i] for i in order)


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
