"""What does not fit in indexing, gather, scatter and embeddings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.scene import Mismatch, Remedy, attached
from tensorscope.live.postmortem.source import written
from tensorscope.reports import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from tensorscope.live.postmortem.scene import Scene


def embedding(scene: Scene) -> Mismatch | None:
    """Ids that an embedding has no row for, or that are no integers."""
    call = scene.call
    ids, table = call.tensor("input"), call.tensor("weight")
    if ids is None or table is None:
        return None
    if ids.is_floating_point():
        found = Mismatch(f"{scene.subject} takes whole numbers and got {_dtype(ids)}", kind="dtype_error")
        found.remedies.append(scene.transform("input", ".long()", 5))
        return found
    if "out of range" not in scene.message or not ids.numel() or ids.is_meta:
        return None
    low, high, rows = int(ids.min()), int(ids.max()), table.shape[0]
    bad = high if high >= rows else low
    found = Mismatch(
        f"{scene.subject} has rows 0 to {rows - 1} and is asked for row {bad}",
        [(call.text("weight"), scene.axes(table)[0], high + 1)],
    )
    found.got = f"`{call.text('input')}` {shape_text(tuple(ids.shape))} holds ids from {low} to {high}"
    found.kind = "index_out_of_range"
    counted = ids.ndim and ids.shape[-1] == high + 1 and low == 0  # positions, as many as there are
    found.blamed += [(call.text("input"), axis, rows if counted else None) for axis in scene.axes(ids)[-1:]]
    if high >= rows and low >= 0:
        remedy = scene.rebuild(scene.path, 10, num_embeddings=high + 1) if scene.depth else None
        found.remedies += [remedy] if remedy is not None else []
    clamp = scene.transform("input", f".clamp(0, {rows - 1})", 60)
    found.remedies.append(clamp)
    return found


def gather(scene: Scene) -> Mismatch | None:
    """An index that gather, scatter or index_select can't follow."""
    call = scene.call
    x, index, dim = call.tensor("input", "self"), call.tensor("index"), call.roles.get("dim", 0)
    if x is None or index is None or not isinstance(dim, int):
        return None
    name, source = call.text("index"), call.text("input" if "input" in call.roles else "self")
    if index.dtype not in (torch.int64, torch.int32):
        found = Mismatch(f"{scene.subject}: the index `{name}` is {_dtype(index)}, whole numbers are needed")
        found.remedies.append(scene.transform("index", ".long()", 5))
        return found
    if call.op.startswith("index_"):
        return _beyond(scene, x, index, dim) or _too_wide(scene, x, dim)
    if index.ndim != x.ndim:
        title = f"{scene.subject}: the index `{name}` has {index.ndim} {_axes(index)} and `{source}` has {x.ndim}"
        found = Mismatch(title, [(name, axis, None) for axis in scene.axes(index)[:1]], layout=True)
        found.remedies += _along(scene, x, index, dim)
        for place in (dim % max(x.ndim, 1), *range(index.ndim + 1)):
            if index.ndim == x.ndim - 1 and place <= index.ndim:
                rank = 5 if place == dim % x.ndim else 45
                found.remedies.append(scene.transform("index", f".unsqueeze({place})", rank))
        return found
    return _beyond(scene, x, index, dim) or _too_long(scene, x, index, dim)


def _along(scene: Scene, x: Tensor, index: Tensor, dim: int) -> Iterator[Remedy]:
    """One index for each row: stretched over what is scattered, or taken off again after gathering."""
    call = scene.call
    source, place = call.tensor("src", "source"), dim % max(x.ndim, 1)
    if index.ndim != 1 or x.ndim < 2:
        return
    if source is not None and source.ndim == x.ndim and source.shape[place] == index.shape[0]:
        view = [None] * x.ndim
        text = ", ".join(":" if axis == place else "None" for axis in range(x.ndim))
        said = f"[{text}].expand_as({call.text('src' if 'src' in call.roles else 'source')})"
        key = tuple(slice(None) if axis == place else entry for axis, entry in enumerate(view))
        yield scene.transform("index", said, 3, lambda t: t[key].expand(source.shape))
    if call.op == "gather" and place == 1 and x.ndim == 2:
        new = (
            f"{attached(call.text('input'), '.gather')}(1, {attached(call.text('index'), '.unsqueeze(1)')}).squeeze(1)"
        )
        said = f"`{new}` in place of `{written(scene.node)}`"
        edit = scene.replacing(lambda t, d, i, *_: t.gather(d, i.unsqueeze(1)).squeeze(1))
        yield Remedy(said, edit, scene.line, 7)


def _beyond(scene: Scene, x: Tensor, index: Tensor, dim: int) -> Mismatch | None:
    call = scene.call
    if not index.numel() or index.is_meta or "out of" not in scene.message:
        return None
    size, high, low = x.shape[dim], int(index.max()), int(index.min())
    if high < size and low >= 0:
        return None
    bad = high if high >= size else low
    title = f"{scene.subject}: index {bad} is not within the {size} of axis {dim % x.ndim}"
    found = Mismatch(title, [(call.text("input"), scene.axes(x)[dim], high + 1)])
    found.got = f"`{call.text('index')}` {shape_text(tuple(index.shape))} holds {low} to {high}"
    found.kind = "index_out_of_range"
    found.remedies += [r for r in (scene.resized_producer(scene.axes(x)[dim], high + 1, 15),) if r is not None]
    for other in range(x.ndim):
        if x.shape[other] > high and other != dim % x.ndim and "dim" in call.slots:
            edit = scene.setting("dim", other)
            found.remedies.append(Remedy(f"`dim={other}` in place of `dim={dim}`", edit, scene.line, 40))
    return found


def _too_wide(scene: Scene, x: Tensor, dim: int) -> Mismatch | None:
    """Rows to be added to rows of another width."""
    call = scene.call
    role = next((name for name in ("source", "src", "tensor") if call.tensor(name) is not None), None)
    source = call.tensor(role) if role else None
    if role is None or source is None or source.ndim != x.ndim:
        return None
    place = next((i for i in range(x.ndim) if i != dim % x.ndim and source.shape[i] != x.shape[i]), None)
    if place is None:
        return None
    axes = scene.axes(source)[place], scene.axes(x)[place]
    names = call.text(role), call.text("input" if "input" in call.roles else "self")
    title = f"{scene.subject}: axis {place} is {axes[0].size} in `{names[0]}` and {axes[1].size} in `{names[1]}`"
    found = Mismatch(title, [(names[0], axes[0], axes[1].size), (names[1], axes[1], axes[0].size)])
    sized = (scene.resized_producer(axes[0], axes[1].size), scene.resized_producer(axes[1], axes[0].size))
    found.remedies += [remedy for remedy in sized if remedy is not None]
    return found


def _too_long(scene: Scene, x: Tensor, index: Tensor, dim: int) -> Mismatch | None:
    call = scene.call
    pairs = enumerate(zip(index.shape, x.shape, strict=False))
    place = next((i for i, (n, m) in pairs if n > m and i != dim % x.ndim), None)
    if place is None:
        return None
    title = f"{scene.subject}: axis {place} of the index is {index.shape[place]} and the tensor's is {x.shape[place]}"
    found = Mismatch(title, [(call.text("index"), scene.axes(index)[place], x.shape[place])])
    if index.ndim == 2 and index.shape[1 - place] <= x.shape[1 - place]:
        found.remedies.append(scene.transform("index", ".t()", 30))
    return found


def indexed(scene: Scene) -> Mismatch | None:
    """An index or a slice that a tensor doesn't have."""
    call = scene.call
    x = call.tensor("input", "self")
    if x is None:
        return None
    text = call.text("input" if "input" in call.roles else "self")
    if said := re.search(r"index (-?\d+) is out of bounds for dimension (\d+) with size (\d+)", scene.message):
        index, dim, size = map(int, said.groups())
        axis = scene.axes(x)[dim] if dim < x.ndim else None
        span = f"indices 0 to {size - 1}" if size else "no entries"
        title = f"{scene.subject}: index {index} on axis {dim} of `{text}`, which has {span}"
        found = Mismatch(title, [(text, axis, index + 1)] if axis is not None else [])
        found.kind = "index_out_of_range"
        found.remedies += _nearest(scene, index, size)
        if axis is not None and (remedy := scene.resized_producer(axis, index + 1, 30)) is not None:
            found.remedies.append(remedy)
        return found
    if "too many indices" in scene.message:
        return Mismatch(f"{scene.subject}: more indices than the {x.ndim} {_axes(x)} of `{text}`")
    if said := re.search(r"shape of the mask (\[.*?\]) at index (\d+) does not match", scene.message):
        shape = shape_text(tuple(x.shape))
        found = Mismatch(f"{scene.subject}: the mask is {_round(said[1])} and `{text}` is {shape}")
        found.blamed = [(text, axis, None) for axis in scene.axes(x)[int(said[2]) : int(said[2]) + 1]]
        return found
    return None


def _nearest(scene: Scene, index: int, size: int) -> list[Remedy]:
    """The last entry in place of one beyond it."""
    call = scene.call
    asked = call.roles.get("index")
    tensors = [(role, t) for role, t in call.tensors().items() if role.startswith("index") and t.numel() and t.ndim]
    late = [
        (r, t) for r, t in tensors if not t.is_floating_point() and int(t.max()) == index == size and int(t.min()) > 0
    ]
    if late:
        return [scene.transform(late[0][0], " - 1", 8)]
    entries = asked if isinstance(asked, tuple) else (asked,)
    if not size or not any(type(entry) is int and entry == index for entry in entries):
        return []

    def last(value: Any) -> Any:
        return tuple(-1 if type(i) is int and i == index else i for i in value) if isinstance(value, tuple) else -1

    return [Remedy(f"the last entry, `-1` in place of `{index}`", scene.changing("index", last), scene.line, 40)]


def selected(scene: Scene) -> Mismatch | None:
    """`narrow` or `select` beyond the end of an axis."""
    call = scene.call
    x = call.tensor("input", "self")
    said = re.search(r"start \((\d+)\) \+ length \((\d+)\) exceeds dimension size \((\d+)\)", scene.message)
    if x is None or said is None:
        return None
    start, length, size = map(int, said.groups())
    dim = next((v for v in (call.roles.get("dim"), *scene.failure.args[1:]) if isinstance(v, int)), 0)
    text = call.text("input" if "input" in call.roles else "self")
    title = f"{scene.subject}: {start} to {start + length} exceeds the {size} of axis {dim % x.ndim} of `{text}`"
    found = Mismatch(title, [(text, scene.axes(x)[dim], start + length)])
    if size > start:
        edit = scene.replacing(lambda t, *_, **__: t.narrow(dim, start, size - start))
        said_fix = f"a length of {size - start} in place of {length}"
        found.remedies.append(Remedy(said_fix, edit, scene.line, 30))
    return found


def one_hot(scene: Scene) -> Mismatch | None:
    """Classes beyond the number of classes."""
    call = scene.call
    ids = call.tensor("input", "self", "tensor")
    if ids is None or ids.is_meta or not ids.numel():
        return None
    if ids.dtype != torch.int64:
        name = next(iter(call.tensors()))
        found = Mismatch(f"{scene.subject} takes int64 classes and got {_dtype(ids)}")
        found.remedies.append(scene.transform(name, ".long()", 5))
        return found
    high, count = int(ids.max()), next((v for v in call.roles.values() if type(v) is int), -1)
    title = f"{scene.subject}: class {high} is not below the number of classes, {count}"
    found = Mismatch(title, kind="index_out_of_range")
    role = next((role for role, value in call.roles.items() if type(value) is int), None)
    if role is not None and high >= count:
        edit = scene.changing(role, lambda _: high + 1)
        found.remedies.append(Remedy(f"{high + 1} classes in place of {count}", edit, scene.line, 10))
    return found


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _axes(tensor: Tensor) -> str:
    return "axis" if tensor.ndim == 1 else "axes"


def _round(shape: str) -> str:
    return shape.replace("[", "(").replace("]", ")")


_ALONG = ("gather", "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "index_select")

ANALYSES: dict[str, Any] = {
    "embedding": embedding,
    "embedding_bag": embedding,
    **dict.fromkeys(_ALONG, gather),
    **dict.fromkeys(("take_along_dim", "index_add", "index_add_", "index_copy_", "index_fill_"), gather),
    **dict.fromkeys(("getitem", "setitem", "select"), indexed),
    "narrow": selected,
    "one_hot": one_hot,
}
