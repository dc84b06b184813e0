"""Finds the steps of a training from what can be seen: passes through the model, and optimizers that step.

A **phase** begins with a pass and lasts until the first training pass after an optimizer has stepped. A step is usually
one phase. With several optimizers that take turns, a step is as many phases as it takes until one of them steps again;
so a phase is held back until that is known, which it is as soon as every optimizer has had its turn. Without any
optimizer each pass is a step; where one exists and has not stepped yet, passes are held back, since they may turn out
to be one step's gradient accumulation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Bundle = TypeVar("Bundle")
PATIENCE = 32  # passes to wait for an optimizer that exists and has not stepped yet


@dataclass(eq=False)
class Phase(Generic[Bundle]):
    """What was gathered between two boundaries.

    Attributes:
        bundle: what the owner gathers.
        optimizers: ids of those that stepped.
        passes: passes seen.
        number: the step it belongs to, once that is settled.
    """

    bundle: Bundle
    optimizers: set[int] = field(default_factory=set)
    passes: int = 0
    number: int | None = None


class StepFinder(Generic[Bundle]):
    """Sorts what is gathered into steps.

    Args:
        new: makes an empty bundle.
        emit: takes the bundles of one settled step, and its number; called in the order of steps.
        expects_optimizer: whether some optimizer owns the model's parameters; asked at the first pass.
        first: number of the first step.
    """

    def __init__(
        self,
        new: Callable[[], Bundle],
        emit: Callable[[list[Bundle], int], None],
        expects_optimizer: Callable[[], bool],
        first: int = 0,
    ) -> None:
        self._new, self._emit, self._expects_optimizer = new, emit, expects_optimizer
        self.phase: Phase[Bundle] = Phase(new())
        self._held: list[Phase[Bundle]] = []
        self._known: set[int] = set()
        self._settled = False  # whether an optimizer has had a second turn, so that `_known` is the whole cycle
        self._next = first
        self._manual = False
        self._expected: bool | None = None

    @property
    def number(self) -> int:
        """The step under way, as far as it is known."""
        if self.phase.number is not None:
            return self.phase.number
        one_more = self._known and self._held and (not self._settled or self._held_optimizers() >= self._known)
        return self._next + bool(one_more)

    @property
    def trains(self) -> bool:
        """Whether passes without gradients are evaluation, not the work itself."""
        return bool(self._known or self._expected)

    def pass_begins(self, *, gradients: bool) -> bool:
        """Note a pass through the model; whether it belongs to a step, which an evaluation pass does not."""
        if self._expected is None:
            self._expected = self._expects_optimizer()
        if self.trains and not gradients:
            return False
        if not self._manual and (self.phase.optimizers if self._known else self.phase.passes or self.phase.optimizers):
            self._turn()
        self.phase.passes += 1
        return True

    def optimizer_stepped(self, optimizer: int) -> None:
        """Note that an optimizer of this model has stepped."""
        if not self._manual and optimizer in self._held_optimizers():
            self._known, self._settled = self._held_optimizers(), True
            self._release(self._held)
        self._known.add(optimizer)
        self.phase.optimizers.add(optimizer)
        if not self._manual and self._settled and self._held_optimizers() | self.phase.optimizers >= self._known:
            self._release([*self._held, self.phase])

    def optimizers_gone(self, gone: set[int]) -> None:
        """Note that optimizers exist no more: what they took part in is settled, for there is no second turn."""
        self._known -= gone
        if gone and not self._manual:
            phases = [*self._held, self.phase]
            last = max((nth for nth, phase in enumerate(phases) if phase.optimizers & gone), default=-1)
            self._release(phases[: last + 1])

    def step(self) -> None:
        """End a step here; from now on only these calls do."""
        self._manual = True
        self._release([*self._held, self.phase])
        self.phase = Phase(self._new())

    def close(self) -> None:
        """Settle what is left."""
        if not self._known:
            self._release_singly()
        elif self.phase.optimizers & self._held_optimizers():
            self._release(self._held)
        self._release([*self._held, self.phase])

    def _turn(self) -> None:
        if self.phase.number is None:
            self._held.append(self.phase)
        if not self._known and not (self._expected and len(self._held) < PATIENCE):
            self._expected = False  # an optimizer that exists does not step: count passes
            self._release_singly()
        self.phase = Phase(self._new())

    def _release_singly(self) -> None:
        for phase in list(self._held):
            self._release([phase])

    def _release(self, phases: list[Phase[Bundle]]) -> None:
        """Settle phases as one step."""
        phases = [phase for phase in phases if phase.number is None]
        self._held = [phase for phase in self._held if phase not in phases]
        for phase in phases:
            phase.number = self._next
        if phases:
            self._emit([phase.bundle for phase in phases], self._next)
            self._next += 1

    def _held_optimizers(self) -> set[int]:
        return {optimizer for phase in self._held for optimizer in phase.optimizers}
