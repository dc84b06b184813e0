"""Dims: the named shape of a tensor, written in jaxtyping's grammar.

batch seq dim      three axes; a name has one size within a call
3                  exactly 3
height=28          exactly 28, with a name for the reader
_  or  _name       one axis of any size
...                any number of axes
*batch             any number of axes, the same ones wherever `*batch` stands
#seq  and  *#batch also fits where broadcasting would stretch it
2*dim  seq-1       arithmetic (+ - * // % and brackets, no spaces) over names bound elsewhere
"""

from __future__ import annotations

import ast
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tensorscope.errors import DimsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What is known of a call: `seq` → its size, `*batch` → its sizes, `*#batch` → what `*#batch` has broadcast to so far.
Sizes = dict[str, int | tuple[int, ...]]

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_EXAMPLE = "axes are separated by spaces, such as `batch seq dim`, `batch 3 height width` or `*batch seq 2*dim`"


@dataclass(frozen=True, slots=True)
class Name:
    """An axis whose size is the same wherever its name stands."""

    name: str
    broadcast: bool = False

    def __str__(self) -> str:
        return "#" * self.broadcast + self.name


@dataclass(frozen=True, slots=True)
class Fixed:
    """An axis of one size; its name is for the reader alone."""

    size: int
    name: str = ""
    broadcast: bool = False

    def __str__(self) -> str:
        return (f"{self.name}=" if self.name else "") + "#" * self.broadcast + str(self.size)


@dataclass(frozen=True, slots=True)
class Free:
    """An axis of any size; its name is for the reader alone."""

    name: str = ""

    def __str__(self) -> str:
        return f"_{self.name}"


@dataclass(frozen=True, slots=True)
class Rest:
    """Any number of axes, `...` without a name."""

    name: str = ""
    broadcast: bool = False

    def __str__(self) -> str:
        return f"*{'#' * self.broadcast}{self.name}" if self.name else "..."


@dataclass(frozen=True, slots=True)
class Computed:
    """An axis whose size follows from named ones."""

    text: str
    name: str = ""
    broadcast: bool = False
    tree: ast.expr = field(default_factory=lambda: ast.Constant(0), compare=False, repr=False)

    def __str__(self) -> str:
        return (f"{self.name}=" if self.name else "") + "#" * self.broadcast + self.text

    @property
    def uses(self) -> tuple[str, ...]:
        """The names it is computed from, in order of appearance."""
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.Name))
        return tuple(dict.fromkeys(node.id for node in sorted(nodes, key=lambda node: node.col_offset)))

    def value(self, sizes: Sizes) -> int | None:
        """Its size, or None while a name it needs has none."""
        try:
            return _evaluate(self.tree, sizes)
        except (KeyError, ZeroDivisionError):
            return None


Axis = Name | Fixed | Free | Rest | Computed


@dataclass(frozen=True, slots=True)
class Dims:
    """The named shape of one tensor, one entry per axis (`Rest` stands for any number)."""

    axes: tuple[Axis, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.axes))

    @property
    def rest(self) -> int | None:
        """Where the `Rest` stands, None if every axis has its own entry."""
        return next((i for i, axis in enumerate(self.axes) if isinstance(axis, Rest)), None)

    def names(self, rank: int) -> tuple[str, ...]:
        """One name per axis of a tensor of this rank, empty where there is none; all empty if the rank does not fit."""
        spread = _spread(self, rank)
        if spread is None:
            return ("",) * rank
        start, many = self.rest or 0, rank > len(self.axes)
        return tuple(
            f"{axis.name}{index - start}" if isinstance(axis, Rest) and axis.name and many else _name(axis)
            for axis, index in spread
        )


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where a shape contradicts dims.

    Attributes:
        got: the size met, or the number of axes.
        wanted: what it should have been.
        axis: index of the axis in the shape, None if the number of axes is wrong.
        label: that axis as the dims write it.
    """

    got: int | tuple[int, ...]
    wanted: int | tuple[int, ...]
    axis: int | None = None
    label: str = ""


def parse_dims(text: str) -> Dims:
    """Read one tensor's dims, such as `batch 3 height width`.

    Raises:
        DimsError: the text does not follow the grammar at the top of this file.
    """
    axes = tuple(_axis(token, text) for token in text.split())
    rests = [str(axis) for axis in axes if isinstance(axis, Rest)]
    if len(rests) > 1:
        hint = "keep one of them: a shape does not tell where one ends and the next begins"
        raise unreadable(text, rests[1], "more than one `...` or `*name`", hint)
    return Dims(axes)


def bind(dims: Dims, shape: Sequence[int], sizes: Sizes) -> Mismatch | None:
    """Hold a shape against dims and learn the sizes of its names.

    Sizes that are not plain integers (symbolic ones, while a program is being traced) are neither compared nor learnt:
    comparing them would tie the traced program to one size.

    Args:
        dims: what the tensor should look like.
        shape: what it looks like.
        sizes: what is bound so far; gains what is learnt here, up to a contradiction.

    Returns:
        The first contradiction, or None if there is none.
    """
    spread = _spread(dims, len(shape))
    if spread is None:
        return Mismatch(len(shape), len(dims.axes) - (dims.rest is not None))
    # Names first: `seq-1 seq` is as good as `seq seq-1`.
    for computed in (False, True):
        for axis, index in spread:
            if isinstance(axis, Computed) is computed and not isinstance(axis, Rest):
                wanted = _bind_axis(axis, shape[index], sizes)
                if wanted is not None:
                    return Mismatch(shape[index], wanted, index, str(axis))
    return _bind_rest(dims, shape, sizes)


def _bind_axis(axis: Name | Fixed | Free | Computed, size: int, sizes: Sizes) -> int | None:
    """The size the axis should have had, None if it fits or nothing is known."""
    if isinstance(axis, Free) or not isinstance(size, int) or (axis.broadcast and size == 1):
        return None
    if isinstance(axis, Fixed):
        wanted: Any = axis.size
    else:
        wanted = sizes.setdefault(axis.name, size) if isinstance(axis, Name) else axis.value(sizes)
    return None if wanted is None or wanted == size else wanted


def _bind_rest(dims: Dims, shape: Sequence[int], sizes: Sizes) -> Mismatch | None:
    start = dims.rest
    if start is None:
        return None
    rest, got = dims.axes[start], tuple(shape[start : len(shape) - (len(dims.axes) - start - 1)])
    if not isinstance(rest, Rest) or not rest.name or not all(isinstance(size, int) for size in got):
        return None
    exact, joint = f"*{rest.name}", f"*#{rest.name}"
    known = sizes.get(exact, sizes.get(joint))
    if not isinstance(known, tuple):
        sizes[joint if rest.broadcast else exact] = got
        return None
    together = _broadcast(known, got)
    # An exact `*batch` is what all of them broadcast to; `*#batch` alone may still grow.
    fits = together is not None and (exact not in sizes or together == known) and (rest.broadcast or together == got)
    if together is None or not fits:
        return Mismatch(got, known, start, str(rest))
    sizes[joint if exact not in sizes and rest.broadcast else exact] = together
    return None


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape both stretch to, None if they do not go together."""
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    joined = [a if b == 1 else b if a in (1, b) else None for a, b in pairs]
    return None if None in joined else tuple(size for size in joined if size is not None)


def _spread(dims: Dims, rank: int) -> list[tuple[Axis, int]] | None:
    """The entry that stands for each axis of a tensor of this rank, None if the rank does not fit."""
    start, extra = dims.rest, rank - len(dims.axes)
    if extra < (0 if start is None else -1) or (start is None and extra > 0):
        return None
    axes = (
        dims.axes
        if start is None
        else (*dims.axes[:start], *dims.axes[start : start + 1] * (extra + 1), *dims.axes[start + 1 :])
    )
    return [(axis, index) for index, axis in enumerate(axes)]


def _name(axis: Axis) -> str:
    return axis.name or (axis.text if isinstance(axis, Computed) else "")


def _evaluate(tree: ast.expr, sizes: Sizes) -> int:
    if isinstance(tree, ast.BinOp):
        return _OPERATORS[type(tree.op)](_evaluate(tree.left, sizes), _evaluate(tree.right, sizes))
    value = sizes[tree.id] if isinstance(tree, ast.Name) else getattr(tree, "value", None)
    if not isinstance(value, int):
        raise KeyError(ast.unparse(tree))
    return value


def _axis(token: str, text: str) -> Axis:
    """Read one entry."""
    if token == "...":
        return Rest()
    label, equals, rest = token.rpartition("=")
    if equals and not label.isidentifier():
        raise unreadable(text, token, "what stands before `=` is not a name", "write `height=28`")
    body = rest.lstrip("*#")
    marks = rest.removesuffix(body)
    if marks not in {"", "*", "#", "*#", "#*"}:
        raise unreadable(text, token, f"`{marks}` means nothing", "write `*batch`, `#seq` or `*#batch`")
    if "*" in marks:
        return _rest(token, body, "#" in marks, text)
    if body.isdecimal():
        return Fixed(int(body), label, "#" in marks)
    if body.isidentifier() and not equals:
        return Free(body[1:]) if body.startswith("_") else Name(body, "#" in marks)
    tree = _expression(body, token, text)
    return Computed(ast.unparse(tree).replace(" ", ""), label, "#" in marks, tree)


def _rest(token: str, body: str, broadcast: bool, text: str) -> Rest:
    if "=" in token or not body.isidentifier():
        raise unreadable(
            text, token, "`*` takes a name", "write `*batch` for any number of axes, `...` if they need no name"
        )
    return Rest() if body.startswith("_") else Rest(body, broadcast)


def _expression(body: str, token: str, text: str) -> ast.expr:
    """Read arithmetic over names and integers; nothing else is let through."""
    try:
        tree = ast.parse(body, mode="eval").body
    except (SyntaxError, ValueError):
        tree = None
    if tree is None or not all(_arithmetic(node) for node in ast.walk(tree)):
        raise unreadable(text, token, "not a name, an integer or arithmetic", _advice(token))
    return tree


def _arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) is int
    return isinstance(node, ast.BinOp | ast.Name | ast.Load) or type(node) in _OPERATORS


def _advice(token: str) -> str:
    if token in {"+", "-", "*", "//", "%", "/"}:
        return "arithmetic takes no spaces: `seq-1`, `2*dim`"
    if token.startswith("-"):
        return "no axis has a negative size; an axis of any size is `_`"
    if token.startswith("?"):
        return "`?name` speaks about trees of tensors, which a contract has none of; write the name alone"
    if "→" in token or token in {">", "=>", "-->"}:
        return "the arrow between inputs and outputs is `->`"
    if "/" in token.replace("//", ""):
        return "axes divide without a remainder: `dim//heads`"
    return _EXAMPLE


def unreadable(text: str, token: str, problem: str, hint: str) -> DimsError:
    """The error for a text that cannot be read at one of its parts."""
    return DimsError(f"dims cannot be read at `{token}`: {problem}", facts={"in": text.strip()}, hint=hint)
