"""What does not fit where a tensor is seen in another shape: view, reshape, expand, split, axes that are not there."""

from __future__ import annotations

import ast
import math
import re
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.scene import Mismatch, Remedy
from tensorscope.live.postmortem.source import written
from tensorscope.reports import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from tensorscope.live.postmortem.axes import Axis
    from tensorscope.live.postmortem.scene import Scene


def view(scene: Scene) -> Mismatch | None:
    """A view or reshape with another number of elements, or of a tensor whose memory is not in order."""
    call = scene.call
    x = call.tensor("input", "self")
    if x is None:
        return None
    if "stride" in scene.message:
        return _not_in_order(scene, x)
    sizes = asked(scene)
    if not sizes or ("invalid for input of size" not in scene.message and "unflatten" not in scene.message):
        return None
    whole = "unflatten" not in call.op
    elements = x.numel() if whole else _axis_size(scene, x)
    text = call.text(next(name for name in ("input", "self") if name in call.roles))
    have = f"{elements} elements" if whole else f"the axis of {elements}"
    given = [str(n) for n in sizes if n != -1]
    product = f"{' · '.join(given)} = {math.prod(map(int, given))}" if len(given) > 1 else "".join(given)
    if -1 in sizes:
        title = f"{scene.subject}: {have} cannot be divided by {product}"
    else:
        title = f"{scene.subject}: {have} {'do' if whole else 'does'} not fit {shape_text(tuple(sizes))}"
    found = Mismatch(title, got=f"`{text}` is {shape_text(tuple(x.shape))} = {x.numel()} elements, asked for {product}")
    axis = _at_fault(scene, x, sizes) if whole else scene.axes(x)[_dim(scene)]
    if axis is not None:
        found.blamed = [(text, axis, None if whole else math.prod(sizes))]
        found.remedies += _divisible(scene, axis, sizes)
    if not whole and axis is not None and -1 not in sizes:
        found.remedies += _unflattened(scene, axis, sizes)
    if whole:
        found.remedies += _other_size(scene, sizes, elements)
        found.remedies += _producers(scene, x, sizes)
    return found


def _dim(scene: Scene) -> int:
    dim = next((scene.call.roles[k] for k in ("dim", "other") if isinstance(scene.call.roles.get(k), int)), 0)
    return int(dim)


def _axis_size(scene: Scene, x: Tensor) -> int:
    dim = _dim(scene)
    return x.shape[dim] if -x.ndim <= dim < x.ndim else 0


def _divisible(scene: Scene, axis: Axis, sizes: Sequence[int]) -> Iterator[Remedy]:
    """An axis that is split into parts that it can't be divided into."""
    texts = _written_sizes(scene)
    quotients = {place for place, text in enumerate(texts) if "//" in written(text)}
    for place, size in list(enumerate(sizes))[1:]:
        if place in quotients:
            continue
        if 1 < size < axis.size and axis.size % size and axis.size // size in sizes and axis.size not in sizes:
            low = axis.size - axis.size % size
            said = f"a size that {size} divides: {low} or {low + size} in place of {axis.size}"
            yield Remedy(said, None, "", 60)
            return


def _unflattened(scene: Scene, axis: Axis, sizes: Sequence[int]) -> Iterator[Remedy]:
    wanted = math.prod(sizes)
    if (producer := scene.resized_producer(axis, wanted, 15)) is not None:
        yield producer
    for place in range(len(sizes)):
        rest = wanted // sizes[place] if sizes[place] else 0
        if rest and axis.size % rest == 0 and scene.depth:
            new = (*sizes[:place], axis.size // rest, *sizes[place + 1 :])
            if (remedy := scene.rebuild(scene.path, 20 + place, unflattened_size=new)) is not None:
                yield remedy
    side = round((axis.size / sizes[0]) ** (1 / (len(sizes) - 1))) if len(sizes) > 2 and sizes[0] else 0
    if scene.depth and side and sizes[0] * side ** (len(sizes) - 1) == axis.size:
        new = (sizes[0], *[side] * (len(sizes) - 1))  # as many channels, another map
        if (remedy := scene.rebuild(scene.path, 12, unflattened_size=new)) is not None:
            yield remedy
        elif rest and axis.size % rest == 0 and (role := _sizes_role(scene)) is not None:
            new = (*sizes[:place], axis.size // rest, *sizes[place + 1 :])
            said = f"sizes {new} in place of {tuple(sizes)}"
            yield Remedy(said, scene.setting(role, new), scene.line, 20 + len(sizes) - place)


def _sizes_role(scene: Scene) -> str | None:
    roles = scene.call.roles
    return next((r for r, v in roles.items() if isinstance(v, list | tuple) and r in scene.call.slots), None)


def asked(scene: Scene) -> list[int]:
    """The sizes that a view was asked for."""
    call = scene.call
    if scene.failure.func is None:
        return []
    args = [*scene.failure.args[1:], *(call.roles[k] for k in ("shape", "size", "sizes") if k in scene.failure.kwargs)]
    if call.op == "unflatten":
        args = [call.roles.get("sizes", args[-1] if args else ())]
        args = [tuple(args[0])] if args and isinstance(args[0], list | tuple) else args
    flat = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
    return [int(size) for size in flat if isinstance(size, int) and not isinstance(size, bool)]


def _at_fault(scene: Scene, x: Tensor, sizes: Sequence[int]) -> Any:
    """The axis that differs from what was asked for, counted from the front."""
    axes = scene.axes(x)
    for axis, size in zip(axes, sizes, strict=False):
        if axis.size != size:
            return axis
    return axes[-1] if axes else None


def _not_in_order(scene: Scene, x: Tensor) -> Mismatch:
    text = scene.call.text(next(name for name in ("input", "self") if name in scene.call.roles))
    title = f"{scene.subject}: the memory of `{text}` is not in the order that `view` needs"
    found = Mismatch(title, got=f"`{text}` is {shape_text(tuple(x.shape))} with strides {tuple(x.stride())}")
    if scene.axes(x):
        maker = scene.replay.provenance.maker(x)
        if maker is not None and (place := scene.replay.steps[maker].place) is not None:
            found.got += f", made by `{place.expression or scene.replay.steps[maker].op}`"
    call = scene.node
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        arguments = ", ".join(map(written, call.args))
        said = f"`{written(call.func.value)}.reshape({arguments})` in place of `.view`: it copies where it must"
        found.remedies.append(Remedy(said, scene.replacing(torch.Tensor.reshape), scene.line, 5))
    return found


def _written_sizes(scene: Scene) -> list[ast.expr]:
    """The sizes as the user wrote them."""
    node = scene.node
    if not isinstance(node, ast.Call):
        return []
    values = list(node.args)
    if isinstance(node.func, ast.Attribute) and written(node.func.value) == "torch":
        values = values[1:]
    if len(values) == 1 and isinstance(values[0], ast.Tuple | ast.List):
        values = values[0].elts
    return [] if any(isinstance(value, ast.Starred) for value in values) else values


def _other_size(scene: Scene, sizes: list[int], elements: int) -> Iterator[Remedy]:
    """One of the sizes replaced by what makes the product right."""
    texts = _written_sizes(scene)
    if len(texts) != len(sizes):
        texts = []
    for place, size in enumerate(sizes):
        others = math.prod(n for i, n in enumerate(sizes) if i != place and n != -1)
        if size == -1 or not others or elements % others or elements == 0:
            continue
        new = [*sizes[:place], -1 if -1 in sizes else elements // others, *sizes[place + 1 :]]
        if new.count(-1) > 1:
            continue
        constant = bool(texts) and not any(isinstance(n, ast.Name | ast.Attribute) for n in ast.walk(texts[place]))
        # A number written out is a likelier mistake than a name; and the later the likelier, but for the batch.
        rank = (12 if constant else 30) + (len(sizes) - place) + (5 if place == 0 else 0)
        said = [written(text) for text in texts] or [str(n) for n in sizes]
        old, said[place] = said[place], str(elements // others)
        if place == 0:
            said[place] = "-1"
        text = f"`{_method(scene, said)}`: {said[place]} in place of {old}"
        yield Remedy(text, _resized(scene, new), scene.line, rank)
    yield from _inferred(scene, sizes, elements)


def _inferred(scene: Scene, sizes: list[int], elements: int) -> Iterator[Remedy]:
    """The first axis kept as it is and the rest left to torch."""
    x = scene.call.tensor("input", "self")
    if x is not None and x.ndim and len(sizes) == 2 and elements:
        said = _method(scene, [f"{_name(scene)}.shape[0]", "-1"])
        yield Remedy(f"`{said}`", _resized(scene, [x.shape[0], -1]), scene.line, 40)


def _name(scene: Scene) -> str:
    return scene.call.text("input" if "input" in scene.call.roles else "self")


def _method(scene: Scene, sizes: Sequence[str]) -> str:
    node = scene.node
    name = written(node.func) if isinstance(node, ast.Call) else f"x.{scene.op}"
    if name.startswith("torch."):
        return f"{name}({_name(scene)}, ({', '.join(sizes)}))"
    return f"{name}({', '.join(sizes)})"


def _resized(scene: Scene, sizes: list[int]) -> Any:
    """An edit that keeps the elements in order; where the batch is not as it was here it is left to torch."""
    return scene.replacing(lambda tensor, *_, **__: tensor.reshape(sizes))


def _producers(scene: Scene, x: Tensor, sizes: Sequence[int]) -> Iterator[Remedy]:
    """The module that made an axis, made to give as much as is asked for."""
    asked_for = math.prod(n for n in sizes if n != -1)
    for axis in scene.axes(x):
        rest = x.numel() // axis.size if axis.size else 0
        if rest and -1 not in sizes and asked_for % rest == 0:
            remedy = scene.resized_producer(axis, asked_for // rest, 35)
            if remedy is not None:
                yield remedy


def split(scene: Scene) -> Mismatch | None:
    """Parts that don't add up to the axis that is split."""
    call = scene.call
    x = call.tensor("input", "self", "tensor")
    sizes = next((v for v in scene.failure.args[1:] if isinstance(v, list | tuple)), None)
    sizes = sizes or next((v for v in call.roles.values() if isinstance(v, list | tuple)), None)
    said = re.search(r"size at dimension (-?\d+)", scene.message)
    if x is None or not sizes or said is None:
        return None
    dim = int(said[1])
    axis, total = scene.axes(x)[dim], sum(sizes)
    text = " + ".join(map(str, sizes))
    name = next(name for name in ("input", "self", "tensor") if name in call.roles)
    title = f"{scene.subject}: {text} = {total} is not the {axis.size} of axis {dim % x.ndim} of `{call.text(name)}`"
    found = Mismatch(title, [(call.text(name), axis, total)])
    if (producer := scene.resized_producer(axis, total, 15)) is not None:
        found.remedies.append(producer)
    role = next((role for role, value in call.roles.items() if value is sizes), None)
    for place in reversed(range(len(sizes))):
        new = [*sizes]
        new[place] += axis.size - total
        if new[place] > 0 and role is not None and role in call.slots:
            edit = scene.setting(role, new)
            found.remedies.append(Remedy(f"sizes {new} in place of {list(sizes)}", edit, scene.line, 20))
    return found


ANALYSES: dict[str, Any] = {
    **dict.fromkeys(("view", "reshape", "unflatten", "view_as", "reshape_as", "resize_"), view),
    **dict.fromkeys(("split", "split_with_sizes", "tensor_split"), split),
}
