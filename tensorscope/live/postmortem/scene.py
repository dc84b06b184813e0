"""A failed call in its surroundings, and the changes that can be tried on it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem.axes import Kind
from tensorscope.live.postmortem.calls import Call, changed, operand, read_call, spoken
from tensorscope.live.postmortem.crash import CALLS
from tensorscope.live.postmortem.rebuild import (
    MAKES,
    can_rebuild,
    constructor,
    first_of,
    paddings,
    rebuilt,
    siblings,
    usual,
)
from tensorscope.live.postmortem.replay import Edit
from tensorscope.live.postmortem.source import making_of, written
from tensorscope.reports import nearby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tensorscope.live.postmortem.axes import Axis
    from tensorscope.live.postmortem.replay import CallSite, Failure, Program, Replay, Step
    from tensorscope.live.postmortem.source import Place
    from tensorscope.reports import Operand

_UNTOLD = ("bias", "running_mean", "running_var", "in_proj_bias", "out_proj_weight", "out_proj_bias")
_OPS = {"MultiheadAttention": "multi_head_attention_forward"}  # modules whose function has another name


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that may help.

    Attributes:
        text: the change, as a sentence.
        edit: how to try it, None if that can't be done.
        wider: the same in all repeated blocks, to be tried if one alone does not help.
        recipe: what kind of change it is, where the same may be needed in other places too.
        target: which place it changes.
        where: `file:line` to change.
        where_all: the same for what is in `wider`.
        rank: of two that work, the lower one is the better.
    """

    text: str
    edit: Edit | None = None
    where: str = ""
    rank: int = 50
    wider: Edit | None = None
    recipe: str = ""
    target: str = ""
    where_all: str = ""


@dataclass(slots=True)
class Mismatch:
    """What about a failed call does not fit.

    Attributes:
        title: in one line.
        blamed: the dimensions at fault: (what to call the tensor, its axis, the size it should have had or None).
        got: what was wrong with the values.
        remedies: changes that may help.
        kind: see `reports.ShapeReport`.
        layout: whether an operand with its axes in another order, or more or fewer of them, may help.
    """

    title: str
    blamed: list[tuple[str, Axis, int | None]] = field(default_factory=list)
    got: str = ""
    remedies: list[Remedy] = field(default_factory=list)
    layout: bool = False
    kind: str = "shape_error"


class Scene:
    """A failed call: what it was given, who made it, and where it stands in the user's code.

    Attributes:
        program: what failed.
        replay: what running it again showed.
        failure: what that ended with.
        path: dotted path of the module that was running.
        place: the user's code that was running.
        outer: the user's code that was running when the error happened first.
        call: the failed call, empty if none is known.
    """

    def __init__(self, program: Program, replay: Replay, failure: Failure, outer: Place | None = None) -> None:
        self.place = failure.place or outer
        self.outer = outer
        self.program = program
        self.replay = replay
        self.failure = failure
        self.path = failure.module
        self.call = self._call()

    @property
    def root(self) -> nn.Module:
        """Holds every module of the program."""
        return self.program.root

    @property
    def message(self) -> str:
        """What torch said."""
        return str(self.failure.error)

    @cached_property
    def module(self) -> nn.Module:
        """The module that was running."""
        found: nn.Module = dict(self.root.named_modules()).get(self.path, self.root)
        return found

    @cached_property
    def prefix(self) -> str:
        """What module paths begin with that is no part of the model: the name of the variable that holds it."""
        variable = self.path.partition(".")[0]
        holder = self.root._modules.get(variable) if self.program.scope == "line" else None
        is_own = holder is not None and not type(holder).__module__.startswith("torch.")
        is_self = self.outer is not None and self.outer.code.co_varnames[:1] == (variable,)
        return f"{variable}." if is_own and is_self else ""  # a method's own object is not spoken of

    def shown(self, path: str) -> str:
        """A module's path as its user knows it."""
        return path.removeprefix(self.prefix).replace("_orig_mod.", "")

    @cached_property
    def depth(self) -> int:
        """How many module calls lie between the user's line and the failure."""
        levels = self.failure.crash.levels
        scene = self.failure.crash.scene
        start = levels.index(scene) if scene is not None else -1
        return sum(level.frame.f_code is CALLS[0] for level in levels[start + 1 :])

    @cached_property
    def node(self) -> ast.AST | None:
        """The user's expression that was running."""
        return self.place.node if self.place else None

    @property
    def subject(self) -> str:
        """Who failed: a module of torch's by its path, else the user's expression."""
        if self.depth and self.path:
            path = self.shown(self.path)
            # The number of a layer in a sequence says little.
            return f"`{path}` ({type(self.module).__name__})" if path.replace(".", "").isdecimal() else f"`{path}`"
        text = written(self.node)
        return f"`{text}`" if text and len(text) <= 60 else f"`{self.op}`"

    @property
    def op(self) -> str:
        """Name of the operation that failed."""
        return self.call.op

    def operands(self) -> tuple[Operand, ...]:
        """The tensors of the failed call as a reader knows them: a module's arguments as they were given to it."""
        call = self.call
        is_whole = call.op in _OPS.values() or isinstance(self.module, nn.RNNBase | nn.RNNCellBase)
        if is_whole and (given := self._module_call()) is not None:
            given.texts.update(self._texts(given))
            call = given
        tensors = call.tensors()
        texts = [call.text(name) for name in tensors]
        texts = list(tensors) if len(set(texts)) < len(texts) else texts
        told = {name: tensor for name, tensor in tensors.items() if name not in _UNTOLD} or tensors
        said = dict(zip(tensors, texts, strict=True))
        return tuple(operand(said[name], tensor) for name, tensor in told.items())

    def argument_of(self, tensor: torch.Tensor) -> int | None:
        """Which positional argument of the module that was running a tensor is."""
        for level in reversed(self.failure.crash.levels):
            if level.frame.f_code is CALLS[0] and level.module is self.module:
                args = level.frame.f_locals["args"]
                return next((index for index, value in enumerate(args) if value is tensor), None)
        return None

    def axes(self, tensor: torch.Tensor) -> tuple[Axis, ...]:
        """Where a tensor's dimensions came from."""
        return self.replay.provenance.axes(tensor)

    # -- changes ------------------------------------------------------------------------------------------------------

    def transform(self, role: str, suffix: str, rank: int = 50, change: Callable[[Any], Any] | None = None) -> Remedy:
        """Let a tensor pass through something before the call.

        Args:
            role: which argument of the call.
            suffix: what is written after it, such as `.flatten(1)`.
            rank: see `Remedy`.
            change: what that does, where it speaks of names that are the user's; else the text itself is run.
        """
        change = change or passed_through(suffix)
        text = self.call.texts.get(role)
        if text is not None:
            said = f"`{attached(text, suffix)}` in place of `{text}`"
        elif self.depth and self.path:
            said = f"pass the {role.replace('_', ' ')} of `{self.shown(self.path)}` through `{suffix}`"
        else:
            said = f"`{suffix}` on the {role}"
        target = f"`{text}` at {nearby(self.line)}" if text is not None else f"`{self.shown(self.path)}`"
        return Remedy(said, self.changing(role, change), self.line, rank, recipe=suffix, target=target)

    def changing(self, role: str, change: Callable[[Any], Any], *, only_here: bool = False) -> Edit:
        """An edit that changes one argument of the failed call, in every module that runs the line, or in this one."""
        slot = self.call.slots[role]
        if self.failure.func is None:
            return Edit(entering={self.path: lambda args: changed(slot, change, args, {})[0]})
        site = (*self.site()[:3], self.path) if only_here else self.site()
        return Edit(calls={site: lambda func, args, kwargs: (func, *changed(slot, change, args, kwargs))})

    def setting(self, role: str, value: Any) -> Edit:
        """An edit that gives one argument of the failed call another value."""
        return self.changing(role, lambda _: value)

    def replacing(self, call: Callable[..., Any]) -> Edit:
        """An edit that calls something else in place of the failed function."""
        return Edit(calls={self.site(): lambda func, args, kwargs: (call, args, kwargs)})

    def given(self, name: str, change: Callable[[Any], Any]) -> Edit:
        """An edit that changes what the program is given."""
        return Edit(given={name: change})

    def site(self) -> CallSite:
        """The failed call, in every module that runs the line if it is the line itself that calls."""
        place = self.failure.place
        if place is None:
            return (None, 0, self.failure.op, self.path)
        return (place.code, place.lasti, self.failure.op, self.path if self.depth else None)

    def _is_shared(self, module: nn.Module) -> bool:
        """Whether a module has a weight in common with another, which would be put in its place again."""
        owners = [id(p) for _, p in self.root.named_parameters(remove_duplicate=False)]
        return any(owners.count(id(p)) > 1 for p in module.parameters())

    def site_of(self, step: Step) -> CallSite | None:
        """Where an earlier operation was called; None if that is not the user's own line."""
        if step.place is None:
            return None
        owner = dict(self.root.named_modules()).get(step.module, self.root)
        inside = type(owner).__module__.startswith("torch.")
        return (step.place.code, step.place.lasti, step.op, step.module if inside else None)

    def replacing_at(self, site: CallSite, call: Callable[..., Any]) -> Edit:
        """An edit that calls something else at an earlier operation."""
        return Edit(calls={site: lambda func, args, kwargs: (call, args, kwargs)})

    def rewritten(self, step: Step, method: str, edit: Edit, rank: int) -> Remedy:
        """Another method in place of an earlier operation: `k.transpose(-2, -1)` for `k.transpose(1, 2)`."""
        place = step.place
        assert place is not None
        node = place.node
        old = place.expression
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(old) <= 50:
            first = node.args[0] if node.args else None
            is_method = written(node.func.value) not in ("torch", "F")
            subject = written(node.func.value) if is_method else written(first)
            said = f"`{attached(subject, f'.{method}')}` in place of `{old}`"
        else:
            said = f"`.{method}` in place of `{step.op}`"
        return Remedy(said, edit, f"{place.file}:{place.line}", rank)

    def rebuild(self, path: str, rank: int = 30, **changes: Any) -> Remedy | None:
        """Make one of torch's modules with other settings."""
        try:
            module = self.root.get_submodule(path)
        except AttributeError:
            return None
        if not can_rebuild(module) or self._is_shared(module):
            return None
        edit = Edit(modules={path: lambda old: rebuilt(old, changes)})
        text = (
            f"make `{self.shown(path)}` `{constructor(module, changes)}`"
            if path
            else f"`{constructor(module, changes)}`"
        )
        alike = siblings(self.root, path)
        wider = Edit(modules=dict.fromkeys(alike, lambda old: rebuilt(old, changes))) if len(alike) > 1 else None
        recipe = f"{type(module).__name__} {' '.join(changes)}"
        target, of_all = f"`{self.shown(path)}`", making_of(self.root, path, of_all=True)
        return Remedy(text, edit, making_of(self.root, path), rank, wider, recipe, target, of_all)

    def reset(self, paths: dict[str, dict[str, Any]], text: str, rank: int) -> Remedy:
        """Set attributes of modules to other values."""
        return Remedy(text, Edit(settings=paths), making_of(self.root, self.path), rank)

    def window(self, axis: Axis, size: int, rank: int = 24) -> Iterator[Remedy]:
        """Pad the convolution or pooling that made an axis so that it makes it as large as wanted."""
        if axis.kind is not Kind.WINDOW or not axis.module or len(axis.parts) != 1:
            return
        module = self.root.get_submodule(axis.module)
        if not can_rebuild(module) or not hasattr(module, "padding"):
            return
        for name, value in paddings(module, axis.parts[0].size, size):
            # A window that was forgotten to be as coarse as the other is likelier than one that is too coarse.
            finer = name == "stride" and value < first_of(module.stride)
            if (remedy := self.rebuild(axis.module, rank + 6 * finer, **{name: value})) is not None:
                yield remedy

    def resized_consumer(self, attribute: str, size: int, rank: int = 20) -> Remedy | None:
        """Let the failed module take the size that it got; worse if its siblings take what it takes."""
        expected = getattr(self.module, attribute, None)
        settled = expected is not None and usual(self.root, self.path, attribute) == expected
        return self.rebuild(self.path, rank + 15 * settled, **{attribute: size})

    def resized_producer(self, axis: Axis, size: int, rank: int = 25) -> Remedy | None:
        """Let the module that made an axis make it as large as wanted; better if its siblings do."""
        path, _, attribute = axis.label.rpartition(".")
        if attribute not in MAKES or axis.size == size or not path:
            return None
        better = usual(self.root, path, attribute) == size
        return self.rebuild(path, rank - 15 * better, **{attribute: size})

    @property
    def line(self) -> str:
        """`file:line` of the user's code."""
        return f"{self.place.file}:{self.place.line}" if self.place else ""

    def _call(self) -> Call:
        failure = self.failure
        if failure.func is not None:
            call = read_call(failure.func, failure.op, failure.args, failure.kwargs)
        else:
            found = self._module_call()
            if found is None:
                return Call("", {}, {})
            call = found
        call.texts.update(self._texts(call))
        return call

    def _module_call(self) -> Call | None:
        """The call of one of torch's modules that refused what it was given."""
        module = self.module
        if not type(module).__module__.startswith("torch.nn."):
            return None
        for level in reversed(self.failure.crash.levels):
            if level.frame.f_code in CALLS and level.module is module:
                values = level.frame.f_locals
                name = _OPS.get(type(module).__name__) or snake(type(module).__name__)
                call = read_call(type(module).forward, "", (module, *values["args"]), values["kwargs"])
                return call.without_self(name)
        return None

    def _texts(self, call: Call) -> dict[str, str]:
        if self.depth == 0:
            return spoken(self.node, call)
        if (
            self.depth == 1
            and isinstance(self.node, ast.Call)
            and not any(isinstance(value, ast.Starred) for value in self.node.args)
        ):
            return {name: text for name, text in self._handed(call, self.node) if len(text) <= 40}
        return {}

    def _handed(self, call: Call, node: ast.Call) -> list[tuple[str, str]]:
        """Arguments that the module hands on as it was given them."""
        frame = next((lv for lv in reversed(self.failure.crash.levels) if lv.frame.f_code is CALLS[0]), None)
        if frame is None or frame.module is not self.module:
            return []
        given = frame.frame.f_locals
        pairs = [*zip(given["args"], node.args, strict=False)]
        pairs += [(given["kwargs"].get(k.arg), k.value) for k in node.keywords if k.arg]
        return [
            (name, written(text))
            for name, value in call.roles.items()
            for tensor, text in pairs
            if value is tensor and isinstance(value, torch.Tensor)
        ]


def passed_through(suffix: str) -> Callable[[Any], Any]:
    """What a text such as `.flatten(1)` makes of a tensor that it is written after."""
    code = compile(f"tensor{suffix}", "<fix>", "eval")
    return lambda tensor: eval(code, {"tensor": tensor})


def attached(text: str, suffix: str) -> str:
    """An expression with a suffix, in brackets where they are needed."""
    if suffix.startswith(" "):
        return f"{text}{suffix}"
    simple = re.fullmatch(r"[\w.]+(\[[^\[\]]*\])?|[\w.]+\([^()]*\)(\.\w+\([^()]*\))*", text)
    return f"{text}{suffix}" if simple else f"({text}){suffix}"


def snake(name: str) -> str:
    """`BatchNorm2d` → `batch_norm`, `LSTM` → `lstm`."""
    plain = re.sub(r"(?<=[a-z])\d?d$|\d+d$", "", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain).lower()
