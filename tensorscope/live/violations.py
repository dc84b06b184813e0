"""What the shape decorator says when a tensor contradicts its contract."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING

from torch import Tensor

from tensorscope.contracts import Each, Fields, Item, One, Several
from tensorscope.dims import Computed, Fixed, Free, Name, Rest, Sizes, bind
from tensorscope.errors import ShapeError
from tensorscope.live.places import MISSING, contradiction, dtype_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tensorscope.contracts import Dtype, What
    from tensorscope.dims import Axis, Dims, Mismatch
    from tensorscope.live.places import Contradiction, Met


@dataclass(frozen=True, slots=True)
class _Seen:
    """A tensor that does not fit; `name` is what Python calls it, empty for a result."""

    name: str
    label: str
    dims: Dims
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return self.label


def argument_error(function: str, arguments: Sequence[Met]) -> ShapeError:
    """Tell which argument contradicts the contract, and why."""
    return _first(function, arguments, {}, {}) or _moved(function)


def result_error(
    function: str, arguments: Sequence[Met], results: Sequence[Met], declared: What, result: object
) -> ShapeError:
    """Tell what about the result contradicts the contract, and why."""
    parts = declared.parts if isinstance(declared, Several) else (declared,)
    strange = any(not isinstance(each.value, Tensor) for each in results)
    if strange and all(isinstance(part, One) for part in parts):
        return _wrong_result(function, parts, result)
    sizes: Sizes = {}
    owners: dict[str, str] = {}
    _first(function, arguments, sizes, owners)
    return _first(function, results, sizes, owners) or _moved(function)


def _first(function: str, met: Sequence[Met], sizes: Sizes, owners: dict[str, str]) -> ShapeError | None:
    """The first contradiction; remembers who gave each name its size."""
    for each in met:
        before = dict(sizes)
        problem = contradiction(each, sizes)
        for key in sizes.keys() - owners.keys():
            owners[key] = str(each)
        if problem is not None:
            return _error(function, each, problem, before, owners)
    return None


def _moved(function: str) -> ShapeError:
    return ShapeError(f"`{function}`: a tensor's shape changed during the call", hint="do not resize tensors in place")


def _error(function: str, met: Met, problem: Contradiction, sizes: Sizes, owners: dict[str, str]) -> ShapeError:
    bound = _bound(sizes, owners)
    value = met.value
    if problem.option is None or not isinstance(value, Tensor):
        return _wrong_kind(function, met, bound)
    dims, dtype, mismatch = problem.option.dims, problem.option.dtype, problem.mismatch
    if mismatch is None:
        assert dtype is not None
        title = f"{met} is {dtype_name(value)} and {'should be' if met.returned else 'takes'} {dtype}"
        hint = _dtype_hint(met, dtype)
    else:
        seen = _Seen("" if met.returned else met.place, str(met), dims, tuple(value.shape))
        title, hint = _problem(seen, mismatch, owners), _hint(seen, sizes, mismatch, owners)
    facts = {
        "expected": str(met.what) or "no axes (a 0-d tensor)",
        "got": f"{_shape(tuple(value.shape))} {dtype_name(value)}",
        "bound": bound,
    }
    return ShapeError(f"`{function}`: {title}", facts=facts, hint=hint)


def _wrong_result(function: str, declared: Sequence[What], result: object) -> ShapeError:
    expected = "a tensor" if len(declared) == 1 else f"{len(declared)} tensors"
    got = _kind(result)
    if isinstance(result, tuple | list):
        got += f" of {', '.join('None' if value is None else type(value).__name__ for value in result) or 'nothing'}"
    return ShapeError(
        f"`{function}`: returned {got} and declares {expected}",
        facts={"declared": ", ".join(f"`{what}`" for what in declared), "got": got},
        hint=f"return {expected}"
        + (" as a tuple" if len(declared) > 1 else "")
        + ", or change what is right of the arrow",
    )


def _wrong_kind(function: str, met: Met, bound: str) -> ShapeError:
    wanted, got = _declared_kind(met.what), _kind(met.value)
    if isinstance(met.value, tuple | list | dict):
        got += f" of {len(met.value)}"
    label = f"the returned value {met.place}".strip() if met.returned else str(met)
    if met.value is MISSING:
        title, got = f"{label} is missing", "nothing"
    else:
        title = f"{label} is {got} and {'should be' if met.returned else 'takes'} {wanted}"
    if isinstance(met.value, Tensor):
        got += f" of shape {_shape(tuple(met.value.shape))}"
    facts = {"expected": _declared(met.what), "got": got, "bound": bound}
    return ShapeError(f"`{function}`: {title}", facts=facts, hint=_kind_hint(met, wanted))


def _kind(value: object) -> str:
    if value is None or isinstance(value, Tensor):
        return "None" if value is None else "a tensor"
    name = "numpy array" if type(value).__name__ == "ndarray" else type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _declared_kind(what: What) -> str:
    match what:
        case One():
            return "a tensor"
        case Several():
            return f"a tuple of {len(what.parts)}"
        case Each():
            return "a list, tuple or dict"
        case Fields():
            return f"an object with {what}"
    return " or ".join(dict.fromkeys(map(_declared_kind, what.options)))


def _declared(what: What) -> str:
    return str(Item(what)) or "no axes (a 0-d tensor)"


def _kind_hint(met: Met, wanted: str) -> str:
    value, place = met.value, met.place
    if met.returned:
        return f"return {wanted} there, or change what is declared"
    if value is None:
        return f"pass {wanted}, or declare `{place}` so that it may be None"
    if isinstance(value, Tensor) and isinstance(met.what, Several):
        lone = all(isinstance(part, One) and len(part.dims.axes) == 1 for part in met.what.parts)
        axes = " ".join(str(part.dims) for part in met.what.parts if isinstance(part, One))
        return f"commas separate tensors, spaces axes: one tensor is `{axes}`" if lone else f"pass {wanted}"
    if isinstance(met.what, One) and isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        return f"`torch.stack(tuple({place}))` makes one tensor of tensors of one shape"
    if isinstance(met.what, One) and (isinstance(value, int | float | list | tuple) or hasattr(value, "__array__")):
        return f"`torch.as_tensor({place})` makes it one"
    return f"pass {wanted}"


def _dtype_hint(met: Met, dtype: Dtype) -> str:
    """The conversion that the fewest characters ask for."""
    name = dtype.names[0]
    short = {
        "float32": "float",
        "float64": "double",
        "float16": "half",
        "int64": "long",
        "int32": "int",
        "bool": "bool",
    }
    call = f".{short[name]}()" if name in short else f".to(torch.{name})"
    if met.returned:
        return f"return it as `{call}`, or change the declared `{dtype}`"
    return f"`{met.place}{call}` is {dtype if dtype.word == name else name}"


def _problem(seen: _Seen, mismatch: Mismatch, owners: dict[str, str]) -> str:
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


def _from(entry: Axis, seen: _Seen, owners: dict[str, str]) -> str:
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


def _hint(seen: _Seen, sizes: Sizes, mismatch: Mismatch, owners: dict[str, str]) -> str:
    """A way out, tried on the shape where it is a view of the tensor."""
    wanted = _wanted(seen.dims, sizes)
    if not seen.name:
        declared = f"the declared `{seen.dims}`" if seen.dims.axes else "what is declared"
        return f"return a tensor of shape {wanted}, or change {declared}"
    views = [text for text, shape in _views(seen) if bind(seen.dims, shape, dict(sizes)) is None]
    if views:
        return ", or ".join(views[:2])
    owner = owners.get(mismatch.label.lstrip("#"), "")
    other = f", or {owner} with `{mismatch.label.lstrip('#')}` = {mismatch.got}" if owner not in {"", str(seen)} else ""
    return f"pass {seen} with shape {wanted}{other}"


def _views(seen: _Seen) -> Iterator[tuple[str, tuple[int, ...]]]:
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
