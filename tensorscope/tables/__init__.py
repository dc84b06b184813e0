"""What a check of a model found out: its modules with their shapes, and what the sizes of its inputs have to be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tensorscope.tables.layout import amount, as_html, paragraphs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tensorscope.events import Finding


@dataclass(frozen=True, slots=True)
class TensorShape:
    """The shape of one tensor.

    Attributes:
        dims: sizes.
        formulas: per axis how its size follows from the inputs' sizes, `height//2-1`; empty where it is a number.
        dtype: such as `float32`.
        place: where it is in a container, `1` or `hidden.0`; empty for the first.
    """

    dims: tuple[int, ...]
    formulas: tuple[str, ...] = ()
    dtype: str = ""
    place: str = ""

    def __str__(self) -> str:
        axes = (formula or str(size) for size, formula in zip(self.dims, self._formulas(), strict=True))
        return f"({', '.join(axes)})"

    def _formulas(self) -> tuple[str, ...]:
        return self.formulas or ("",) * len(self.dims)


class Constraint(str):
    """One thing that the sizes of the inputs have to fulfil; a text that remembers its parts.

    Attributes:
        names: the axes that it is about.
        low: their smallest size.
        high: their largest size, None if no end was found.
        step: in which steps sizes may be.
        tried: the largest size tried, where nothing proves that larger ones go; None if it is proven.
    """

    __slots__ = ("high", "low", "names", "step", "tried")

    names: tuple[str, ...]
    low: int
    high: int | None
    step: int
    tried: int | None

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        low: int,
        high: int | None,
        *,
        step: int = 1,
        equal: bool = False,
        tried: int | None = None,
    ) -> Self:
        """Sizes from `low` to `high`; `equal` if the axes have to have the same one."""
        self = cls(_sentence(names, (low, high, step), equal, tried))
        self.names, self.low, self.high, self.step, self.tried = names, low, high, step, tried
        return self

    @classmethod
    def relation(cls, names: tuple[str, ...], text: str, size: int) -> Self:
        """Sizes that belong together by an equation."""
        self = cls(text)
        self.names, self.low, self.high, self.step, self.tried = names, size, size, 1, None
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (str(self), self.names, (self.low, self.high, self.step, self.tried))


def _restored(text: str, names: tuple[str, ...], numbers: tuple[Any, ...]) -> Constraint:
    made = Constraint(text)
    made.names = names
    made.low, made.high, made.step, made.tried = numbers
    return made


def _sentence(names: tuple[str, ...], sizes: tuple[int, int | None, int], equal: bool, tried: int | None) -> str:
    low, high, step = sizes
    subject = " = ".join(names) if equal else _listed(names)
    if low == high:
        return f"{subject} = {low}"
    colon = f"{subject}," if equal else f"{subject}:"
    ended = "" if tried is None else f" (tried up to {tried})"
    if step > 1:
        return f"{colon} {_multiples(low, high, step, len(names) > 1)}{ended}"
    if high is None and low <= 1:
        return f"{f'{subject},' if equal else subject} {'any size' if equal else 'is free'}{ended}"
    if high is None:
        return f"{f'{subject},' if equal else subject} ≥ {low}{ended}"
    if low <= 1:
        return f"{f'{subject},' if equal else subject} ≤ {high}"
    return f"{colon} {low} to {high}"


def _multiples(low: int, high: int | None, step: int, several: bool) -> str:
    rest = low % step
    of = f"multiple{'s' if several else ''} of {step}"
    kind = f"{rest} more than {of}" if rest else of
    if step == 2:
        kind = "odd" if rest else "even"
    start = "" if low <= step else f", from {low}"
    return kind + start + ("" if high is None else f", {'' if start else 'up '}to {high}".replace(", to", " to"))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True, slots=True)
class Row:
    """One module.

    Attributes:
        path: dotted path, empty for the model.
        type: class name.
        depth: how many calls it is below the model.
        label: its path from the module that calls it.
        calls: how often its forward ran.
        inputs: what its first call was given.
        outputs: what its first call returned.
        varying: whether later calls returned other shapes.
        parameters: elements of the parameters below it; shared ones count where they are met first.
        trainable: those of them that require a gradient.
        flops: of all calls, in operations.
        shared: parameters that count elsewhere: (its path, where it counts).
        aliases: further paths of the same module.
    """

    path: str
    type: str
    depth: int = 0
    label: str = ""
    calls: int = 1
    inputs: tuple[TensorShape, ...] = ()
    outputs: tuple[TensorShape, ...] = ()
    varying: bool = False
    parameters: int = 0
    trainable: int = 0
    flops: int = 0
    shared: tuple[tuple[str, str], ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShapeTable:
    """The modules of a model with the shapes that they return, written in the sizes of its inputs.

    Attributes:
        model: its class name.
        inputs: name → shape of the tensors it was given.
        sizes: name → size that the numbers in the table are for.
        rows: the modules that ran, in the order in which they were first called.
        constraints: what the sizes of the inputs have to be.
        findings: what runs and is wrong.
        notes: what could not be found out, and why.
    """

    model: str
    inputs: Mapping[str, TensorShape]
    sizes: Mapping[str, int]
    rows: tuple[Row, ...]
    constraints: tuple[Constraint, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> int:
        """Elements of all parameters, shared ones counted once."""
        return self.rows[0].parameters if self.rows else 0

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward."""
        return self.rows[0].flops if self.rows else 0

    def __str__(self) -> str:
        return "\n".join(paragraphs(self))

    def _repr_html_(self) -> str:
        return as_html(self)

    def to_json(self) -> str:
        """All of it as JSON."""
        data = {
            "model": self.model,
            "sizes": dict(self.sizes),
            "parameters": self.parameters,
            "flops": self.flops,
            "inputs": {name: asdict(shape) for name, shape in self.inputs.items()},
            "rows": [asdict(row) for row in self.rows],
            "constraints": [
                {"text": str(c), "names": c.names, "low": c.low, "high": c.high, "step": c.step, "tried": c.tried}
                for c in self.constraints
            ],
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
        }
        return json.dumps(data, indent=1)

    def heading(self) -> str:
        """The first line: what the model is, and what it costs."""
        trainable = self.rows[0].trainable if self.rows else 0
        frozen = self.parameters - trainable
        facts = [f"{self.parameters:,} parameters" + (f" ({frozen:,} of them frozen)" if frozen else "")]
        facts.append(f"{amount(self.flops)}FLOPs")
        return " · ".join([self.model, *facts])

    def given(self) -> str:
        """What the model was given, and the sizes that numbers are for."""
        takes = [f"{name} {shape} {shape.dtype}" for name, shape in self.inputs.items()]
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        returns = " ".join(f"{shape} {shape.dtype}" for shape in (self.rows[0].outputs if self.rows else ()))
        return " · ".join(takes) + (f" → {returns}" if returns else "") + (f"\nat {sizes}" if sizes else "")
