"""Finding where a sequence repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

LONGEST = 64  # elements of one period


@dataclass(frozen=True, slots=True)
class Run:
    """`repeats` copies of `period` elements, from `start` on."""

    start: int
    period: int
    repeats: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + self.period * self.repeats


def runs_at(tokens: Sequence[object], start: int, barred: Container[int] = ()) -> list[Run]:
    """The runs of at least two repetitions that begin at `start`: those that cover most first, then short periods.

    Args:
        tokens: the sequence.
        start: where to look.
        barred: periods not to look for.
    """
    found: list[Run] = []
    limit = min(LONGEST, (len(tokens) - start) // 2)
    for period in range(1, limit + 1):
        # Cheap refusals first: most elements begin no run.
        if tokens[start] != tokens[start + period] or period in barred:
            continue
        end = start
        while end + period < len(tokens) and tokens[end] == tokens[end + period]:
            end += 1
        repeats = (end - start) // period + 1
        if repeats >= 2:
            found.append(Run(start, period, repeats))
    return sorted(found, key=lambda run: (-run.period * run.repeats, run.period))
