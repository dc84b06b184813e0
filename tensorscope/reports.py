"""The explanation of one shape error, as plain data: stored in runs, shown without torch."""

from __future__ import annotations

import json
import os
import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Self

from tensorscope.errors import message

WIDTH = 80  # columns that a report is laid out for


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor that the failing operation was given.

    Attributes:
        name: what the operation or the user's line calls it: `input`, `weight`, `k.transpose(1, 2)`.
        dims: its sizes.
        dtype: such as `float32`.
        device: such as `cpu`.
        names: one name per axis, empty where there is none.
    """

    name: str
    dims: tuple[int, ...]
    dtype: str
    device: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {shape_text(self.dims, self.names)} {self.dtype}".rstrip()


@dataclass(frozen=True, slots=True)
class Where:
    """A line of the user's own code.

    Attributes:
        file: its path.
        line: number of the line, from 1.
        code: what stands there, stripped.
        function: qualified name of the function it is in, such as `Net.forward`.
    """

    file: str
    line: int
    code: str = ""
    function: str = ""

    def __str__(self) -> str:
        return f"{nearby(self.file)}:{self.line}"


@dataclass(frozen=True, slots=True)
class OriginStep:
    """One operation on the way to the offending dimension.

    Attributes:
        op: name of the operation; `input` or `parameter` where the way begins.
        module: dotted path of the module that ran it.
        dims: sizes of what came out.
        label: what a reader calls the step: a layer's path, an operation's or an input's name.
        where: the user's line, None if it is not known.
        names: one name per axis, empty where there is none.
        operand: the operand of the failed operation that the way leads to.
    """

    op: str
    module: str
    dims: tuple[int, ...]
    label: str
    where: Where | None = None
    names: tuple[str, ...] = ()
    operand: str = ""

    def __str__(self) -> str:
        return f"{self.label} {shape_text(self.dims, self.names)}"


@dataclass(frozen=True, slots=True)
class Fix:
    """One change that would help.

    Attributes:
        text: the change, as a sentence.
        verified: whether the program was run through with this change in place.
        scope: what was run: `program`, or `line` where only the failing line could be.
        where: `file:line` to change, empty if it is not known.
    """

    text: str
    verified: bool = False
    scope: str = "program"
    where: str = ""

    def __str__(self) -> str:
        at = f" at {nearby(self.where)}" if self.where else ""
        if not self.verified:
            return f"{self.text}{at} (not tried)"
        ran = "the program then runs through" if self.scope == "program" else "the line then runs"
        return f"{self.text}{at} (tried: {ran})"


@dataclass(frozen=True, slots=True)
class ShapeReport:
    """Why a shape error happened, and what to change; `str()` gives the whole text.

    Attributes:
        title: what is wrong, in one line.
        error: the exception as torch raised it, `RuntimeError: mat1 and mat2 …`.
        op: name of the operation that failed.
        module: dotted path of the module in which it failed; empty for the model itself.
        module_type: that module's class, empty outside of a module.
        operands: the tensors that the operation was given.
        where: the user's own line, None if no line of theirs was running.
        origin: the operations that made the offending dimension, newest first.
        formula: the dimension written in module attributes and input dimensions, `1600 = 64 · 5 · 5`; None if unknown.
        terms: what the formula's terms are: (term, explanation).
        got: what was wrong with the values, where no formula says it.
        fits: for which input sizes the program would have run, empty if unknown.
        fixes: what to change, the best first.
        notes: what could not be found out, and why.
        kind: `shape_error`, `dtype_error`, `device_error` or `index_out_of_range`.
    """

    title: str
    error: str
    op: str
    module: str = ""
    module_type: str = ""
    operands: tuple[Operand, ...] = ()
    where: Where | None = None
    origin: tuple[OriginStep, ...] = ()
    formula: str | None = None
    terms: tuple[tuple[str, str], ...] = ()
    got: str = ""
    fits: str = ""
    fixes: tuple[Fix, ...] = ()
    notes: tuple[str, ...] = ()
    kind: str = "shape_error"

    def __str__(self) -> str:
        facts = self.facts()
        room = WIDTH - 4 - max(map(len, facts), default=0)
        facts = {label: _wrapped(value, room) for label, value in facts.items()}
        lines = [textwrap.fill(self.title, WIDTH, break_long_words=False, break_on_hyphens=False)]
        lines += message("", facts).splitlines()[1:]
        if self.fixes:
            first, *others = map(str, self.fixes)
            lines += ["", _hanging("hint: ", first)]
            lines += [_hanging("  or: ", other) for other in others[:3]]
        return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n"))

    def facts(self) -> dict[str, str]:
        """Label → value, as the text shows them between title and hint."""
        facts = {
            "at": _place(self.where) if self.where else "",
            "in": self._owner(),
            "op": f"{self.op}: {' · '.join(map(str, self.operands))}" if self.operands else self.op,
            "got": self._got(),
            "path": _path(self.origin),
            "would fit": self.fits,
            "error": self.error.partition("\n")[0],
            "note": "\n".join(self.notes),
        }
        return {label: value for label, value in facts.items() if value}

    def to_json(self) -> str:
        """The report as a text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a report again.

        Raises:
            ValueError: the text is no report.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["operands"] = tuple(Operand(**_tuples(entry)) for entry in fields["operands"])
            fields["where"] = Where(**fields["where"]) if fields["where"] else None
            fields["origin"] = tuple(_step(entry) for entry in fields["origin"])
            fields["terms"] = tuple((term, said) for term, said in fields["terms"])
            fields["fixes"] = tuple(Fix(**entry) for entry in fields["fixes"])
            fields["notes"] = tuple(fields["notes"])
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a report: {error}") from error

    def _owner(self) -> str:
        function = self.where.function if self.where else ""
        function = "" if function == "<module>" else function
        module = f"`{self.module}` ({self.module_type})" if self.module and self.module_type else self.module_type
        if function == f"{self.module_type}.forward":
            return f"`{self.module}` ({function})" if self.module else function
        return ", called in ".join(filter(None, (module, function)))

    def _got(self) -> str:
        width = max((len(term) for term, _ in self.terms), default=0) + 2
        lines = [self.formula or "", *(f"{term:<{width}}{said}" for term, said in self.terms), self.got]
        return "\n".join(line for line in lines if line)


def shape_text(dims: tuple[int, ...], names: tuple[str, ...] = ()) -> str:
    """A shape as messages write it: `(4, 1600)`, with names `(batch=4, 1600)`."""
    if not any(names):
        return f"({', '.join(map(str, dims))}{',' * (len(dims) == 1)})"
    return f"({', '.join(f'{name}={size}' if name else str(size) for size, name in zip(dims, names, strict=True))})"


def nearby(file: str) -> str:
    """A path as seen from the working folder, where it is below it."""
    try:
        return file.removeprefix(os.getcwd() + os.sep)
    except OSError:  # the folder is gone
        return file


def _place(where: Where) -> str:
    place, code = str(where), where.code
    return f"{place}  {code}" if len(place) + len(code) < WIDTH - 14 else f"{place}\n  {code}"


def _path(origin: tuple[OriginStep, ...]) -> str:
    """One line for each operand that the ways lead to."""
    ways = {step.operand: [s for s in reversed(origin) if s.operand == step.operand] for step in origin}
    label = "{}: " if len(ways) > 1 else ""
    return "\n".join(label.format(operand) + " → ".join(map(str, way)) for operand, way in ways.items())


def _wrapped(text: str, width: int) -> str:
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )


def _hanging(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _step(entry: dict[str, Any]) -> OriginStep:
    where = Where(**entry["where"]) if entry["where"] else None
    return OriginStep(**_tuples(entry | {"where": where}))
