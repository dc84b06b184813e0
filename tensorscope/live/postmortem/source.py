"""Finds in the user's source text what was running: expressions by their position, and where modules are made."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

Span = tuple[int, int, int, int]  # first line, last line, first column, last column (of UTF-8 bytes)
_SEQUENCES = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a program's code: an instruction of a code object.

    Attributes:
        code: the code object.
        lasti: offset of the instruction.
        line: number of the source line.
    """

    code: CodeType
    lasti: int
    line: int

    @property
    def file(self) -> str:
        """Path of the source file."""
        return self.code.co_filename

    @property
    def text(self) -> str:
        """The source line, stripped."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def span(self) -> Span | None:
        """Where the instruction's expression stands."""
        for index, (first, last, start, end) in enumerate(self.code.co_positions()):
            if index == self.lasti // 2:
                whole = first is not None and last is not None and start is not None and end is not None
                return (first, last, start, end) if whole else None  # type: ignore[return-value]
        return None

    @property
    def node(self) -> ast.AST | None:
        """The expression or statement that was running, None if the source is not to be had."""
        span = self.span
        return _nodes(self.file, _stamp(self.file)).get(span) if span else None

    @property
    def tree(self) -> ast.Module | None:
        """The source file's syntax tree."""
        return _parsed(self.file, _stamp(self.file))

    @property
    def expression(self) -> str:
        """The expression's source, on one line; empty if it is not to be had."""
        return written(self.node)

    @property
    def statement(self) -> ast.stmt | None:
        """The innermost statement that the expression belongs to."""
        span = self.span
        if span is None:
            return None
        nodes = _nodes(self.file, _stamp(self.file)).values()
        statements = [node for node in nodes if isinstance(node, ast.stmt)]
        around = [n for n in statements if n.lineno <= span[0] and (n.end_lineno or 0) >= span[1]]
        return min(around, key=lambda n: (n.end_lineno or 0) - n.lineno, default=None)


def written(node: ast.AST | None) -> str:
    """An expression as its author would write it on one line."""
    return "" if node is None else " ".join(ast.unparse(node).split())


@functools.lru_cache(maxsize=64)
def _parsed(file: str, stamp: int) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


@functools.lru_cache(maxsize=64)
def _nodes(file: str, stamp: int) -> dict[Span, ast.AST]:
    """Every node of a source file by its position; of several at one position the innermost expression."""
    tree = _parsed(file, stamp)
    found: dict[Span, ast.AST] = {}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.expr | ast.stmt) and node.end_lineno is not None and node.end_col_offset is not None:
            found[node.lineno, node.end_lineno, node.col_offset, node.end_col_offset] = node
    return found


def _stamp(file: str) -> int:
    """A number that changes when the text of a file does."""
    return hash(tuple(linecache.getlines(file)))


def making_of(root: nn.Module, path: str, *, of_all: bool = False) -> str:
    """`file:line` at which a module is made in its owner's `__init__`, empty if that is not to be found.

    Of a part of a block that is there several times, it is the line that makes the block, or, of all such parts
    together, the line in the block.
    """
    names, general = path.split("."), ""
    for depth in range(len(names) - 1, -1, -1):
        owner = _submodule(root, names[:depth])
        if owner is None or type(owner).__module__.startswith("torch."):
            continue
        line = _assigned(type(owner), names[depth], names[depth + 1 :])
        if depth == 0 or of_all or sum(type(module) is type(owner) for module in root.modules()) == 1:
            return line or general
        general = general or line  # which makes the same part of other blocks too
    return general


def _submodule(root: nn.Module, names: list[str]) -> nn.Module | None:
    module: nn.Module | None = root
    for name in names:
        module = module._modules.get(name) if module is not None else None
    return module


def _assigned(owner: type, attribute: str, rest: list[str]) -> str:
    """Where a class assigns an attribute, or the entry of a sequence that it assigns."""
    for base in owner.__mro__:
        init = base.__dict__.get("__init__")
        if init is None or base.__module__.startswith("torch."):
            continue
        try:
            lines, start = inspect.getsourcelines(init)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and attribute in _attributes(node):
                value = _entry(node.value, rest) if node.value is not None else None
                line = (value or node).lineno + start - 1
                return f"{init.__code__.co_filename}:{line}"
    return ""


def _attributes(node: ast.Assign | ast.AnnAssign) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            if isinstance(part, ast.Attribute):
                yield part.attr


def _entry(value: ast.expr, rest: list[str]) -> ast.expr | None:
    """The entry of a written-out sequence that an index leads to."""
    for name in rest:
        if not isinstance(value, ast.Call) or not name.isdecimal():
            return value
        entries = value.args[0].elts if value.args and isinstance(value.args[0], ast.List) else value.args
        if any(isinstance(e, ast.Starred) for e in entries) or int(name) >= len(entries):
            return value
        value = entries[int(name)]
    return value
