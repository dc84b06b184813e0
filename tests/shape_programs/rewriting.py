"""Write a fix that a report proposes into the source of a program, so that it can be run for real."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tensorscope.reports import Fix

SWAPS = re.compile(r"`([^`]+)` (?:instead of|in place of|rather than|for) `([^`]+)`")
LAYER = re.compile(r"make `([\w.]+)` `((?:torch\.)?nn\.\w+\(.*\))`")
QUOTED = re.compile(r"`([^`]+)`")


def line_of(fix: Fix) -> int:
    """The number of the line that a fix is for, 0 where it names none."""
    _, _, number = fix.where.rpartition(":")
    return int(number) if number.isdigit() else 0


def versions(lines: Sequence[str], fix: Fix) -> list[list[str]]:
    """The sources that a fix can mean: empty where its sentence cannot be followed by a machine."""
    number = line_of(fix)
    if not number or number > len(lines):
        return []
    found = [*_swapped(lines, number, fix.text), *_substituted(lines, number, fix.text)]
    return [version for version, _ in itertools.groupby(found)]


def with_layer(models: Sequence[nn.Module], fix: Fix) -> bool:
    """Follow "make `path` `nn.Linear(1600, 128)`" on models that are already built; False where that is not said."""
    found = LAYER.match(fix.text)
    if found is None:
        return False
    path, code = found.groups()
    try:
        layer = eval(code, {"nn": nn, "torch": torch})
    except NameError:  # written in the program's own names
        return False
    owners = [model for model in models if path in dict(model.named_modules())]
    for model in owners[:1]:
        model.set_submodule(path, layer.train(model.training))
    return bool(owners)


def _swapped(lines: Sequence[str], number: int, text: str) -> Iterator[list[str]]:
    """Follow "`new` instead of `old`"."""
    for new, old in SWAPS.findall(text):
        for first, second in ((new, old), (old, new)):
            for node in _nodes(lines, number):
                if _same(node, second):
                    yield _replaced(lines, node, first)


def _substituted(lines: Sequence[str], number: int, text: str) -> Iterator[list[str]]:
    """Follow "`nn.Linear(1600, 128)`": it stands for the call of the same name, or for what it is made from."""
    quoted = QUOTED.findall(text)
    if LAYER.match(text):
        yield from _calls(lines, number, quoted[-1])
    elif len(quoted) == 1:
        yield from _calls(lines, number, quoted[0])
        yield from _parts(lines, number, quoted[0])
        yield from _statement(lines, number, quoted[0])


def _calls(lines: Sequence[str], number: int, text: str) -> Iterator[list[str]]:
    new = _parsed(text)
    if isinstance(new, ast.Call):
        for node in _nodes(lines, number):
            if isinstance(node, ast.Call) and _same(node.func, ast.unparse(new.func)):
                yield _replaced(lines, node, text)


def _parts(lines: Sequence[str], number: int, text: str) -> Iterator[list[str]]:
    parts = [part for part in ast.walk(_parsed(text) or ast.Tuple(elts=[])) if isinstance(part, ast.expr)]
    for part in parts[1:]:
        if not isinstance(part, ast.Constant):
            nodes = _nodes(lines, number)
            yield from (_replaced(lines, node, text) for node in nodes if _same(node, ast.unparse(part)))


def _statement(lines: Sequence[str], number: int, text: str) -> Iterator[list[str]]:
    """Follow a whole statement, `h = h.flatten(1)`, put in place of the line."""
    try:
        is_statement = not isinstance(ast.parse(text).body[0], ast.Expr)
    except (SyntaxError, IndexError):
        return
    if not is_statement:
        return
    line = lines[number - 1]
    indent = line[: len(line) - len(line.lstrip())]
    yield [*lines[: number - 1], indent + text, *lines[number:]]


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _nodes(lines: Sequence[str], number: int) -> list[ast.expr]:
    """Expressions that stand on a line, the largest first."""
    tree = ast.parse("\n".join(lines))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.expr)]
    return [node for node in found if node.lineno <= number <= (node.end_lineno or 0) and _is_read(node)]


def _is_read(node: ast.expr) -> bool:
    return isinstance(getattr(node, "ctx", ast.Load()), ast.Load)


def _same(node: ast.expr, text: str) -> bool:
    expected = _parsed(text)
    return expected is not None and ast.unparse(node) == ast.unparse(expected)


def _replaced(lines: Sequence[str], node: ast.expr, text: str) -> list[str]:
    first, last = node.lineno - 1, (node.end_lineno or 0) - 1
    before = lines[first].encode()[: node.col_offset].decode()
    after = lines[last].encode()[node.end_col_offset :].decode()
    gap = [""] * (last - first)  # every line keeps its number
    return [*lines[:first], before + text + after, *gap, *lines[last + 1 :]]
