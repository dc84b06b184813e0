"""Finds, in the frames of an error, what can be run again to see it happen."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from tensorscope.live.postmortem.crash import is_torchs
from tensorscope.live.postmortem.replay import Program, named_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tensorscope.live.postmortem.crash import Crash, Entry, Level

_IMPURE = {"step", "backward", "zero_grad", "save", "write", "open", "log", "send", "put", "next", "iter", "commit"}


def programs(crash: Crash) -> Iterator[Program]:
    """What to run again, the most telling first."""
    entry = crash.entry
    is_part = entry is not None and type(entry.module).__module__.startswith("torch.nn.modules.")
    outer = _frames(crash)
    if entry is not None and not is_part:
        yield module_call(entry)
    yield from _in_reach(crash, (_lines(level, with_earlier=True) for level in outer))
    if entry is not None:
        if is_part:
            yield module_call(entry)
        yield replace(module_call(entry), with_hooks=True)
    innermost = [crash.scene] if crash.scene is not None and crash.scene not in outer else []
    yield from _in_reach(crash, (_lines(level, with_earlier=False) for level in (*outer, *innermost)))


def _in_reach(crash: Crash, found: Iterator[Program | None]) -> Iterator[Program]:
    """Programs that hold the module that failed, so that it is run on copies."""
    for program in found:
        if program is not None and (crash.module is None or any(m is crash.module for m in program.root.modules())):
            yield program


def module_call(entry: Entry) -> Program:
    """The outermost module's call, with the arguments it was given."""
    given: dict[str, torch.Tensor] = {}
    for name, value in _arguments(entry.module, entry.args, entry.kwargs):
        given.update(named_tensors(name, value))

    def start(convert: Callable[[Any], Any]) -> Any:
        return entry.module(*convert(tuple(entry.args)), **convert(dict(entry.kwargs)))

    return Program(entry.module, start, given)


def _arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for index, value in enumerate(args):
        yield names[index] if index < len(names) else f"args[{index - len(names)}]", value
    yield from kwargs.items()


def _frames(crash: Crash) -> list[Level]:
    """The innermost user frame, after its caller if what that calls only computes."""
    users = [level for level in crash.levels if not is_torchs(level.place.file)]
    if crash.entry is not None:  # what runs inside of a module is the module's affair
        users = [level for level in users if crash.levels.index(level) < crash.entry.level] or users
    if not users:
        return []
    inner = users[-1]
    callers = users[-2:-1] if not _IMPURE & set(inner.frame.f_code.co_names) and inner.module is None else []
    return [level for level in (*callers, inner) if level is inner or _hands_on(level, inner)]


def _hands_on(caller: Level, inner: Level) -> bool:
    """Whether all that a function works on is known in its caller, by names that can be given copies."""
    node = caller.place.node
    if not isinstance(node, ast.Call) or any(isinstance(value, ast.Starred) for value in node.args):
        return False
    known = {id(value) for value in _Names(caller).modules().values()}
    known |= {id(value) for value in caller.frame.f_locals.values()}
    used = inner.frame.f_locals.values()
    return all(id(value) in known for value in used if isinstance(value, nn.Module))


@dataclass(frozen=True, slots=True)
class _Names:
    """The values that an expression's names stand for."""

    level: Level

    def value(self, name: str) -> Any:
        frame = self.level.frame
        return frame.f_locals.get(name, frame.f_globals.get(name))

    def modules(self) -> dict[str, nn.Module]:
        """Every module that a name or an attribute of a local object stands for, of several names the first."""
        frame = self.level.frame
        held = [entry for value in frame.f_locals.values() for entry in _held(value)]
        found: dict[int, tuple[str, nn.Module]] = {}
        for name, value in (*frame.f_locals.items(), *frame.f_globals.items(), *held):
            if isinstance(value, nn.Module):
                found.setdefault(id(value), (name, value))
        return dict(found.values())

    def computes(self, node: ast.AST) -> bool:
        """Whether an expression calls nothing but modules, tensors' methods and torch's functions."""
        return all(self._pure(call.func) for call in ast.walk(node) if isinstance(call, ast.Call))

    def _pure(self, function: ast.expr) -> bool:
        root = function
        while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
            root = root.func if isinstance(root, ast.Call) else root.value
        if not isinstance(root, ast.Name):
            return False
        value = self.value(root.id)
        if isinstance(value, ModuleType):
            return value.__name__.split(".")[0] == "torch"
        if isinstance(value, nn.Module | torch.Tensor):
            return not (isinstance(function, ast.Attribute) and function.attr in _IMPURE)
        return getattr(value, "__module__", "").split(".")[0] == "torch" and callable(value)


def _held(value: object) -> Iterator[tuple[str, object]]:
    """The attributes of an object of the user's own, such as a trainer."""
    if not isinstance(value, nn.Module | torch.Tensor | type | ModuleType | FunctionType):
        yield from getattr(value, "__dict__", {}).items()


def _lines(level: Level, *, with_earlier: bool) -> Program | None:
    """The failing expression, after the assignments that gave its names their values if they can be repeated."""
    node = level.place.node
    names = _Names(level)
    if not isinstance(node, ast.expr) or isinstance(getattr(node, "ctx", None), ast.Store) or _awaits(node):
        return None
    earlier = _assignments(level, node, names) if with_earlier else []
    if with_earlier and not earlier:
        return None
    root = nn.Module()
    root._modules.update(names.modules())
    values = {**level.frame.f_globals, **level.frame.f_locals}
    used = {n.id for part in (node, *earlier) for n in ast.walk(part) if isinstance(n, ast.Name)}
    made = {name for part in earlier for name in _targets(part)}
    given: dict[str, torch.Tensor] = {}
    for name in sorted(used - made):
        if isinstance(values.get(name), torch.Tensor | list | tuple | dict):
            given.update(named_tensors(name, values.get(name)))

    def start(convert: Callable[[Any], Any]) -> Any:
        local = {name: convert(value) if name in used else value for name, value in level.frame.f_locals.items()}
        scope = {**level.frame.f_globals, **tree_map_only(torch.Tensor, lambda t: t, local)}
        for part in earlier:
            exec(_code(part, level.place.file), scope)
        return eval(_code(node, level.place.file), scope)

    return Program(root, start, given, "line")


def _awaits(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr) for part in ast.walk(node))


def _code(node: ast.AST, file: str) -> Any:
    """Code of a statement or expression that keeps its place in the file."""
    if isinstance(node, ast.expr):
        return compile(ast.Expression(node), file, "eval")
    assert isinstance(node, ast.stmt)
    return compile(ast.Module([node], []), file, "exec")


def _assignments(level: Level, node: ast.expr, names: _Names) -> list[ast.stmt]:
    """The assignments before a line that made what it uses, as far as they only compute and nothing came between."""
    block = _block(level)
    statement = level.place.statement
    if statement not in block:
        return []
    before = block[: block.index(statement)]
    kept: list[ast.stmt] = []
    wanted = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    for candidate in reversed(before):
        made = set(_targets(candidate))
        if not made & wanted:
            continue
        if not isinstance(candidate, ast.Assign) or not names.computes(candidate.value):
            break
        read = {n.id for n in ast.walk(candidate.value) if isinstance(n, ast.Name)}
        if made & read:  # it has overwritten what it was made from
            break
        kept.insert(0, candidate)
        wanted = (wanted - made) | read
    return kept


def _block(level: Level) -> list[ast.stmt]:
    """The statements among which the running one stands."""
    statement = level.place.statement
    tree = level.place.tree
    for node in ast.walk(tree) if tree is not None and statement is not None else ():
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and any(entry is statement for entry in block):
                return block
    return []


def _targets(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds, anywhere in it."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
