"""Chapter 28: what a search may try.

    space = Space(lr=LogUniform(1e-4, 0.1), hidden=Integer(32, 512), activation=Choice("relu", "gelu"))

Every parameter is a map from the unit interval to its values. A random draw is the map at random places, a grid the map
at even ones, and the Gaussian process of `bayesian.py` looks at the places instead of the values, so that a learning
rate counts by its logarithm in every sampler.

Glossary
    config       one value for each parameter, by name
    u            a place in [0, 1]
    a, b         the smallest and the largest value

Source: chapter 28 of the book; Bergstra and Bengio, Random Search for Hyper-Parameter Optimization (2012).

Differs from the book: a draw is a config of its own instead of the base config, and learning rates are drawn
log-uniformly by every sampler (erratum E-56).
Does not handle: parameters that exist only for some values of others; constraints.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Value = float | str | tuple[int, ...]
Config = dict[str, Value]


class Parameter(ABC):
    """Something to be chosen, as a map from the unit interval."""

    @abstractmethod
    def at(self, u: float) -> Value:
        """The value at a place.

        Args:
            u: in [0, 1].
        """

    @abstractmethod
    def coordinates(self, value: Value) -> list[float]:
        """Where a value lies, for measuring how far two of them are apart; numbers in [0, 1]."""

    @abstractmethod
    def grid(self, points: int) -> list[Value]:
        """Values spread evenly over the range, both ends among them.

        Args:
            points: how many, where there are so many.
        """


@dataclass(frozen=True, slots=True)
class Uniform(Parameter):
    """A number, anywhere between two others.

    Attributes:
        low: a.
        high: b.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check(self, -math.inf)

    def at(self, u: float) -> float:
        """The value at a place."""
        # x = a + u (b - a), which rounding must not carry past b
        return min(self.low + u * (self.high - self.low), self.high)

    def coordinates(self, value: Value) -> list[float]:
        """The place of a value."""
        return [(_number(value) - self.low) / (self.high - self.low)]

    def grid(self, points: int) -> list[Value]:
        """Values with the same difference between neighbours."""
        return [self.at(u) for u in _even(points)]


@dataclass(frozen=True, slots=True)
class LogUniform(Parameter):
    """A positive number, each order of magnitude as likely as another: learning rates, weight decay.

    Attributes:
        low: a.
        high: b.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check(self, 0.0)

    def at(self, u: float) -> float:
        """The value at a place."""
        # x = a (b / a)ᵘ
        return min(self.low * math.pow(self.high / self.low, u), self.high)

    def coordinates(self, value: Value) -> list[float]:
        """The place of a value."""
        # u = log(x / a) / log(b / a), which undoes the above
        return [math.log(_number(value) / self.low) / math.log(self.high / self.low)]

    def grid(self, points: int) -> list[Value]:
        """Values with the same ratio between neighbours."""
        return [self.at(u) for u in _even(points)]


@dataclass(frozen=True, slots=True)
class Integer(Parameter):
    """A whole number, both ends included.

    Attributes:
        low: a.
        high: b.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"expected `low` ≤ `high`, got {self.low} and {self.high}")

    def at(self, u: float) -> int:
        """The value at a place: each of them owns an equal part of the interval."""
        # x = a + ⌊u (b - a + 1)⌋
        return min(self.low + int(u * (self.high - self.low + 1)), self.high)

    def coordinates(self, value: Value) -> list[float]:
        """The middle of the part that a value owns."""
        return [(_number(value) - self.low + 0.5) / (self.high - self.low + 1)]

    def grid(self, points: int) -> list[Value]:
        """Values with about the same difference between neighbours, none of them twice."""
        return list(dict.fromkeys(round(self.low + u * (self.high - self.low)) for u in _even(points)))


@dataclass(frozen=True, slots=True, init=False)
class Choice(Parameter):
    """One of some values that have no order.

    Attributes:
        values: the values.
    """

    values: tuple[Value, ...]

    def __init__(self, *values: Value) -> None:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"expected different `values`, at least one, got {values}")
        object.__setattr__(self, "values", values)

    def at(self, u: float) -> Value:
        """The value at a place: each of them owns an equal part of the interval."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def coordinates(self, value: Value) -> list[float]:
        """An axis for each value, on which it lies so far out that any two of them are 1 apart."""
        return [math.sqrt(0.5) * (value == each) for each in self.values]

    def grid(self, points: int) -> list[Value]:
        """All of them."""
        return list(self.values)


class Space:
    """Named parameters, each chosen independently of the others.

    Args:
        parameters: what is to be chosen, by name.
    """

    def __init__(self, **parameters: Parameter) -> None:
        if not parameters:
            raise ValueError("expected at least one parameter, got none")
        self.parameters = parameters

    def __len__(self) -> int:
        return len(self.parameters)

    def at(self, places: Sequence[float]) -> Config:
        """The config at a point of the unit cube.

        Args:
            places: a number in [0, 1] for each parameter, in their order.
        """
        pairs = zip(self.parameters.items(), places, strict=True)
        return {name: parameter.at(u) for (name, parameter), u in pairs}

    def coordinates(self, config: Config) -> list[float]:
        """Where a config lies, for measuring how far two of them are apart."""
        return [x for name, parameter in self.parameters.items() for x in parameter.coordinates(config[name])]


def _check(parameter: Uniform | LogUniform, floor: float) -> None:
    if not floor < parameter.low < parameter.high < math.inf:
        expected = "`low` < `high`" if floor else "0 < `low` < `high`"
        raise ValueError(f"expected {expected}, both finite, got {parameter.low} and {parameter.high}")


def _number(value: Value) -> float:
    if isinstance(value, str | tuple):
        raise TypeError(f"expected a number as `value`, got {value!r}")
    return value


def _even(points: int) -> list[float]:
    if points < 1:
        raise ValueError(f"expected `points` ≥ 1, got {points}")
    return [i / (points - 1) for i in range(points)] if points > 1 else [0.5]
