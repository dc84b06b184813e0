"""What is known about a program: how to build and run it, its repaired twin, what a report has to say."""

from __future__ import annotations

import ast
import inspect
import itertools
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

Dims = tuple[int, ...]
Build = Callable[[], tuple[Any, ...]]
REGISTRY: dict[str, Case] = {}


@dataclass(frozen=True, slots=True)
class Case:
    """One program.

    Attributes:
        name: the builder's name.
        build: makes `(callable, inputs)` or `(callable, inputs, keyword inputs)`; calling raises.
        module: dotted paths, one of which the report has to give; empty for the model itself or no module.
        op: names of the operation, one of which the report has to give.
        line: part of the user's own line; empty where the call that starts the program is the line.
        operands: dims that the report's operands must have among them; a set stands for any one of its members.
        origin: names, one of which the way to the offending dimension must mention; empty to skip.
        fix: texts, one of which a good fix contains; empty to skip.
        verified: whether such a fix must be there, tried out; else it is welcome.
        fixed: pairs of old and new source text that repair the program; empty where none is given.
        ids: classes of mistakes that it stands for.
        slow: whether it takes seconds.
        unrelated: whether the error is about something else than shapes, so that there is nothing to report.
    """

    name: str
    build: Build
    module: tuple[str, ...] = ("",)
    op: tuple[str, ...] = ()
    line: str = ""
    operands: tuple[Dims | frozenset[Dims], ...] = ()
    origin: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    verified: bool = False
    fixed: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    slow: bool = False
    unrelated: bool = False

    @property
    def family(self) -> str:
        """The file it stands in, `attention`."""
        return self.build.__module__.rpartition("programs_")[2]


def case(**about: Any) -> Callable[[Build], Build]:
    """Register the builder below it; strings stand for one-element tuples."""

    def register(build: Build) -> Build:
        fields: dict[str, Any] = {key: _several(value) if key in _SEVERAL else value for key, value in about.items()}
        name = build.__name__
        assert name not in REGISTRY, f"two programs are called {name}"
        REGISTRY[name] = Case(name, build, **fields)
        return build

    return register


def unrelated(build: Build) -> Build:
    """Register a program whose error has nothing to do with shapes."""
    return case(unrelated=True)(build)


_SEVERAL = frozenset({"module", "op", "origin", "fix", "ids", "fixed"})


def _several(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def either(*dims: Dims) -> frozenset[Dims]:
    """Operand dims of which any will do: torch itself turns batch and seq around inside an operation."""
    return frozenset(dims)


@dataclass(slots=True)
class Started:
    """A program that is built but not yet run."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def models(self) -> list[nn.Module]:
        """The modules among the callable and its inputs."""
        return [part for part in (self.function, *self.inputs, *self.named.values()) if isinstance(part, nn.Module)]

    def run(self) -> Any:
        """Run it for real."""
        return self.function(*self.inputs, **self.named)

    def fail(self) -> Exception:
        """Run it, and give the error it raises with its traceback."""
        try:
            self.run()
        except Exception as error:
            return error
        raise AssertionError("the program runs through")


def start(build: Build) -> Started:
    """Build a program from the same random state each time."""
    torch.manual_seed(0)
    function, inputs, *named = build()
    return Started(function, tuple(inputs), *(named or [{}]))


# -- source --


@dataclass(frozen=True, slots=True)
class Family:
    """The source of one file of programs, its records blanked out, every line keeping its number.

    Attributes:
        file: its path.
        lines: the source.
        spans: for each program the lines between the program before it and its own end, as a slice of `lines`.
    """

    file: str
    lines: tuple[str, ...]
    spans: dict[str, slice]


@cache
def family(file: str) -> Family:
    """Read a file of programs."""
    source = Path(file).read_text(encoding="utf-8")
    lines, spans, first = source.splitlines(), {}, 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in REGISTRY:
            begin, end = node.decorator_list[0].lineno - 1, node.lineno - 1
            lines[begin:end] = [""] * (end - begin)
            spans[node.name] = slice(first, node.end_lineno)
            first = node.end_lineno or 0
    return Family(file, tuple(lines), spans)


def source_of(case: Case) -> Family:
    """The file that a program stands in."""
    return family(inspect.getfile(case.build))


_COUNTER = itertools.count()


def build_from(case: Case, lines: Sequence[str]) -> Build:
    """The builder that a changed source makes."""
    source = "\n".join(lines) + "\n"
    file = f"<{case.name} changed {next(_COUNTER)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__name__": case.build.__module__, "__file__": file}
    exec(compile(source, file, "exec"), space)
    built: Build = space[case.name]
    return built


def repaired(case: Case) -> Build:
    """The builder of the repaired twin: the pairs of `fixed` replaced, each in the one place where it stands."""
    source = source_of(case)
    span = source.spans[case.name]
    text = "\n".join(source.lines[span])
    for old, new in zip(case.fixed[::2], case.fixed[1::2], strict=True):
        assert text.count(old) == 1, f"{case.name}: {old!r} stands in {text.count(old)} places"
        text = text.replace(old, new)
    return build_from(case, [*source.lines[: span.start], *text.splitlines(), *source.lines[span.stop :]])
