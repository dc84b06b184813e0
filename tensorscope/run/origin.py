"""Where the first number that is not finite came from, as plain data: stored in runs, shown without torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from tensorscope.events import ROOT
from tensorscope.reports import Where, shape_text

_VERBS = {
    "div": "divided by",
    "reciprocal": "divided by",
    "log": "took the logarithm of",
    "sqrt": "took the square root of",
    "rsqrt": "took the square root of",
    "exp": "exponentiated",
}


class Direction(StrEnum):
    """In which part of a step a number stopped being finite."""

    INPUT = "input"
    PARAMETER = "parameter"
    FORWARD = "forward"
    BACKWARD = "backward"
    LOSS = "loss"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Culprit:
    """A tensor that did it: what an operation was given.

    Attributes:
        name: what the user's line or the operation calls it, a parameter's path, or an input's name.
        shape: its sizes.
        dtype: such as `float32`.
        min: of the finite elements, None if there is none.
        max: likewise.
        zeros: elements that are 0.
        nonfinite: elements that are NaN or ±Inf.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    min: float | None
    max: float | None
    zeros: int
    nonfinite: int

    @property
    def largest(self) -> float:
        """The largest magnitude of a finite element, 0 if there is none."""
        return max(abs(self.min or 0.0), abs(self.max or 0.0))

    def __str__(self) -> str:
        span = (
            f"{self.min:.3g} to {self.max:.3g}" if self.min is not None and self.max is not None else "nothing finite"
        )
        counts = [f"{self.zeros} zero{'s' * (self.zeros != 1)}"] * bool(self.zeros)
        counts += [f"{self.nonfinite} not finite"] * bool(self.nonfinite)
        return ", ".join((f"`{self.name}` {shape_text(self.shape)} {self.dtype}: {span}", *counts))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the first number that is not finite came from.

    Attributes:
        direction: in which part of the step.
        module: dotted path of the module that was running, empty for the model itself; of a parameter its owner.
        op: torch's name of the operation, such as `div`; empty if no operation did it.
        within: the function that the user called and that ran the operation, where it is another one.
        where: the user's line, None if none of theirs was running.
        culprits: the tensors that did it, the first one first; of a loss what it was given.
        nonfinite: elements of the result (backward: of the gradient that came out) that are not finite.
        sure: whether it was seen to happen again.
        note: what could not be found out, and why; empty if nothing.
        step: the step that it happened in, -1 if nobody said.
        ops: of a loss, the operations that it consists of, if they are known.
    """

    direction: Direction
    module: str = ""
    op: str = ""
    within: str = ""
    where: Where | None = None
    culprits: tuple[Culprit, ...] = ()
    nonfinite: int = 0
    sure: bool = True
    note: str = ""
    step: int = -1
    ops: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One sentence, without a full stop."""
        tellers = {
            Direction.INPUT: self._input,
            Direction.PARAMETER: self._parameter,
            Direction.FORWARD: self._forward,
            Direction.BACKWARD: self._backward,
            Direction.LOSS: self._loss,
            Direction.UNKNOWN: self._unknown,
        }
        said = tellers[self.direction]()
        return f"{said} ({self.note})" if self.note else said

    @property
    def site(self) -> str:
        """The site that a finding blames."""
        if self.direction is Direction.INPUT:
            return "input"
        if self.direction is Direction.LOSS:
            return "loss"
        if self.direction is Direction.PARAMETER and self.culprits:
            return self.culprits[0].name
        return self.module or ROOT

    def to_json(self) -> str:
        """The origin as a text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read an origin again.

        Raises:
            ValueError: the text is no origin.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["direction"] = Direction(fields["direction"])
            fields["where"] = Where(**fields["where"]) if fields["where"] else None
            culprits = [entry | {"shape": tuple(entry["shape"])} for entry in fields["culprits"]]
            fields["ops"] = tuple(fields["ops"])
            fields["culprits"] = tuple(Culprit(**entry) for entry in culprits)
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an origin: {error}") from error

    @property
    def _scene(self) -> str:
        """`div` at model.py:31 in `encoder.norm`."""
        inside = f" (inside `{self.within}`)" if self.within else ""
        at = f" at {self.where}" if self.where else ""
        return f"`{self.op}`{inside}{at}{f' in `{self.module}`' if self.module else ''}"

    def _input(self) -> str:
        held = _values(sum(one.nonfinite for one in self.culprits))
        return f"the model's input{_in(self.culprits)} held {held} not finite"

    def _parameter(self) -> str:
        held = _values(sum(one.nonfinite for one in self.culprits))
        return f"{' and '.join(f'`{one.name}`' for one in self.culprits)} held {held} not finite before the pass"

    def _unknown(self) -> str:
        return "it could not be found out what made the gradient non-finite"

    def _forward(self) -> str:
        one = self.culprits[0] if self.culprits else None
        verb = _VERBS.get(self.op.removesuffix("_"), "")
        if one is None:
            return f"{self._scene} made {_values(self.nonfinite)} not finite"
        if one.nonfinite:
            return f"{self._scene} was given {_values(one.nonfinite)} not finite in `{one.name}`"
        if verb and one.min is not None:
            return f"{self._scene} {verb} {_reason(one, verb)} in `{one.name}`"
        return f"{self._scene} made {_values(self.nonfinite)} not finite of {' and '.join(map(str, self.culprits[:2]))}"

    def _backward(self) -> str:
        if not self.op:
            return f"the gradient stopped being finite in the backward of `{self.module or ROOT}`"
        one = self.culprits[0] if self.culprits else None
        gave = f"the backward of {self._scene} gave {_values(self.nonfinite)} not finite"
        if one is None:
            return gave
        if one.zeros and not one.nonfinite:
            return f"{gave}: `{one.name}` held {_zeros(one.zeros)}"
        return f"{gave}: {one}"

    def _loss(self) -> str:
        if not self.culprits:
            return "the loss made it: the model's own forward and backward are finite"
        given = " and ".join(map(str, self.culprits[:2]))
        named = f" ({', '.join(f'`{op}`' for op in self.ops)})" if self.ops else ""
        return f"the loss{named} made it of the model's output {given}"


def _reason(one: Culprit, verb: str) -> str:
    """What about an operand is out of an operation's domain."""
    if verb == "exponentiated":
        return f"values up to {one.max:.3g}"
    if verb != "divided by" and one.min is not None and one.min < 0:
        return f"values down to {one.min:.3g}"
    return _zeros(one.zeros) if one.zeros else f"values from {one.min:.3g} to {one.max:.3g}"


def _in(culprits: tuple[Culprit, ...]) -> str:
    return f" `{culprits[0].name}`" if culprits else ""


def _zeros(count: int) -> str:
    return f"{count} zero{'s' * (count != 1)}"


def _values(count: int) -> str:
    return f"{count} value{'s' * (count != 1)}"
