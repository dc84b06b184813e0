"""What does not fit where a number of axes is taken for granted: unpacking, expand, `t`, axes that are not there."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.calls import operand
from tensorscope.live.postmortem.replay import Edit
from tensorscope.live.postmortem.scene import Mismatch, Remedy, attached, passed_through
from tensorscope.live.postmortem.source import written
from tensorscope.reports import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from tensorscope.live.postmortem.scene import Scene
    from tensorscope.reports import Operand

_PARTING = ("chunk", "split", "unbind", "tensor_split", "split_with_sizes")


def missing_axis(scene: Scene) -> Mismatch | None:
    """An axis is named that a tensor doesn't have."""
    call = scene.call
    said = re.search(r"expected to be in range of \[(-?\d+), (-?\d+)\], but got (-?\d+)", scene.message)
    x = call.tensor("input", "self", "tensors[0]")
    if said is None or x is None:
        return None
    low, high, got = map(int, said.groups())
    name = next(name for name in ("input", "self", "tensors[0]") if name in call.roles)
    has = f"`{call.text(name)}` has {x.ndim} {'axis' if x.ndim == 1 else 'axes'}"
    found = Mismatch(f"{scene.subject}: {has}, and axis {got} is asked for")
    found.got = f"`{call.text(name)}` is {shape_text(tuple(x.shape))}: axes {max(low, 0)} to {high}"
    found.blamed = [(call.text(name), axis, None) for axis in scene.axes(x)[-1:]]
    for role, value in call.roles.items():
        if type(value) is int and value == got and role in call.slots:
            for rank, dim in ((8, -1), (14, high)):
                edit = scene.setting(role, dim)
                said_fix = f"`{role}={dim}` in place of `{role}={got}`"
                found.remedies.append(Remedy(said_fix, edit, scene.line, rank))
    return found


def expand(scene: Scene) -> Mismatch | None:
    """An axis is to be expanded that isn't of size 1."""
    call = scene.call
    x = call.tensor("input", "self")
    said = re.search(r"size of the tensor \((-?\d+)\) must match the existing size \((\d+)\)", scene.message)
    if x is None or said is None or scene.op not in ("expand", "broadcast_to"):
        return None
    asked = [v for v in _flat(scene.failure.args[1:]) if isinstance(v, int)]
    text = call.text("input" if "input" in call.roles else "self")
    places = [i for i in range(1, x.ndim + 1) if x.shape[-i] not in (1, asked[-i]) and asked[-i] != -1]
    place = places[0]
    axis = scene.axes(x)[-place]
    title = (
        f"{scene.subject}: axis {x.ndim - place} of `{text}` is {axis.size} and cannot be expanded to {asked[-place]}"
    )
    found = Mismatch(title, [(text, axis, asked[-place])])
    sizes = [-1 if len(asked) - i in places else size for i, size in enumerate(asked)]
    said_fix = f"`-1` in place of {asked[-place]}: the axis keeps its size"
    edit = scene.replacing(lambda t, *_, **__: t.expand(*sizes))
    found.remedies.append(Remedy(said_fix, edit, scene.line, 15))
    return found


def _flat(args: tuple[Any, ...]) -> list[Any]:
    return list(args[0]) if len(args) == 1 and isinstance(args[0], tuple | list) else list(args)


def turned(scene: Scene) -> Mismatch | None:
    """`t` of a tensor of more than two axes."""
    call = scene.call
    x = call.tensor("input", "self")
    if x is None or x.ndim <= 2:
        return None
    text = call.text("input" if "input" in call.roles else "self")
    title = f"{scene.subject}: `t` swaps the axes of a matrix and `{text}` has {x.ndim} axes"
    found = Mismatch(title, [(text, axis, None) for axis in scene.axes(x)[-1:]])
    said = f"`{attached(text, '.transpose(-2, -1)')}` in place of `{attached(text, '.t()')}`"
    found.remedies.append(Remedy(said, scene.replacing(lambda t, *_: t.mT), scene.line, 5))
    return found


def in_place(scene: Scene) -> Mismatch | None:
    """A result that is larger than the tensor that it is written into."""
    call = scene.call
    said = re.search(r"output with shape \[(.*?)\] doesn't match the broadcast shape \[(.*?)\]", scene.message)
    x = call.tensor("input", "self")
    if said is None or x is None:
        return None
    text = call.text("input" if "input" in call.roles else "self")
    title = f"{scene.subject}: the result is ({said[2]}) and `{text}`, which is to hold it, ({said[1]})"
    found = Mismatch(title, [(text, axis, None) for axis in scene.axes(x)[-1:]])
    outside = getattr(torch, scene.op.rstrip("_"), None)
    if isinstance(scene.node, ast.AugAssign | ast.BinOp) and outside is not None:
        statement = scene.place.statement if scene.place else None
        new = _out_of_place(statement)
        found.remedies.append(Remedy(f"out of place: {new}", scene.replacing(outside), scene.line, 8))
    return found


def _out_of_place(statement: ast.stmt | None) -> str:
    if not isinstance(statement, ast.AugAssign):
        return "a new tensor for the result"
    target = ast.parse(written(statement.target), mode="eval").body
    whole = ast.Assign([statement.target], ast.BinOp(target, statement.op, statement.value))
    return f"`{written(ast.fix_missing_locations(whole))}`"


# -- unpacking ------------------------------------------------------------------------------------------------------


def unpacked(scene: Scene) -> tuple[Mismatch, tuple[Operand, ...]] | None:
    """A shape, or the parts of a tensor, unpacked into another number of names."""
    if "values to unpack" not in scene.message or scene.place is None:
        return None
    statement = scene.place.statement
    value = getattr(statement, "value", None)
    names = next((t for t in getattr(statement, "targets", []) if isinstance(t, ast.Tuple | ast.List)), None)
    if value is None or names is None:
        return None
    count = len(names.elts)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _PARTING:
        return _parts(scene, value, count)
    subject = value.value if isinstance(value, ast.Attribute) and value.attr == "shape" else value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "size":
        subject = value.func.value
    tensor = _evaluated(scene, subject)
    if tensor is None:
        return None
    text, shape = written(subject), shape_text(tuple(tensor.shape))
    line = f"`{written(statement)}`" if len(written(statement)) <= 60 else scene.subject
    found = Mismatch(f"{line} takes {count} axes and `{text}` has {tensor.ndim}: {shape}")
    found.blamed = [(text, axis, None) for axis in scene.axes(tensor)[-1:]]
    if subject is not value:
        found.remedies += _entering(scene, tensor, text, count)
        found.remedies += _kept(scene, tensor, count)
    return found, (operand(text, tensor),)


def _evaluated(scene: Scene, node: ast.expr) -> Tensor | None:
    """A name or attribute's value in the frame that failed."""
    level = scene.failure.crash.scene
    if level is None or not isinstance(node, ast.Name | ast.Attribute):
        return None
    value: Any = None
    if isinstance(node, ast.Name):
        value = level.frame.f_locals.get(node.id)
    elif isinstance(node.value, ast.Name):
        value = getattr(level.frame.f_locals.get(node.value.id), node.attr, None)
    return value if isinstance(value, torch.Tensor) else None


def _entering(scene: Scene, tensor: Tensor, text: str, count: int) -> Iterator[Remedy]:
    """The module given a tensor with the axes that it unpacks."""
    slot = scene.argument_of(tensor)
    if slot is None:
        return
    owner = f" before `{scene.path}`" if scene.path else ""
    if tensor.ndim == count - 1:
        for place in range(count):
            edit = _passing(scene.path, slot, f".unsqueeze({place})")
            what = "pass a batch: " if place == 0 else ""
            yield Remedy(f"{what}`{text}.unsqueeze({place})`{owner}", edit, scene.line, 12 + place)
    for place, size in enumerate(tensor.shape):
        if tensor.ndim == count + 1 and size == 1:
            edit = _passing(scene.path, slot, f".squeeze({place})")
            yield Remedy(f"`{text}.squeeze({place})`{owner}", edit, scene.line, 12)
    if tensor.ndim == count + 1 and count >= 2:
        edit = _passing(scene.path, slot, ".flatten(0, 1)")
        yield Remedy(f"`{text}.flatten(0, 1)`{owner}", edit, scene.line, 30)


def _passing(path: str, slot: int, suffix: str) -> Edit:
    """An edit that passes an argument of a module through something."""
    change = passed_through(suffix)
    return Edit(entering={path: lambda args: (*args[:slot], change(args[slot]), *args[slot + 1 :])})


def _kept(scene: Scene, tensor: Tensor, count: int) -> Iterator[Remedy]:
    """An earlier `squeeze` that took an axis too many."""
    steps = scene.replay.steps
    number: int | None = scene.replay.provenance.maker(tensor)
    for _ in range(4):
        if number is None:
            return
        step = steps[number]
        site = scene.site_of(step)
        if step.op == "squeeze" and site is not None and tensor.ndim < count:
            for dim in (-1, 1):
                edit = scene.replacing_at(site, lambda t, *_, d=dim, **__: t.squeeze(d))
                yield scene.rewritten(step, f"squeeze({dim})", edit, 8)
            yield scene.rewritten(step, "squeeze(0)[None]", scene.replacing_at(site, lambda t, *_, **__: t), 60)
        number = step.sources[-1] if step.sources else None


def _parts(scene: Scene, value: ast.Call, count: int) -> tuple[Mismatch, tuple[Operand, ...]] | None:
    """A tensor divided into more or fewer parts than there are names."""
    assert isinstance(value.func, ast.Attribute)
    steps = scene.replay.steps
    step = next((s for s in reversed(steps) if s.op == value.func.attr and s.module == scene.path), None)
    if step is None or step.place is None:
        return None
    sizes = list(step.shapes)
    title = f"`{written(value)}` makes {len(sizes)} parts and {count} are unpacked"
    found = Mismatch(title)
    found.got = " · ".join(map(shape_text, sizes))
    source = steps[step.sources[-1]].shapes[0] if step.sources else ()
    operands = (operand(written(value.func.value), torch.empty(source, device="meta")),) if source else ()
    dim = next((v for v in (step.kwargs.get("dim"), *step.args[2:3]) if isinstance(v, int)), 0)
    site = scene.site_of(step)
    if site is not None:
        edit = scene.replacing_at(site, lambda t, *_, **__: t.chunk(count, dim))
        found.remedies.append(scene.rewritten(step, f"chunk({count}, dim={dim})", edit, 10))
    return found, operands


ANALYSES: dict[str, Any] = {
    "t": turned,
    "expand": expand,
    "broadcast_to": expand,
    **dict.fromkeys(("add_", "sub_", "mul_", "div_"), in_place),
}
