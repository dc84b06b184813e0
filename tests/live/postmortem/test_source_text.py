"""Expressions found in source by the instruction that was running, and the lines where modules are made."""

from __future__ import annotations

import ast
import linecache
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes import caught, program
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tensorscope.live.postmortem.crash import read_crash
from tensorscope.live.postmortem.source import Place, making_of, written

HEAD = "import torch\nfrom torch import nn\n"


def place(body: str, folder: Path) -> Place:
    """Where the user's code was when a function with this body raised."""
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    space = program(f"{HEAD}def run():\n{indented}\n", folder)
    crash = read_crash(caught(space.run))
    assert crash.user is not None
    return crash.user.place


A, B = "torch.zeros(2, 3)", "torch.zeros(4)"
EXPRESSIONS = [
    (f"return {A} + {B}", f"{A} + {B}"),
    (f"x = {A}\nreturn (x * 2) @ ({B} - 1)", f"x * 2 @ ({B} - 1)"),
    (
        "return torch.cat(\n    [\n        torch.zeros(2, 3),\n        torch.zeros(4),\n    ],\n)",
        f"torch.cat([{A}, {B}])",
    ),
    (f"größe = {A}\nreturn 'naïve ünïcode', größe.view(7)", "größe.view(7)"),
    (f"return [row.view(9) for row in {A}]", "row.view(9)"),
    (f"return (lambda x: x.view(7))({A})", "x.view(7)"),
    (f"x = {A}\nx += {B}\nreturn x", f"x += {B}"),
    (f"x = {A}\nx[0] = {B}", "x[0]"),
    (f"a, b, c = {A}", "(a, b, c)"),
    (f"x = {A}; y = {B}; return x.mul(y).sum()", "x.mul(y)"),
    (f"return f'{{{A}.view(7)}}'", None),
    (f"x = {A}\nreturn x.flatten().view(2,   7)", "x.flatten().view(2, 7)"),
]


@pytest.mark.parametrize(("body", "expression"), EXPRESSIONS)
def test_the_expression_that_was_running(body: str, expression: str | None, tmp_path: Path) -> None:
    here = place(body, tmp_path)
    if expression is not None:
        assert here.expression == expression
    assert here.node is None or isinstance(here.node, ast.expr | ast.stmt)


def test_a_statement_over_several_lines_is_found_from_any_of_them(tmp_path: Path) -> None:
    here = place(f"y = torch.cat(\n    [{A},\n     {A}.view(7)]\n)\nreturn y", tmp_path)
    assert here.expression == f"{A}.view(7)"
    assert isinstance(here.statement, ast.Assign)
    assert (here.statement.lineno, here.line) == (4, 6)


def test_the_innermost_statement_is_meant(tmp_path: Path) -> None:
    here = place(f"for _ in range(2):\n    if True:\n        y = {A}.view(7)", tmp_path)
    assert isinstance(here.statement, ast.Assign)
    assert ast.unparse(here.statement) == f"y = {A}.view(7)"


def test_a_span_is_lines_then_columns_in_bytes(tmp_path: Path) -> None:
    here = place("ü = torch.zeros(6)\nreturn ü.view(7)", tmp_path)
    assert here.span == (5, 5, 11, 21)  # `ü` is two bytes


def test_a_place_without_source_has_no_node() -> None:
    space: dict[str, Any] = {"torch": torch}
    exec("def run():\n    return torch.zeros(2).view(3)\n", space)
    crash = read_crash(caught(space["run"]))
    assert crash.user is not None
    here = crash.user.place
    assert (here.node, here.statement, here.expression, here.text) == (None, None, "", "")
    assert here.span is not None


def test_source_that_no_longer_parses_gives_no_node(tmp_path: Path) -> None:
    here = place("return torch.zeros(2).view(3)", tmp_path)
    (tmp_path / "program.py").write_text("def run(:\n", encoding="utf-8")
    linecache.checkcache()
    assert (here.tree, here.node, here.statement, here.expression) == (None, None, None, "")


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    here = place("return torch.zeros(2).view(3)", tmp_path)
    assert here.expression == "torch.zeros(2).view(3)"
    file = tmp_path / "program.py"
    file.write_text(file.read_text(encoding="utf-8").replace("view(3)", "wiew(3)"), encoding="utf-8")
    os.utime(file, (1, 1))
    linecache.checkcache()
    assert here.expression == "torch.zeros(2).wiew(3)"


def test_code_in_an_interpreters_line_cache_has_source() -> None:
    source = "def run():\n    return torch.zeros(2).view(3)\n"
    linecache.cache["<cell 1>"] = (len(source), None, source.splitlines(keepends=True), "<cell 1>")
    space: dict[str, Any] = {"torch": torch}
    exec(compile(source, "<cell 1>", "exec"), space)
    crash = read_crash(caught(space["run"]))
    assert crash.user is not None
    assert crash.user.place.expression == "torch.zeros(2).view(3)"


def test_code_without_positions_has_neither_span_nor_node() -> None:
    code = compile("x = 1", "<made>", "exec").replace(co_linetable=b"")
    here = Place(code, 0, 1)
    assert (here.span, here.node, here.statement) == (None, None, None)


@given(
    st.sampled_from(
        ["x.view(2, -1)", "a @ b", "x[..., 1:]", "f(*args, **kw)", "lambda q: q.t()", "x if y else z", "[a, *b]"]
    )
)
def test_what_is_written_on_one_line_stays_as_it_is(text: str) -> None:
    assert written(ast.parse(text, mode="eval").body) == text


def test_nothing_is_written_as_nothing() -> None:
    assert written(None) == ""


# -- where modules are made --

MODELS = """
class Part(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, 2)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = nn.Linear(1, 2)
        self.typed: nn.Module = nn.Linear(3, 4)
        self.one, self.two = nn.Linear(5, 6), nn.Linear(7, 8)
        self.body = nn.Sequential(
            nn.Linear(9, 10),
            nn.ReLU(),
            nn.Sequential(
                nn.Linear(11, 12),
            ),
        )
        self.blocks = nn.ModuleList([Part(n) for n in (1, 2, 3)])
        self.pair = nn.ModuleList([
            Part(1),
            Part(2),
        ])
        self.named = nn.ModuleDict({
            "a": nn.Linear(13, 14),
        })
        self.starred = nn.Sequential(*[nn.Linear(1, 1) for _ in range(2)])
        self.add_module("added", nn.Linear(15, 16))
        setattr(self, "set", nn.Linear(17, 18))

class Child(Model):
    def __init__(self):
        super().__init__()
        self.plain = nn.Linear(19, 20)

class Silent(Model):
    pass
"""
MADE = [
    ("plain", "self.plain = nn.Linear(1, 2)"),
    ("typed", "self.typed: nn.Module = nn.Linear(3, 4)"),
    ("one", "self.one, self.two = nn.Linear(5, 6), nn.Linear(7, 8)"),
    ("two", "self.one, self.two = nn.Linear(5, 6), nn.Linear(7, 8)"),
    ("body", "self.body = nn.Sequential("),
    ("body.0", "nn.Linear(9, 10),"),
    ("body.1", "nn.ReLU(),"),
    ("body.2.0", "nn.Linear(11, 12),"),
    ("blocks.1", "self.blocks = nn.ModuleList([Part(n) for n in (1, 2, 3)])"),
    ("blocks.1.fc", "self.blocks = nn.ModuleList([Part(n) for n in (1, 2, 3)])"),
    ("pair.1", "Part(2),"),
    ("pair.1.fc", "Part(2),"),
    ("starred.1", "self.starred = nn.Sequential(*[nn.Linear(1, 1) for _ in range(2)])"),
    ("added", None),
    ("set", None),
]


@pytest.fixture
def models(tmp_path: Path) -> Any:
    return program(HEAD + MODELS, tmp_path)


def line_at(where: str) -> str | None:
    file, _, number = where.rpartition(":")
    return linecache.getline(file, int(number)).strip() if where else None


@pytest.mark.parametrize(("path", "line"), MADE)
@pytest.mark.parametrize("kind", ["Model", "Silent"])
def test_the_line_where_a_module_is_made(kind: str, path: str, line: str | None, models: Any) -> None:
    assert line_at(making_of(getattr(models, kind)(), path)) == line


def test_the_class_that_assigns_last_is_meant(models: Any) -> None:
    assert line_at(making_of(models.Child(), "plain")) == "self.plain = nn.Linear(19, 20)"
    assert line_at(making_of(models.Child(), "typed")) == "self.typed: nn.Module = nn.Linear(3, 4)"


def test_an_entry_of_a_dict_is_made_where_the_dict_is(models: Any) -> None:
    assert line_at(making_of(models.Model(), "named.a")) == "self.named = nn.ModuleDict({"


@pytest.mark.parametrize("path", ["", "0", "missing", "missing.deeper"])
def test_what_is_not_made_in_a_class_has_no_line(path: str) -> None:
    assert making_of(nn.Sequential(nn.Linear(1, 2)), path) == ""


def test_a_class_without_source_has_no_line() -> None:
    space: dict[str, Any] = {"nn": nn, "__name__": "nowhere"}
    exec(
        "class Model(nn.Module):\n def __init__(self):\n  super().__init__()\n  self.fc = nn.Linear(1, 1)",
        space,
    )
    assert making_of(space["Model"](), "fc") == ""
