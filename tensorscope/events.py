"""The vocabulary of a run: where a tensor is seen (site), what is kept of it (stats), what is wrong (finding)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = "<root>"  # how the model itself, whose module path is empty, is written
MAX_CALLS = 8  # calls of one module in one step that keep a row of their own; later ones share the last

# The numbers kept of each site at each measured step, in the order in which they are stored.
STORED = ("count", "mean", "std", "min", "max", "zero_fraction", "nonfinite", "dead_fraction")
# What follows from them.
DERIVED = ("l2", "rms")

_WIDTH = re.compile(r"(?:bool$|[a-z]+(\d+))")  # of a dtype's name: its bits


class Kind(StrEnum):
    """What a site looks at."""

    OUTPUT = "output"
    INPUT = "input"
    PARAMETER = "parameter"
    UPDATE = "update"  # what an optimizer's step has added to a parameter


class Site(str):
    """A place where a tensor is seen; a string that remembers its parts.

    `blocks.3.attn` is the module's output, `blocks.3.attn:grad` that output's gradient, `blocks.3.attn.weight` a
    parameter, `blocks.3.attn.weight:grad` its gradient, `<root>:input` the model's input, `lstm[1]` the second tensor
    that `lstm` returns, `relu#1` the second call of `relu` in one step.

    Args:
        path: dotted path of the module or parameter; empty for the model itself.
        kind: what the site looks at.
        place: which tensor of a nested output or input, `1` or `hidden.0`; empty for the first.
        call: how many calls of the module came before in the same pass.
        gradient: whether this is the gradient of what the other parts name.
    """

    __slots__ = ("call", "gradient", "kind", "path", "place")

    path: str
    kind: Kind
    place: str
    call: int
    gradient: bool

    def __new__(
        cls, path: str, kind: Kind = Kind.OUTPUT, *, place: str = "", call: int = 0, gradient: bool = False
    ) -> Self:
        """Put the parts together."""
        text = path or ROOT
        text += f"#{call}{'+' if call == MAX_CALLS - 1 else ''}" if call else ""
        text += f":{kind}" if kind in (Kind.INPUT, Kind.UPDATE) else ""
        text += f"[{place}]" if place else ""
        text += ":grad" if gradient else ""
        self = super().__new__(cls, text)
        self.path, self.kind, self.place, self.call, self.gradient = path, kind, place, call, gradient
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _site, (self.path, self.kind, self.place, self.call, self.gradient)

    @property
    def grad(self) -> Site:
        """The site of this tensor's gradient."""
        return Site(self.path, self.kind, place=self.place, call=self.call, gradient=True)

    @property
    def module(self) -> str:
        """Dotted path of the module it belongs to, for a parameter the module that holds it."""
        return self.path.rpartition(".")[0] if self.kind in (Kind.PARAMETER, Kind.UPDATE) else self.path


def _site(path: str, kind: str, place: str, call: int, gradient: bool) -> Site:
    return Site(path, Kind(kind), place=place, call=call, gradient=gradient)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges: `edges` has one more entry than `counts`; non-finite values are not counted."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """The fixed-size summary of one tensor, over its finite elements.

    Attributes:
        count: all elements, finite or not.
        mean: of the finite elements, like `std` (population), `min`, `max`; NaN if there is none.
        std: see mean.
        min: see mean.
        max: see mean.
        zero_fraction: share of elements that are exactly 0, of all elements (of a sample, for large tensors in a run).
        nonfinite: elements that are NaN or ±Inf.
        dead_fraction: share of a rectifier's units that have not fired for a window; NaN elsewhere.
        histogram: over the finite elements, if one was asked for.
    """

    count: int
    mean: float
    std: float
    min: float
    max: float
    zero_fraction: float
    nonfinite: int
    dead_fraction: float = math.nan
    histogram: Histogram | None = None

    @property
    def rms(self) -> float:
        """Root of the mean square of the finite elements."""
        return math.hypot(self.mean, self.std)  # mean² + std² = mean of squares

    @property
    def l2(self) -> float:
        """Euclidean norm of the finite elements."""
        finite = self.count - self.nonfinite
        return math.sqrt(finite) * self.rms if finite else 0.0

    @classmethod
    def from_stored(cls, values: Sequence[float]) -> Stats:
        """Read the numbers of one row, in the order of `STORED`."""
        count, mean, std, low, high, zero, nonfinite, dead = map(float, values)
        return cls(int(count), mean, std, low, high, zero, int(nonfinite), dead)


class Severity(StrEnum):
    """How bad a finding is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One diagnosed problem.

    Attributes:
        rule: id of the fault class, such as `dead_relu`.
        site: module path, parameter name, `input`, `loss` or `optimizer`; None for the whole program.
        severity: how bad.
        summary: one sentence with the numbers.
        first_step: the first step at which it was seen.
        last_step: the last one.
        evidence: name → number.
        hint: what to change.
        caused_by: the finding that explains this one, or None.
    """

    rule: str
    site: str | None
    severity: Severity
    summary: str
    first_step: int
    last_step: int
    evidence: dict[str, float] = field(default_factory=dict)
    hint: str = ""
    caused_by: Finding | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape that a site's tensor had from a step on.

    Attributes:
        step: the first step with this shape.
        dims: sizes.
        names: one name per axis, empty where nobody declared one.
        dtype: such as `float32`.
        device: such as `cpu`.
    """

    step: int
    dims: tuple[int, ...]
    names: tuple[str, ...] = ()
    dtype: str = ""
    device: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes that its elements take; 0 where a size (ragged) or the dtype is not known."""
        width = _WIDTH.match(self.dtype)
        if width is None or any(size < 0 for size in self.dims):
            return 0
        return math.prod(self.dims) * max(1, int(width[1] or 8) // 8)  # narrower numbers have a byte each, or share it

    def __str__(self) -> str:
        named = any(self.names)
        parts = (
            (f"{n}={d}" if n else str(d) for n, d in zip(self.names, self.dims, strict=True))
            if named
            else map(str, self.dims)
        )
        return f"({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """One module of the traced model.

    Attributes:
        path: dotted path, empty for the model.
        type: class name.
        parameters: elements of the parameters it holds itself, shared ones counted where they are met first.
        trainable: those of them that require a gradient.
        aliases: further paths of the same object.
        bytes: that those parameters take.
    """

    path: str
    type: str
    parameters: int
    trainable: int
    aliases: tuple[str, ...] = ()
    bytes: int = 0
