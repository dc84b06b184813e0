"""Puts what was found out about an error into a report."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from tensorscope.errors import ShapeError
from tensorscope.live.postmortem.axes import Kind
from tensorscope.live.postmortem.calls import operand
from tensorscope.live.postmortem.gradients import autograd_chain, of_backward, of_checkpoint
from tensorscope.live.postmortem.mismatch_ranks import unpacked
from tensorscope.live.postmortem.mismatches import find_mismatch
from tensorscope.live.postmortem.replay import Edit, replay
from tensorscope.live.postmortem.source import written
from tensorscope.live.postmortem.trial import try_fixes
from tensorscope.live.postmortem.wording import fitting, formula, terms
from tensorscope.reports import Fix, OriginStep, ShapeReport, Where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tensorscope.live.postmortem.axes import Axis, InputAxis
    from tensorscope.live.postmortem.crash import Crash, Level
    from tensorscope.live.postmortem.replay import Step
    from tensorscope.live.postmortem.scene import Mismatch, Scene
    from tensorscope.live.postmortem.source import Place
    from tensorscope.reports import Operand

_OPERATORS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.MatMult: "matmul",
    ast.Pow: "pow",
    ast.BitAnd: "bitwise_and",
    ast.BitOr: "bitwise_or",
}
_ONLY_READ = "only the traceback was read: running it again did not fail the same way"
_MANY = 8  # operands that are told
_FEW = 4  # entries of a list that are looked at
_ABOUT_SIZES = ("shape_error", "index_out_of_range")
_LONGEST = 12  # operations of a chain that are told


def account(crash: Crash, scene: Scene, model: nn.Module | None, *, real: bool) -> ShapeReport:
    """The report on an error that could be made to happen again."""
    special = unpacked(scene)
    found, operands = special or (find_mismatch(scene), scene.operands() or _operands_at(scene))
    told = _told(operands, {name for name, _, _ in found.blamed})
    names = scene.replay.provenance.names
    first = found.blamed[0][1] if found.blamed and found.kind in _ABOUT_SIZES else None
    return ShapeReport(
        title=found.title,
        error=_said(crash.error),
        op="unpack" if special else scene.op or _op_of(crash),
        module=_path(crash, scene, model),
        module_type=_class_of(scene),
        operands=told,
        where=_where(crash, scene),
        origin=tuple(_origins(scene, found)),
        formula=formula(first) if first is not None else None,
        terms=tuple(_all_terms(scene, found, names)),
        got=found.got,
        fits=_fits(scene, found, real=real),
        fixes=try_fixes(scene, found, real=real),
        notes=(f"{len(operands) - len(told)} more operands are not shown",) if len(told) < len(operands) else (),
        kind=found.kind,
    )


def _told(operands: tuple[Operand, ...], blamed: set[str]) -> tuple[Operand, ...]:
    """The operands at fault, and the first of the others."""
    if len(operands) <= _MANY:
        return operands
    first = {each.name for each in operands[: _MANY - len(blamed)]}
    return tuple(each for each in operands if each.name in first | blamed)


def from_frames(crash: Crash, model: nn.Module | None) -> ShapeReport:
    """The report on an error that could not be made to happen again: what its frames tell."""
    last, scene = crash.levels[-1], crash.scene
    told = isinstance(crash.error, ShapeError)
    module, backward = crash.module, of_backward(crash) or of_checkpoint(crash)
    ours = last if scene is None or (last.module is not None and not told) else scene
    tensors = dict(_tensors_at(ours)) or dict(_tensors_at(last))
    tensors = backward["tensors"] if backward is not None else {} if told else tensors
    extra = backward.get("operands", ()) if backward is not None else ()
    newest = next((tensor for tensor in tensors.values() if tensor.grad_fn is not None), None)
    # What a contract's error says besides its first line.
    facts = crash.error.facts if isinstance(crash.error, ShapeError) else {}
    advice = (Fix(crash.error.hint),) if isinstance(crash.error, ShapeError) and crash.error.hint else ()
    notes = () if told or backward is not None else (_ONLY_READ,)
    return ShapeReport(
        title=backward["title"] if backward is not None else _quoted(crash),
        error="" if told else _said(crash.error),
        op=backward["op"] if backward is not None else _op_of(crash),
        module=_name_in(crash, model),
        module_type=type(module).__name__ if module is not None else "",
        operands=tuple(operand(name, tensor) for name, tensor in tensors.items()) + extra,
        where=_place(crash.user),
        origin=tuple(autograd_chain(newest, scene)) if newest is not None else (),
        got="\n".join(f"{label}: {fact}" for label, fact in facts.items()),
        fixes=backward.get("fixes", ()) if backward is not None else advice,
        notes=backward.get("notes", ()) if backward is not None else notes,
    )


def _quoted(crash: Crash) -> str:
    """Torch's words, or our own where the error is one of ours."""
    if isinstance(crash.error, ShapeError):
        return crash.error.title
    lines = [line for line in str(crash.error).splitlines() if line.strip()] or [type(crash.error).__name__]
    text = " ".join(lines[-1 if "TorchScript" in lines[0] else 0].split())
    expression = crash.scene.place.expression if crash.scene is not None else ""
    subject = f"`{expression}`: " if 0 < len(expression) <= 60 else ""
    return subject + (text if len(text) <= 120 else text[:119] + "…")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _path(crash: Crash, scene: Scene, model: nn.Module | None) -> str:
    """The module's path as the user knows it."""
    module = scene.module
    for root in (model, crash.entry.module if crash.entry is not None else None):
        paths = {id(part): path for path, part in root.named_modules()} if root is not None else {}
        if paths.get(id(module)) and not scene.prefix:
            return _plain(paths[id(module)])
    if scene.program.scope == "line":
        # The root holds the modules by the names of variables.
        variable, _, rest = scene.path.partition(".")
        if scene.prefix:
            return scene.shown(scene.path)
        return _plain(rest) or (variable if type(module).__module__.startswith("torch.") else "")
    if not scene.path and type(module).__module__.startswith("torch.nn.modules."):
        return _called(crash)
    return _plain(scene.path)


def _plain(path: str) -> str:
    return path.replace("_orig_mod.", "").removesuffix("_orig_mod")


def _called(crash: Crash) -> str:
    """What the user's line calls the outermost module: `criterion`."""
    entry = crash.entry
    node = crash.levels[entry.level - 1].place.node if entry is not None and entry.level else None
    text = written(node.func) if isinstance(node, ast.Call) else ""
    return text.removeprefix("self.") if text.replace(".", "").isidentifier() else ""


def _name_in(crash: Crash, model: nn.Module | None) -> str:
    """The path of the innermost module in the model, or in the outermost module that was running."""
    entry = crash.entry
    root = model if model is not None else entry.module if entry is not None else None
    paths = {id(module): path for path, module in root.named_modules()} if root is not None else {}
    return _plain(paths.get(id(crash.module), ""))


def _class_of(scene: Scene) -> str:
    if scene.program.scope == "line" and not scene.path:
        return ""
    return type(scene.module).__name__


def _where(crash: Crash, scene: Scene) -> Where | None:
    if crash.is_compiled:
        return _place(scene.failure.crash.user)
    return _place(crash.user)


def _place(level: Level | None) -> Where | None:
    if level is None:
        return None
    return _of(level.place)


def _of(place: Place | None) -> Where | None:
    if place is None:
        return None
    return Where(place.file, place.line, place.text, place.code.co_qualname.rpartition("<locals>.")[2])


def _op_of(crash: Crash) -> str:
    """The operation's name, from the frames."""
    scene = crash.scene
    below = crash.levels[crash.levels.index(scene) + 1 :] if scene is not None else crash.levels
    python = ("nn/functional.py", "torch/functional.py", "torch/_tensor.py")
    function = next((level for level in below if level.place.file.endswith(python)), None)
    node = scene.place.node if scene is not None else None
    if function is not None and not isinstance(node, ast.BinOp):
        return function.place.code.co_name.strip("_")
    if "Boolean value of Tensor" in str(crash.error):
        return "bool"
    last = below[-1] if below and function is None else scene
    return _name_of(last.place.node) if last is not None else ""


def _name_of(node: ast.AST | None) -> str:
    """What torch calls the operation that an expression is."""
    if isinstance(node, ast.BinOp):
        return _OPERATORS.get(type(node.op), "")
    if isinstance(node, ast.Call):
        return written(node.func).rpartition(".")[2]
    if isinstance(node, ast.Attribute):
        return node.attr
    return {ast.Subscript: "getitem", ast.Tuple: "unpack", ast.List: "unpack"}.get(type(node), "")


def _operands_at(scene: Scene) -> tuple[Operand, ...]:
    """The tensors on a line that failed outside of any call that is known."""
    level = scene.failure.crash.scene
    return tuple(operand(name, tensor) for name, tensor in _tensors_at(level)) if level is not None else ()


def _tensors_at(level: Level) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that the running expression names."""
    node = level.place.node
    values = {**level.frame.f_globals, **level.frame.f_locals}
    seen: set[int] = set()
    for part in ast.walk(node) if node is not None else ():
        value: object = None
        if isinstance(part, ast.Name):
            value = values.get(part.id)
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            value = getattr(values.get(part.value.id), part.attr, None)
        entries = list(value)[:_FEW] if isinstance(value, list | tuple) else []
        named = [(f"{written(part)}[{index}]", entry) for index, entry in enumerate(entries)]
        for name, tensor in [(written(part), value), *named]:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor


def _origins(scene: Scene, found: Mismatch) -> Iterator[OriginStep]:
    """The operations that made the dimensions at fault, newest first, one operand after the other."""
    told: list[OriginStep] = []
    if not scene.op and scene.replay.steps:
        last = scene.replay.steps[-1]
        yield _step(scene, last, "")
        yield from (_step(scene, scene.replay.steps[index], "") for index in last.sources)
    if not found.blamed and scene.op:
        tensors = scene.call.tensors()
        made = [(r, t) for r, t in tensors.items() if not scene.replay.weight(t)] or list(tensors.items())
        yield from (step for role, _ in made[:1] for step in _chain(scene, scene.call.text(role), []))
    for name in list(dict.fromkeys(name for name, _, _ in found.blamed))[:2]:
        chain = list(_chain(scene, name, [axis for other, axis, _ in found.blamed if other == name]))
        if [replace(step, operand="") for step in chain] != told:
            yield from chain
        told = [replace(step, operand="") for step in chain]


def _chain(scene: Scene, name: str, axes: list[Axis]) -> Iterator[OriginStep]:
    """The way to an operand: what made its dimensions, and the operand itself."""
    tensors = scene.call.tensors()
    tensor = next((t for role, t in tensors.items() if scene.call.text(role) == name), None)
    maker = scene.replay.provenance.maker(tensor) if tensor is not None else None
    steps = {step for axis in axes for step in (*axis.steps(), *_makers(scene, axis, maker))}
    steps |= {maker} if maker is not None else set()
    # What one of torch's modules does with its arguments before it fails is its own affair.
    inner = {i for i in steps if scene.depth and scene.replay.steps[i].module == scene.path and i == maker}
    for index in sorted(steps - inner, reverse=True)[:_LONGEST]:
        yield _step(scene, scene.replay.steps[index], name)
    if tensor is not None and (path := scene.replay.weight(tensor)):
        yield OriginStep("parameter", path, tuple(tensor.shape), path, operand=name)
    given_as = {scene.replay.argument(tensor)} - {""} if tensor is not None else set()
    for source in sorted(given_as | {source.name for axis in axes for source in axis.inputs()}):
        given = scene.program.given.get(source)
        if given is not None:
            yield OriginStep("input", source, tuple(given.shape), source, operand=name)
            if scene.program.scope == "line":  # which it had been made before
                before = autograd_chain(given, scene.failure.crash.scene)
                yield from (replace(step, operand=name) for step in before)


def _makers(scene: Scene, axis: Axis, maker: int | None) -> Iterator[int]:
    """The operations whose weights gave a dimension its size."""
    last = len(scene.replay.steps) if maker is None else maker + 1
    for weight in axis.weights():
        path = weight.label.strip("`").rpartition(".")[0]
        numbers = (i for i in reversed(range(last)) if path and scene.replay.steps[i].module == path)
        yield from list(numbers)[:1]


def _step(scene: Scene, step: Step, name: str) -> OriginStep:
    layer = dict(scene.root.named_modules()).get(step.module, scene.root)
    module = scene.shown(step.module)
    label = module if module and type(layer).__module__.startswith("torch.nn.") else step.op
    return OriginStep(step.op, module, step.shapes[0] if step.shapes else (), label, _of(step.place), operand=name)


def _all_terms(scene: Scene, found: Mismatch, names: Mapping[InputAxis, str]) -> Iterator[tuple[str, str]]:
    several = len({name for name, _, _ in found.blamed}) > 1
    for name, axis, wanted in found.blamed[:4] if found.kind in _ABOUT_SIZES else ():
        if wanted is None and axis.kind is Kind.INPUT:
            continue  # as it was given, and not said to be wrong
        made = (formula(axis) or "").partition(" = ")[2] if axis is not found.blamed[0][1] else ""
        told = terms(axis, names)
        if made and len(told) == 1:
            told = ((str(axis.size), f"{made}, of {told[0][1]}"),)
        for term, text in told:
            said = re.sub(rf"(?<=[` ]){re.escape(scene.prefix)}", "", text) if scene.prefix else text
            yield term, f"{said}, in `{name}`" if several else said


def _fits(scene: Scene, found: Mismatch, *, real: bool) -> str:
    """For which inputs the program would have run, if it does with the closest of them."""
    for _, axis, wanted in found.blamed:
        if wanted is None or (fit := fitting(axis, wanted, scene.replay.provenance.names)) is None:
            continue
        sizes: dict[str, dict[int, int]] = {}
        for source, size in fit.sizes.items():
            sizes.setdefault(source.name, {})[source.index] = size
        edit = Edit(given={name: partial(_resized, sizes=new) for name, new in sizes.items()})
        if replay(scene.program, edit, real=real).failure is None:
            return fit.text
    return ""


def _resized(tensor: torch.Tensor, sizes: dict[int, int]) -> torch.Tensor:
    """A tensor of other sizes with the same values over and over."""
    for axis, size in sizes.items():
        times = [1] * tensor.ndim
        times[axis] = -(-size // max(tensor.shape[axis], 1))
        tensor = tensor.repeat(times).narrow(axis, 0, size)
    return tensor
