"""Contracts: what the tensors that go into a function and come out of it have to do with each other.

    batch seq dim, mask: seq seq -> batch seq dim

Commas separate tensors, which are the function's parameters in their order; `mask:` points at a parameter by name.
Nothing right of the arrow is a 0-d tensor; without an arrow the result is not declared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope.dims import Computed, Dims, Name, parse_dims, unreadable
from tensorscope.errors import DimsError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor of a contract: its dims and, if the contract says so, the parameter it is."""

    dims: Dims
    parameter: str = ""

    def __str__(self) -> str:
        return f"{self.parameter}: {self.dims}".strip() if self.parameter else str(self.dims)


@dataclass(frozen=True, slots=True)
class Contract:
    """What a function's tensors have to do with each other; `outputs` is None if nothing is said of them."""

    inputs: tuple[Item, ...]
    outputs: tuple[Item, ...] | None = None

    def __str__(self) -> str:
        sides = [self.inputs] if self.outputs is None else [self.inputs, self.outputs]
        return " -> ".join(", ".join(map(str, side)).strip() for side in sides).strip()


def parse_contract(text: str) -> Contract:
    """Read a contract, such as `batch seq dim, mask: seq seq -> batch seq dim`.

    Raises:
        DimsError: the text does not follow the grammar, or computes with a name that nothing before it binds.
    """
    left, *right = text.split("->")
    if len(right) > 1:
        raise unreadable(text, "->", "more than one arrow", "write inputs `->` outputs, once")
    inputs = tuple(_item(part, text) for part in left.split(",")) if left.strip() else ()
    outputs = tuple(_item(part, text) for part in right[0].split(",")) if right else None
    _require_bound((*inputs, *(outputs or ())), text)
    return Contract(inputs, outputs)


def _item(part: str, text: str) -> Item:
    parameter, colon, dims = part.rpartition(":")
    if colon and not parameter.strip().isidentifier():
        raise unreadable(
            text, part.strip(), "what stands before `:` is not a parameter's name", "write `mask: seq seq`"
        )
    try:
        return Item(parse_dims(dims), parameter.strip())
    except DimsError as error:
        raise DimsError(error.title, facts={**error.facts, "in": text}, hint=error.hint) from None


def _require_bound(items: tuple[Item, ...], text: str) -> None:
    """Refuse arithmetic over names that no tensor up to its own gives a size."""
    bound: set[str] = set()
    for item in items:
        bound |= {axis.name for axis in item.dims.axes if isinstance(axis, Name)}
        for axis, name in _uses(item):
            if name not in bound:
                snake = axis.text.replace("-", "_")
                meant = f"; one axis of two words is `{snake}`" if snake.isidentifier() else ""
                raise DimsError(
                    f"`{axis}` computes with `{name}`, which has no size there",
                    facts={"in": text, "sizes": " ".join(sorted(bound)) or "none yet"},
                    hint=f"let an axis of this or an earlier tensor be `{name}`{meant}",
                )


def _uses(item: Item) -> Iterator[tuple[Computed, str]]:
    for axis in item.dims.axes:
        if isinstance(axis, Computed):
            yield from ((axis, name) for name in axis.uses)
