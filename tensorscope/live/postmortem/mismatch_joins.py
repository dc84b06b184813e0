"""What does not fit where tensors meet element by element or end to end: broadcasting, cat, stack."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from tensorscope.live.postmortem.axes import Kind
from tensorscope.live.postmortem.replay import Edit
from tensorscope.live.postmortem.scene import Mismatch, Remedy, attached, passed_through
from tensorscope.reports import nearby, shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from tensorscope.live.postmortem.axes import Axis
    from tensorscope.live.postmortem.scene import Scene

BROADCASTING = (
    *("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "pow", "where", "masked_fill", "masked_fill_"),
    *("maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne", "lerp", "addcmul", "addcdiv", "bitwise_and"),
    *("bitwise_or", "logical_and", "logical_or", "atan2", "remainder", "fmod", "mse_loss", "l1_loss", "rsub", "copy_"),
    *("smooth_l1_loss", "huber_loss", "kl_div", "gaussian_nll_loss", "poisson_nll_loss", "expand_as", "fmax", "fmin"),
    *("soft_margin_loss", "multiply", "subtract", "divide", "true_divide", "floor_divide"),
)
_REDUCTIONS = ("mean", "sum", "amax", "amin", "std", "var", "norm", "prod", "logsumexp", "vector_norm", "median", "any")


def broadcast(scene: Scene) -> Mismatch | None:
    """Tensors of which one axis can't be stretched to fit the other."""
    call = scene.call
    pair = next((p for p in combinations(call.tensors(), 2) if _clashes(*(call.roles[name] for name in p))), None)
    if pair is None:
        return None
    a, b = (call.roles[name] for name in pair)
    places = _clashes(a, b)
    place = places[0]
    one, other = (f"`{call.text(name)}`" for name in pair)
    left, right = scene.axes(a)[-place], scene.axes(b)[-place]
    title = f"{scene.subject} does not broadcast: {_difference(a, b, one, other, places)}"
    if f"`{call.text(pair[0])}`" == scene.subject:
        title = f"{one} and {other} do not go together: {a.shape[-place]} against {b.shape[-place]}"
    blamed: list[tuple[str, Axis, int | None]] = []
    told: set[tuple[int, int]] = set()
    for number in (places[-1], *places[:-1]):
        if (sizes := (a.shape[-number], b.shape[-number])) in told or len(told) == 2:
            continue  # width as height
        told.add(sizes)
        two = scene.axes(a)[-number], scene.axes(b)[-number]
        pairs = [(call.text(pair[0]), two[0], two[1].size), (call.text(pair[1]), two[1], two[0].size)]
        # A table is as large as it is; what meets it is at fault.
        table = bool(scene.replay.weight(a)) and not scene.replay.weight(b)
        blamed += reversed(pairs) if table else pairs
    found = Mismatch(title, blamed)
    found.remedies += [*_more_axes(scene, pair), *_cut(scene, pair, place), *_projected(scene, pair)]
    found.remedies += [remedy for role in pair for remedy in _made_otherwise(scene, role)]
    # What was computed last is likelier to be wrong than what it is added to.
    sized = (scene.resized_producer(left, right.size, 34), scene.resized_producer(right, left.size, 32))
    found.remedies += [remedy for remedy in sized if remedy is not None]
    found.remedies += [*scene.window(left, right.size), *scene.window(right, left.size)]
    if len(places) == 2 and min(a.ndim, b.ndim) == 4 and a.is_floating_point() and b.is_floating_point():
        found.remedies += [replace(remedy, rank=45) for remedy in _resampled(scene, pair)]
    return found


def _clashes(a: Tensor, b: Tensor) -> list[int]:
    """The axes that do not fit, counted from 1 from the right."""
    places = range(1, min(a.ndim, b.ndim) + 1)
    return [p for p in places if a.shape[-p] != b.shape[-p] and 1 not in (a.shape[-p], b.shape[-p])]


def _difference(a: Tensor, b: Tensor, one: str, other: str, places: list[int]) -> str:
    if len(places) > 1 and a.ndim == b.ndim:
        axes = [a.ndim - place for place in reversed(places)]
        listed = ", ".join(map(str, axes[:-1])) + f" and {axes[-1]}"
        sizes = [shape_text(tuple(t.shape[axis] for axis in axes)) for t in (a, b)]
        return f"axes {listed} are {sizes[0]} in {one} and {sizes[1]} in {other}"
    place = places[0]
    if a.ndim == b.ndim:
        return f"axis {a.ndim - place} is {a.shape[-place]} in {one} and {b.shape[-place]} in {other}"
    if place == 1:
        return f"the last axis is {a.shape[-1]} in {one} and {b.shape[-1]} in {other}"
    axes = [t.ndim - place for t in (a, b)]
    return f"axis {axes[0]} of {one} is {a.shape[-place]}, axis {axes[1]} of {other} is {b.shape[-place]}"


def _more_axes(scene: Scene, pair: tuple[str, str]) -> Iterator[Remedy]:
    """The tensor with fewer axes, with axes of size 1 put where its own then meet their equals."""
    call = scene.call
    a, b = (call.roles[name] for name in pair)
    role, small, large = (pair[0], a, b) if a.ndim < b.ndim else (pair[1], b, a)
    missing = large.ndim - small.ndim
    if not missing or not small.ndim:
        return
    for places in combinations(range(large.ndim), small.ndim):
        sizes = [large.shape[place] for place in places]
        if list(small.shape) != sizes or places == tuple(range(missing, large.ndim)):
            continue
        index = tuple(slice(None) if axis in places else None for axis in range(places[0], large.ndim))
        text = ", ".join(":" if entry else "None" for entry in index)
        # A mask over keys ends where the scores end.
        rank = (8 if places[0] <= 1 else 16) + (places[-1] != large.ndim - 1)
        if places == (0,):
            text, rank = ", ".join([":", *["None"] * (len(index) - 1)]), 9
        yield scene.transform(role, f"[{text}]", rank)


def _made_otherwise(scene: Scene, role: str) -> Iterator[Remedy]:
    """A reduction that kept its axis, or a new axis put elsewhere."""
    maker = scene.replay.provenance.maker(scene.call.roles[role])
    step = scene.replay.steps[maker] if maker is not None else None
    site = scene.site_of(step) if step is not None else None
    if step is None or site is None:
        return
    place = step.place
    where = f"{place.file}:{place.line}" if place is not None else ""
    text = place.expression if place is not None else step.op
    if step.op in _REDUCTIONS and not step.kwargs.get("keepdim"):
        edit = Edit(calls={site: lambda func, args, kwargs: (func, args, {**kwargs, "keepdim": True})})
        yield Remedy(f"`keepdim=True` in `{text}`", edit, where, 6)
    if step.op == "unsqueeze":
        for dim in range(len(step.shapes[0])):
            edit = scene.replacing_at(site, partial(_unsqueezed, dim=dim))
            yield scene.rewritten(step, f"unsqueeze({dim})", edit, 8)


def _unsqueezed(tensor: Tensor, *_: Any, dim: int) -> Tensor:
    return tensor.unsqueeze(dim)


def _cut(scene: Scene, pair: tuple[str, str], place: int) -> Iterator[Remedy]:
    """The longer tensor cut to the shorter one, where the longer one is a table; or the program's input."""
    call = scene.call
    for role, other in (pair, pair[::-1]):
        yield from _cropped(scene, role, other)
        tensor, size = call.roles[role], call.roles[other].shape[-place]
        axis = scene.axes(tensor)[-place]
        if axis.size <= size:
            continue
        dim, text = tensor.ndim - place, call.texts.get(other, "")
        across = f".shape[{call.roles[other].ndim - place}]"
        short = attached(text, across) if 0 < len(text) <= 24 else size
        cut, shortened = ", ".join([*[":"] * dim, f":{short}"]), passed_through(f"[{':, ' * dim}:{size}]")
        if scene.replay.weight(tensor) and axis.kind is Kind.WEIGHT:
            yield scene.transform(role, f"[{cut}]", 12, shortened)
        against = scene.axes(call.roles[other])[-place]
        if scene.replay.weight(call.roles[other]) or any(w.label.startswith("axis ") for w in against.weights()):
            yield from _shorter_input(scene, axis, size)
        if tensor.ndim >= 3 and tensor.ndim == call.roles[other].ndim and dim >= 2:
            yield scene.transform(role, f"[{cut}]", 28, shortened)


def _cropped(scene: Scene, role: str, other: str) -> Iterator[Remedy]:
    """A table such as a triangle of ones, cut along several axes."""
    table, like = scene.call.roles[role], scene.call.roles[other]
    places = _clashes(table, like)
    made = [weight.label for axis in scene.axes(table) for weight in axis.weights()]
    larger = all(table.shape[-place] > like.shape[-place] for place in places)
    if len(places) < 2 or not larger or not made or not all(label.startswith("axis ") for label in made):
        return
    text = scene.call.texts.get(other, "")
    sizes = {place: f":{text}.shape[-{place}]" if text.isidentifier() else f":{like.shape[-place]}" for place in places}
    cut = [sizes.get(table.ndim - axis, ":") for axis in range(table.ndim)]
    short = [
        f":{like.shape[-(table.ndim - axis)]}" if table.ndim - axis in sizes else ":" for axis in range(table.ndim)
    ]
    yield scene.transform(role, f"[{', '.join(cut)}]", 7, passed_through(f"[{', '.join(short)}]"))


def _shorter_input(scene: Scene, axis: Any, size: int) -> Iterator[Remedy]:
    from tensorscope.live.postmortem.wording import fitting

    fit = fitting(axis, size)
    if fit is None:
        return
    for source, new in fit.sizes.items():
        name, index = source.name, source.index
        given = scene.program.given.get(name)
        if given is not None and new < given.shape[index]:
            cut = ", ".join([*[":"] * index, f":{new}"])
            said = f"give it at most {new}: `{name}[{cut}]`"
            yield Remedy(said, scene.given(name, passed_through(f"[{cut}]")), "", 22)


def _projected(scene: Scene, pair: tuple[str, str]) -> Iterator[Remedy]:
    """A residual that takes a projection where sizes change."""
    call = scene.call
    if not call.op.startswith("add"):
        return
    for role, other in (pair[::-1], pair):
        tensor, target = call.roles[role], call.roles[other]
        if tensor.ndim != target.ndim or not tensor.is_floating_point() or _is_made_here(scene, tensor):
            continue  # a layer of this block, which can be made to fit
        text = call.text(role)
        if tensor.ndim == 4 and tensor.shape[0] == target.shape[0]:
            yield from _strided(scene, role, tensor, target)
        elif tensor.shape[:-1] == target.shape[:-1]:
            shape = tensor.shape[-1], target.shape[-1]
            edit = scene.changing(role, passed_through(f" @ tensor.new_zeros({shape})"), only_here=True)
            yield Remedy(f"a projection on the shortcut `{text}`: `nn.Linear{shape}`", edit, scene.line, 30)


def _is_made_here(scene: Scene, tensor: Tensor) -> bool:
    """Whether a tensor comes straight from one of the layers of the module that was running."""
    maker = scene.replay.provenance.maker(tensor)
    module = scene.replay.steps[maker].module if maker is not None else ""
    return module != scene.path and module.startswith(f"{scene.path}." if scene.path else "") and bool(module)


def _strided(scene: Scene, role: str, tensor: Tensor, target: Tensor) -> Iterator[Remedy]:
    strides = [
        -(-small // large) if large else 0 for small, large in zip(tensor.shape[2:], target.shape[2:], strict=True)
    ]
    made = [(size - 1) // stride + 1 if stride else 0 for size, stride in zip(tensor.shape[2:], strides, strict=True)]
    if made != list(target.shape[2:]) or strides[0] != strides[1]:
        return
    stride, channels = strides[0], (target.shape[1], tensor.shape[1], 1, 1)
    said = f"a projection on the shortcut `{scene.call.text(role)}`: `nn.Conv2d({channels[1]}, {channels[0]}, 1"
    said += f", stride={stride})`" if stride > 1 else ")`"
    edit = scene.changing(role, lambda t: F.conv2d(t, t.new_zeros(channels), stride=stride), only_here=True)
    yield Remedy(said, edit, scene.line, 10)


def _op_of(scene: Scene, tensor: Tensor) -> str:
    maker = scene.replay.provenance.maker(tensor)
    return scene.replay.steps[maker].op if maker is not None else ""


def joined(scene: Scene) -> Mismatch | None:
    """`cat` of tensors that differ in more than the axis they are joined along."""
    call = scene.call
    parts = {name: t for name, t in call.tensors().items() if name.startswith("tensors")}
    if len(parts) < 2:
        return None
    (first, a), *rest = parts.items()
    dim = call.roles.get("dim", 0)
    dim = dim if isinstance(dim, int) else 0
    for name, b in rest:
        if a.ndim != b.ndim or not a.ndim:
            return _uneven(scene, (first, name))
        axes = [i for i in range(a.ndim) if a.shape[i] != b.shape[i] and i != dim % a.ndim]
        if axes:
            return _unequal(scene, (first, name), axes, dim)
    return None


def _uneven(scene: Scene, pair: tuple[str, str]) -> Mismatch:
    call = scene.call
    a, b = (call.roles[name] for name in pair)
    one, other = (call.text(name) for name in pair)
    found = Mismatch(f"{scene.subject}: `{one}` has {a.ndim} axes and `{other}` has {b.ndim}")
    if not a.ndim and not b.ndim:
        found.title = f"{scene.subject}: numbers without axes, such as `{one}`, have none to be joined along"
    role, small, large = (pair[0], a, b) if a.ndim < b.ndim else (pair[1], b, a)
    if not small.ndim:
        edit = scene.replacing(lambda tensors, *_, **__: torch.stack(list(tensors)))
        found.remedies.append(Remedy("`torch.stack` in place of `torch.cat`", edit, scene.line, 8))
    dim = call.roles.get("dim", 0)
    if isinstance(dim, int) and large.ndim - small.ndim == 1 and small.ndim:
        found.remedies += _same_rank(scene, (role, pair[0] if role == pair[1] else pair[1]), dim % large.ndim)
    return found


def _same_rank(scene: Scene, pair: tuple[str, str], dim: int) -> Iterator[Remedy]:
    """The part with fewer axes given one more, or the other one's axis of size 1 taken away."""
    small, large = (scene.call.roles[name] for name in pair)
    for place in range(large.ndim):
        rest = [(axis, size) for axis, size in enumerate(large.shape) if axis != place]
        fits = all(size == have or axis == dim for (axis, size), have in zip(rest, small.shape, strict=True))
        if fits and large.shape[place] == 1 and place != dim:
            yield scene.transform(pair[1], f".squeeze({place})", 6)
        if fits and (place == dim or large.shape[place] == 1):
            yield scene.transform(pair[0], f".unsqueeze({place})", 10)
        elif fits:
            sizes = [str(large.shape[place]) if axis == place else "-1" for axis in range(large.ndim)]
            yield scene.transform(pair[0], f".unsqueeze({place}).expand({', '.join(sizes)})", 11 + (place > 0))


def _unequal(scene: Scene, pair: tuple[str, str], axes: Sequence[int], dim: int) -> Mismatch:
    call = scene.call
    a, b = (call.roles[name] for name in pair)
    one, other = (call.text(name) for name in pair)
    left, right = scene.axes(a)[axes[0]], scene.axes(b)[axes[0]]
    title = f"{scene.subject}: axis {axes[0]} is {left.size} in `{one}` and {right.size} in `{other}`"
    found = Mismatch(title, [(one, left, right.size), (other, right, left.size)])
    others = [i for i in range(a.ndim) if a.shape[i] != b.shape[i]]
    if len(others) == 1 and "dim" in call.slots:
        edit = scene.changing("dim", lambda _: others[0])
        found.remedies.append(
            Remedy(
                f"`dim={others[0]}` in place of `dim={dim}`",
                edit,
                scene.line,
                6,
                recipe="dim",
                target=f"`dim` at {nearby(scene.line)}",
            )
        )
    elif len(others) == 1:
        edit = scene.replacing(lambda tensors, *_, **__: torch.cat(tensors, others[0]))
        found.remedies.append(
            Remedy(f"join along axis {others[0]}: `dim={others[0]}`", edit, scene.line, 6, recipe="dim")
        )
    if min(axes) >= 2 and len(axes) > 1 and a.is_floating_point():
        found.remedies += _resampled(scene, pair)
    for axis, size in ((left, right.size), (right, left.size)):
        found.remedies += scene.window(axis, size, 18)
        if (remedy := scene.resized_producer(axis, size, 30)) is not None:
            found.remedies.append(remedy)
    for role, tensor, other_size in ((pair[0], a, b), (pair[1], b, a)):
        if len(axes) == 1 and tensor.shape[axes[0]] == 1:
            sizes = [-1] * tensor.ndim
            sizes[axes[0]] = other_size.shape[axes[0]]
            partner = call.texts.get(pair[1] if role == pair[0] else pair[0], "")
            said = [f"{partner}.shape[{axes[0]}]" if n != -1 and partner.isidentifier() else str(n) for n in sizes]
            text = f".expand({', '.join(said)})"
            change = passed_through(f".expand({', '.join(map(str, sizes))})")
            found.remedies.append(scene.transform(role, text, 10, change))
    return found


def _resampled(scene: Scene, pair: tuple[str, str]) -> Iterator[Remedy]:
    """Maps of unequal size brought to the same one."""
    call = scene.call
    a, b = (call.roles[name] for name in pair)
    grows = a.shape[2:].numel() < b.shape[2:].numel()
    role, other = pair if grows else pair[::-1]
    resized = [name for name in pair if _op_of(scene, call.roles[name]) in ("interpolate", "upsample")]
    if len(resized) == 1:  # which is there to be brought to the other's size
        role, other = (resized[0], pair[0] if pair[1] == resized[0] else pair[1])
    size = tuple(call.roles[other].shape[2:])
    text = call.text(role)
    said = f"`F.interpolate({text}, size={call.text(other)}.shape[2:])` in place of `{text}`"
    yield Remedy(said, scene.changing(role, lambda t: F.interpolate(t, size=size)), scene.line, 15)


def stacked(scene: Scene) -> Mismatch | None:
    """`stack` of tensors of unequal shape."""
    call = scene.call
    parts = [(name, t) for name, t in call.tensors().items() if name.startswith("tensors")]
    odd = next((part for part in parts if part[1].shape != parts[0][1].shape), None) if parts else None
    if odd is None:
        return None
    (first, a), (name, b) = parts[0], odd
    shapes = shape_text(tuple(a.shape)), shape_text(tuple(b.shape))
    found = Mismatch(f"{scene.subject}: `{call.text(first)}` is {shapes[0]} and `{call.text(name)}` is {shapes[1]}")
    if a.ndim != b.ndim:
        return found
    axes = [i for i in range(a.ndim) if a.shape[i] != b.shape[i]]
    left, right = scene.axes(a)[axes[0]], scene.axes(b)[axes[0]]
    found.blamed = [(call.text(first), left, right.size), (call.text(name), right, left.size)]
    for axis, size in ((left, right.size), (right, left.size)):
        if (remedy := scene.resized_producer(axis, size, 20)) is not None:
            found.remedies.append(remedy)
    if axes == [0]:
        pad = torch.nn.utils.rnn.pad_sequence
        edit = scene.replacing(lambda tensors, *_, **__: pad(list(tensors), batch_first=True))
        said = "pad them to the longest: `nn.utils.rnn.pad_sequence(…, batch_first=True)`"
        found.remedies.append(Remedy(said, edit, scene.line, 15))
    if len(axes) == 1:
        edit = scene.replacing(lambda tensors, *_, **__: torch.cat(list(tensors), axes[0]))
        found.remedies.append(Remedy(f"`torch.cat(…, dim={axes[0]})` in place of `stack`", edit, scene.line, 25))
    return found


ANALYSES: dict[str, Any] = {
    **dict.fromkeys(BROADCASTING, broadcast),
    **dict.fromkeys(("cat", "concat", "concatenate", "hstack", "vstack"), joined),
    "stack": stacked,
}
