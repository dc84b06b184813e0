"""Finds, in the frames of an error, what can be run again to see it happen."""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem.crash import is_torchs
from tensorscope.live.postmortem.replay import Program
from tensorscope.live.tensors import named_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tensorscope.live.postmortem.crash import Crash, Entry, Level

_WRITING = {"STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF", "STORE_SUBSCR", "DELETE_ATTR", "DELETE_SUBSCR"}
_CHANGING = {"append", "extend", "insert", "update", "add", "pop", "remove", "clear", "setdefault", "discard", "print"}
_PLAIN = (len, int, float, bool, list, tuple, dict, range, zip, enumerate, sum, min, max, abs, round, sorted, reversed)
_IMPURE = {"step", "backward", "zero_grad", "save", "write", "open", "log", "send", "put", "next", "iter", "commit"}


def programs(crash: Crash) -> Iterator[Program]:
    """What to run again, the most telling first."""
    entry = crash.entry
    is_part = entry is not None and type(entry.module).__module__.startswith("torch.nn.modules.")
    outer = _frames(crash)
    if entry is not None and not is_part:
        yield module_call(entry)
    yield from _in_reach(
        crash, (_lines(level, with_earlier=True, handing_on=level is not outer[-1]) for level in outer)
    )
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
    names = _Names(caller)
    if not all(names.computes(value) for value in (*node.args, *(k.value for k in node.keywords))) or _writes(inner):
        return False
    known = {id(value) for value in _Names(caller).modules().values()}
    known |= {id(value) for value in caller.frame.f_locals.values()}
    used = inner.frame.f_locals.values()
    return all(id(value) in known for value in used if isinstance(value, nn.Module))


def _writes(level: Level) -> bool:
    """Whether a function may change anything but its own variables."""
    code = level.frame.f_code
    writes = any(step.opname in _WRITING for step in dis.get_instructions(code))
    return writes or bool((_IMPURE | _CHANGING) & set(code.co_names)) or code.co_varnames[:1] == ("self",)


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
        """Whether an expression calls nothing but modules, tensors' methods, torch's functions and plain Python's."""
        bound = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        return all(self._pure(call.func, bound) for call in ast.walk(node) if isinstance(call, ast.Call))

    def _pure(self, function: ast.expr, bound: set[str]) -> bool:
        if isinstance(function, ast.Attribute) and function.attr in _IMPURE:
            return False
        root = function
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if not isinstance(root, ast.Name):
            return True  # a method of a result
        if root.id in bound:
            return True  # such as a layer of a list of layers
        value = self._resolved(function)
        if isinstance(value, ModuleType):
            return value.__name__.split(".")[0] in ("torch", "math")
        if isinstance(value, nn.Module | torch.Tensor):
            return True
        home = (getattr(value, "__module__", None) or "").split(".")[0]
        return callable(value) and (home in ("torch", "math") or value in _PLAIN)

    def _resolved(self, node: ast.expr) -> Any:
        """What a name or the attributes of one stand for; the tensor or library itself for what they offer."""
        if isinstance(node, ast.Name):
            found = self.value(node.id)
            return getattr(builtins, node.id, None) if found is None else found
        if isinstance(node, ast.Subscript | ast.Call):
            return self._resolved(node.value if isinstance(node, ast.Subscript) else node.func)
        if not isinstance(node, ast.Attribute):
            return None
        owner = self._resolved(node.value)
        if isinstance(owner, torch.Tensor | ModuleType) or owner is None:
            return owner
        return owner._modules.get(node.attr) if isinstance(owner, nn.Module) else vars_of(owner).get(node.attr)


def vars_of(value: object) -> dict[str, Any]:
    """The attributes that an object holds itself."""
    return getattr(value, "__dict__", {})


def _held(value: object) -> Iterator[tuple[str, object]]:
    """The attributes of an object of the user's own, such as a trainer."""
    if not isinstance(value, nn.Module | torch.Tensor | type | ModuleType | FunctionType):
        yield from vars_of(value).items()


def _lines(level: Level, *, with_earlier: bool, handing_on: bool = False) -> Program | None:
    """The failing expression, after the assignments that gave its names their values if they can be repeated."""
    node = level.place.node
    names = _Names(level)
    if not isinstance(node, ast.expr) or isinstance(getattr(node, "ctx", None), ast.Store) or _awaits(node):
        return None
    if not (handing_on or names.computes(node) or level.frame.f_code.co_name == "backward"):
        return None  # it would be done again, whatever it is
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
        scope = {**level.frame.f_globals, **local}
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
    wanted = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - names.modules().keys()
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
        wanted = (wanted - made) | (read - names.modules().keys())
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
