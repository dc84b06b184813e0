"""Sizes that are symbols, and what a program decided by them on its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from tensorscope.live.rehearsal.formulas import compiled, written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that held on the way: with sizes for which it holds too, the program goes the same way.

    Attributes:
        formula: what held.
        uses: the names in it.
        holds: whether it does for given sizes.
        text: the formula as a reader writes it.
    """

    formula: Any
    uses: tuple[str, ...]
    holds: Callable[[Mapping[str, int]], bool]
    text: str

    @property
    def tells_apart(self) -> bool:
        """Whether it says that two sizes are not equal."""
        return type(self.formula).__name__ == "Unequality"

    @property
    def equates(self) -> bool:
        """Whether it is an equation."""
        return type(self.formula).__name__ == "Equality"


class Symbols:
    """Makes symbols, all different from each other and from every number, and reads what became of them."""

    def __init__(self) -> None:
        self.environment = ShapeEnv(specialize_zero_one=False, duck_shape=False)
        self.names: dict[Any, str] = {}

    def size(self, name: str, example: int) -> torch.SymInt:
        """A symbol for a size, with a number to decide by."""
        source = ConstantSource(name)
        symbol: Any = self.environment.create_symbol(
            example, source, DimDynamic.DYNAMIC, None, positive=None, do_not_specialize_zero_one=True
        )
        self.names[symbol] = name
        made = self.environment.create_symintnode(symbol, hint=example, source=source)
        assert isinstance(made, torch.SymInt)
        return made

    def conditions(self) -> list[Condition]:
        """All that was decided, in order, each once."""
        found: dict[Any, Condition] = {}
        for guard in self.environment.guards:
            if guard.expr not in found and (condition := self._condition(guard.expr)) is not None:
                found[guard.expr] = condition
        return list(found.values())

    def text(self, formula: Any) -> tuple[str, Callable[[Mapping[str, int]], Any] | None]:
        """How a size reads, and how to work it out; a number reads as nothing."""
        if isinstance(formula, int) or not formula.free_symbols:
            return "", None
        simple = self.environment.simplify(formula)
        if not simple.free_symbols or not simple.free_symbols <= set(self.names):
            return "", None
        return written(simple, self.names), compiled(simple, self.names)

    def _condition(self, formula: Any) -> Condition | None:
        holds = compiled(formula, self.names) if formula.free_symbols <= set(self.names) else None
        uses = tuple(name for symbol, name in self.names.items() if symbol in formula.free_symbols)
        if holds is None or not uses:
            return None
        return Condition(formula, uses, _safe(holds), written(formula, self.names))


def _safe(holds: Callable[[Mapping[str, int]], Any]) -> Callable[[Mapping[str, int]], bool]:
    def answer(sizes: Mapping[str, int]) -> bool:
        try:
            return bool(holds(sizes))
        except ZeroDivisionError:
            return False

    return answer
