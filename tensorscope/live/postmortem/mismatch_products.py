"""What does not fit in linear layers, matrix products and einsum."""

from __future__ import annotations

import ast
import math
from itertools import permutations
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem.replay import Edit
from tensorscope.live.postmortem.scene import Mismatch, Remedy
from tensorscope.live.postmortem.source import written
from tensorscope.reports import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from tensorscope.live.postmortem.axes import Axis
    from tensorscope.live.postmortem.scene import Scene

_FACTORS = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2")}
_RANKS = {"bmm": (3, 3), "mm": (2, 2), "mv": (2, 1), "dot": (1, 1)}
_TURNING = ("transpose", "permute", "swapaxes", "swapdims", "movedim", "t")


def linear(scene: Scene) -> Mismatch | None:
    """A linear layer whose input has another number of features than it takes."""
    call = scene.call
    x, weight = call.tensor("input"), call.tensor("weight")
    if x is None or weight is None or weight.ndim != 2 or (x.ndim and x.shape[-1] == weight.shape[1]):
        return None
    want = weight.shape[1]
    if x.ndim == 0:
        return Mismatch(f"{scene.subject} got a tensor without axes and takes {want} features", layout=True)
    axis = scene.axes(x)[-1]
    found = Mismatch(f"{scene.subject} got {x.shape[-1]} features and takes {want}", [(call.text("input"), axis, want)])
    found.remedies += [*_other_layouts(scene, x, want), *_flattened_anew(scene, x), *made_otherwise(scene, "input")]
    sized = [scene.resized_producer(axis, want)]
    if isinstance(scene.module, nn.Linear):
        # A layer as wide as the batch is none that anybody wants.
        sized.append(scene.resized_consumer("in_features", x.shape[-1], 90 if is_batch(axis) else 20))
    elif weight.shape[0] == x.shape[-1]:
        sized.append(scene.transform("weight", ".t()", 15))
    found.remedies += [remedy for remedy in sized if remedy is not None]
    return found


def is_batch(axis: Axis) -> bool:
    """Whether an axis is an input's first one."""
    return axis.source is not None and axis.source.index == 0


def made_otherwise(scene: Scene, role: str) -> Iterator[Remedy]:
    """An operand whose axes were swapped for nothing, or that was made along another axis than the last."""
    maker = scene.replay.provenance.maker(scene.call.roles[role])
    step = scene.replay.steps[maker] if maker is not None else None
    site = scene.site_of(step) if step is not None else None
    if step is None or site is None or step.place is None:
        return
    node = step.place.node
    if step.op in _TURNING and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        said = f"`{written(node.func.value)}` in place of `{step.place.expression}`"
        edit = scene.replacing_at(site, lambda tensor, *_, **__: tensor)
        yield Remedy(said, edit, f"{step.place.file}:{step.place.line}", 16)
    dim = step.kwargs.get("dim", 0 if step.op in ("cat", "concat") and len(step.args) == 1 else None)
    if type(dim) is int and dim != -1:
        edit = Edit(calls={site: lambda func, args, kwargs: (func, args, {**kwargs, "dim": -1})})
        said = f"`dim=-1` in `{step.place.expression}`"
        rank = 7 if step.op in ("cat", "concat") else 18
        yield Remedy(said, edit, f"{step.place.file}:{step.place.line}", rank)


def _other_layouts(scene: Scene, x: Tensor, want: int) -> Iterator[Remedy]:
    """Ways in which the same elements have the features last."""
    for first in range(1 if x.ndim > 1 else 0, x.ndim - 1):
        if math.prod(x.shape[first:]) == want:
            yield scene.transform("input", f".flatten({first})", 5)
    for place in range(x.ndim - 1):
        if x.shape[place] == want and x.ndim > 2:
            rank = 12 if place else 45  # the first axis is the batch's, as a rule
            suffix = f".movedim({place}, -1)" if x.ndim > 3 else f".transpose({place}, -1)"
            yield scene.transform("input", suffix, rank)


def _flattened_anew(scene: Scene, x: Tensor) -> Iterator[Remedy]:
    """The batch was flattened along with the rest."""
    maker = scene.replay.provenance.maker(x)
    if maker is None:
        return
    step = scene.replay.steps[maker]
    site = scene.site_of(step)
    before = scene.replay.steps[step.sources[0]].shapes[0] if step.sources else ()
    batch = before[0] if before else _batch(scene, x)
    flat = step.op in ("flatten", "view", "reshape", "ravel") and (x.ndim == 1 or (x.ndim == 2 and batch != x.shape[0]))
    if flat and site is not None and batch:
        edit = scene.replacing_at(site, lambda tensor, *_, **__: tensor.flatten(1))
        yield scene.rewritten(step, "flatten(1)", edit, 4)


def _batch(scene: Scene, x: Tensor) -> int:
    """The size of the first axis of what the program was given."""
    return next((t.shape[0] for _, t in scene.replay.given if t.ndim > 1), 0)


def product(scene: Scene) -> Mismatch | None:
    """A matrix product whose factors do not go together."""
    call = scene.call
    left, right = _FACTORS.get(call.op, ("input", "other"))
    if not {left, right} <= call.roles.keys():
        left, right = list(call.tensors())[:2] if len(call.tensors()) >= 2 else ("", "")
    a, b = call.tensor(left), call.tensor(right)
    if a is None or b is None or 0 in (a.ndim, b.ndim):
        return None
    wanted = _RANKS.get(call.op)
    if wanted and (a.ndim, b.ndim) != wanted:
        return _wrong_rank(scene, (left, right), wanted)
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    names = f"`{call.text(left)}`", f"`{call.text(right)}`"
    if a.shape[-1] != inner:
        side = "the last axis but one" if b.ndim > 1 else "the only axis"
        title = f"{scene.subject}: the last axis of {names[0]} is {a.shape[-1]}, {side} of {names[1]} is {inner}"
        axes = scene.axes(a)[-1], scene.axes(b)[-2 if b.ndim > 1 else 0]
        found = Mismatch(title, [(call.text(left), axes[0], inner), (call.text(right), axes[1], a.shape[-1])])
        sized = (scene.resized_producer(axes[0], inner, 35), scene.resized_producer(axes[1], a.shape[-1], 35))
        found.remedies += [remedy for remedy in sized if remedy is not None]
    else:
        batch = shape_text(tuple(a.shape[:-2])), shape_text(tuple(b.shape[:-2]))
        title = (
            f"{scene.subject}: the axes before the last two are {batch[0]} in {names[0]} and {batch[1]} in {names[1]}"
        )
        pairs = zip(reversed(scene.axes(a)[:-2]), reversed(scene.axes(b)[:-2]), strict=False)
        clash = next(((m, n) for m, n in pairs if m.size != n.size and 1 not in (m.size, n.size)), None)
        found = Mismatch(title)
        if clash is not None:
            one, other = clash
            found.blamed = [(call.text(left), one, other.size), (call.text(right), other, one.size)]
        found.remedies += _repeated(scene, left, right)
    found.got = "\n".join(filter(None, (_turning(scene, role) for role in (left, right))))
    found.remedies += [*_turned(scene, left, right), *_turned_earlier(scene, left, right)]
    is_square = b.ndim == 2 and b.shape[0] == b.shape[1]  # such as an adjacency matrix
    if call.op in ("matmul", "mm") and is_square and a.ndim == 2 and b.shape[-1] == a.shape[0]:
        said = f"`{call.text(right)}` first, then `{call.text(left)}`"
        edit = scene.replacing(lambda x, y, *_: y @ x)
        found.remedies.append(Remedy(said, edit, scene.line, 9, recipe="swap", target=scene.line))
    return found


def _repeated(scene: Scene, left: str, right: str) -> Iterator[Remedy]:
    """The factor with fewer entries on a batch axis repeated, such as keys that several heads share."""
    for role, other in ((right, left), (left, right)):
        small, large = scene.call.roles[role], scene.call.roles[other]
        for place in range(min(small.ndim, large.ndim) - 2):
            have, want = small.shape[place], large.shape[place]
            if small.ndim == large.ndim and 1 < have < want and want % have == 0:
                yield scene.transform(role, f".repeat_interleave({want // have}, dim={place})", 20)


def _turning(scene: Scene, role: str) -> str:
    """What shape a factor had before its axes were swapped."""
    steps = scene.replay.steps
    maker = scene.replay.provenance.maker(scene.call.roles[role])
    if maker is None or steps[maker].op not in _TURNING or not steps[maker].sources:
        return ""
    before, after = steps[steps[maker].sources[0]].shapes[0], steps[maker].shapes[0]
    place = steps[maker].place
    text = place.expression if place is not None else steps[maker].op
    return f"`{text}` made {shape_text(after)} of {shape_text(before)}" if len(before) == len(after) else ""


def _wrong_rank(scene: Scene, names: tuple[str, str], wanted: tuple[int, int]) -> Mismatch:
    call = scene.call
    tensors = [call.roles[name] for name in names]
    role, tensor, rank = next((n, t, r) for n, t, r in zip(names, tensors, wanted, strict=True) if t.ndim != r)
    found = Mismatch(f"{scene.subject} takes a {rank}-D tensor, `{call.text(role)}` has {tensor.ndim} axes")
    found.layout = True
    found.got = f"{shape_text(tuple(tensor.shape))}"
    others = [t for t in tensors if t is not tensor]
    if (
        call.op == "bmm"
        and tensor.ndim == 2
        and others
        and others[0].ndim == 3
        and tensor.shape[0] == others[0].shape[0]
    ):
        place = 1 if role == names[0] else 2
        found.remedies.append(scene.transform(role, f".unsqueeze({place})", 6))
    if call.op in ("mm", "bmm", "mv", "dot"):
        said = f"`torch.matmul` in place of `{call.op}`: it takes any number of batch axes"
        found.remedies.append(Remedy(said, scene.replacing(torch.matmul), scene.line, 10))
    return found


def _turned(scene: Scene, left: str, right: str) -> Iterator[Remedy]:
    """One factor with its axes in another order."""
    call = scene.call
    a, b = call.roles[left], call.roles[right]
    suffix = {2: ".t()"}
    for role, tensor, rank in ((right, b, 10), (left, a, 14)):
        if tensor.ndim < 2:
            continue
        turned = tensor.mT
        if _fit(*((a, turned) if role == right else (turned, b))):
            yield scene.transform(role, suffix.get(tensor.ndim, ".transpose(-2, -1)"), rank)
    if max(a.ndim, b.ndim) > 4:
        return
    for order in permutations(range(b.ndim)):
        swaps_last = order == (*range(b.ndim - 2), b.ndim - 1, b.ndim - 2)
        if b.ndim > 2 and _fit(a, b.permute(order)) and order[0] == 0 and not swaps_last:
            yield scene.transform(right, f".permute{order}", 40)


def _turned_earlier(scene: Scene, left: str, right: str) -> Iterator[Remedy]:
    """One factor was made by swapping two axes: perhaps the wrong two."""
    call = scene.call
    for role, rank in ((right, 6), (left, 8)):
        tensor = call.roles[role]
        maker = scene.replay.provenance.maker(tensor)
        step = scene.replay.steps[maker] if maker is not None else None
        if step is None or step.op not in _TURNING or (site := scene.site_of(step)) is None:
            continue
        for first, second in ((-2, -1), (1, 2), (0, 1), (-3, -1), (-3, -2)):
            if tensor.ndim >= max(-first, -second, second + 1):
                edit = scene.replacing_at(site, lambda t, *_, i=first, j=second, **__: t.transpose(i, j))
                yield scene.rewritten(step, f"transpose({first}, {second})", edit, rank + ((first, second) != (-2, -1)))


def _fit(a: Tensor, b: Tensor) -> bool:
    if a.shape[-1] != (b.shape[-2] if b.ndim > 1 else b.shape[0]):
        return False
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a.shape[:-2]), reversed(b.shape[:-2]), strict=False))


def einsum(scene: Scene) -> Mismatch | None:
    """Subscripts that do not fit their operands, or letters with two sizes."""
    call = scene.call
    equation = call.roles.get("equation")
    operands = [t for name, t in call.tensors().items() if name.startswith("operands")]
    if not isinstance(equation, str) or not operands:
        return None
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) != len(operands):
        return Mismatch(f"einsum `{equation}` names {len(terms)} operands and got {len(operands)}")
    sizes: dict[str, tuple[int, str]] = {}
    for index, (term, tensor) in enumerate(zip(terms, operands, strict=True)):
        text = call.text(f"operands[{index}]")
        if "." not in term and len(term) != tensor.ndim:
            shape = shape_text(tuple(tensor.shape))
            return Mismatch(f"einsum `{equation}`: `{term}` has {len(term)} letters, `{text}` has shape {shape}")
        for letter, size, axis in zip(term, tensor.shape, scene.axes(tensor), strict=False):
            known, owner = sizes.setdefault(letter, (size, text))
            if known != size and 1 not in (known, size):
                title = f"einsum `{equation}`: `{letter}` is {known} in `{owner}` and {size} in `{text}`"
                found = Mismatch(title, [(text, axis, known)])
                if (producer := scene.resized_producer(axis, known, 20)) is not None:
                    found.remedies.append(producer)
                found.remedies += _other_letters(scene, equation, index)
                return found
    return None


def _other_letters(scene: Scene, equation: str, index: int) -> Iterator[Remedy]:
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms[index]) > 4 or "." in terms[index]:
        return
    for letters in permutations(terms[index]):
        new = ",".join([*terms[:index], "".join(letters), *terms[index + 1 :]]) + arrow + right
        if new != equation:
            said = f"the equation `{new}` in place of `{equation}`"
            yield Remedy(said, scene.setting("equation", new), scene.line, 30)


ANALYSES: dict[str, Any] = {
    "linear": linear,
    "einsum": einsum,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv"), product),
}
