"""Where an axis came from, in words: its formula, what the formula's terms are, and which inputs would have fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope.live.postmortem.axes import Axis, InputAxis, Kind, evaluated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LONGEST = 8  # terms of a formula; with more, it is written with fewer levels
_FURTHEST = 4  # times the present size that inputs are tried at, and at least
_AT_LEAST = 1024
_GIVEN: Mapping[Kind, Callable[[str], str]] = {
    Kind.WEIGHT: lambda label: label if "`" in label else f"`{label}`",
    Kind.LITERAL: str,
    Kind.UNKNOWN: lambda label: f"depends on values ({label})",
}
_IMAGE = {"height", "width", "depth"}


@dataclass(frozen=True, slots=True)
class Fitting:
    """Input sizes with which an axis would have had the size that was wanted.

    Attributes:
        text: such as `images of height and width 38 to 41`.
        sizes: those of them that are closest to the present ones.
    """

    text: str
    sizes: Mapping[InputAxis, int]


def formula(axis: Axis) -> str | None:
    """The axis' size as arithmetic, `1600 = 64 · 5 · 5`; None if it was given just so."""
    sign = {Kind.PRODUCT: " · ", Kind.SUM: " + "}.get(axis.kind)
    if sign is not None:
        found = _terms(axis)
        return f"{axis.size} = {sign.join(str(term.size) for term in found)}" if len(found) > 1 else None
    if axis.kind is Kind.SLICE:
        return _by_rule(axis)  # of windows the chain of sizes says more
    if axis.kind is Kind.PART and len(axis.parts) == 1:
        whole = axis.parts[0].size
        return f"{axis.size} = {whole} / {whole // axis.size}" if axis.size and whole % axis.size == 0 else None
    return None


def terms(axis: Axis, names: Mapping[InputAxis, str] | None = None) -> tuple[tuple[str, str], ...]:
    """What the terms of the formula are, or the axis itself where there is no formula.

    Args:
        axis: what `formula` was asked about.
        names: what a reader calls the inputs' axes, if not by their labels.

    Returns:
        Each term and its explanation, such as `("5", "height: 28 → conv1 26 → pool 13")`.
    """
    told = _Teller(_names(axis.tree(), names), axis)
    return tuple((str(term.size), told.explained(term)) for term in _terms(axis))


def _names(tree: Sequence[Axis], names: Mapping[InputAxis, str] | None) -> Mapping[InputAxis, str]:
    """What the inputs' axes are called, for those that have a name."""
    named = {axis.source: axis.label for axis in tree if axis.source is not None and axis.label != str(axis.source)}
    return {**named, **(names or {})}


def _terms(axis: Axis) -> list[Axis]:
    """The axes that the formula of an axis speaks about."""
    if axis.kind in {Kind.SLICE, Kind.PART} and formula(axis) is not None:
        return [axis.parts[0]]
    if axis.kind not in {Kind.PRODUCT, Kind.SUM}:
        return [axis]
    found = list(axis.parts)
    for _ in range(_LONGEST):
        opened = [inner for part in found for inner in (part.parts if part.kind is axis.kind else (part,))]
        if len(opened) == len(found) or len(opened) > _LONGEST:
            break
        found = opened
    neutral = 1 if axis.kind is Kind.PRODUCT else 0
    return [term for term in found if term.size != neutral] or found[:1]


def _by_rule(axis: Axis) -> str | None:
    text = axis.rule.text if axis.rule is not None else ""
    return f"{axis.size} = {text.format(*(part.size for part in axis.parts))}" if text else None


class _Teller:
    """Explains axes one after the other, and does not say the same thing twice."""

    def __init__(self, names: Mapping[InputAxis, str], axis: Axis) -> None:
        self.names = names
        self.several = len({source.name for source in axis.inputs()}) > 1  # inputs, so that names need one
        self.said: dict[str, str] = {}  # a chain of sizes → the root that it was said of

    def explained(self, axis: Axis) -> str:
        """What an axis is."""
        chain, root = _chain(axis)
        if chain:
            sizes = f"{root.size} {chain}"
            name = self._root(root)
            if sizes in self.said and self.said[sizes] != name:
                return f"{name}, likewise"
            self.said[sizes] = name
            return f"{name}: {sizes}"
        return self._root(axis)

    def _root(self, axis: Axis) -> str:
        if axis.source is not None:
            return self._input(axis.source)
        if axis.kind in _GIVEN:
            return _GIVEN[axis.kind](axis.label)
        if axis.kind in {Kind.PRODUCT, Kind.SUM}:
            sign = " · " if axis.kind is Kind.PRODUCT else " + "
            return sign.join(self._short(part) for part in _terms(axis))
        if len(axis.parts) == 1:
            whole = self._short(axis.parts[0])
            return f"{whole} / {axis.parts[0].size // axis.size}" if axis.kind is Kind.PART else f"a part of {whole}"
        return f"made by {axis.label}"

    def _short(self, axis: Axis) -> str:
        return f"{axis.size} ({self._root(axis)})" if axis.parts and axis.kind is not Kind.WINDOW else self._named(axis)

    def _named(self, axis: Axis) -> str:
        chain, root = _chain(axis)
        return f"{self._root(root)} {axis.size}" if chain else f"{self._root(axis)} {axis.size}"

    def _input(self, source: InputAxis) -> str:
        name = self.names.get(source)
        if name is None:
            return f"`{source}`"
        alone = not self.several and name in _IMAGE
        return name if alone else f"{name} of `{source.name}`"


def _chain(axis: Axis) -> tuple[str, Axis]:
    """The windows that an axis went through, as `→ conv1 26 → pool 13`, and what went into the first."""
    links: list[str] = []
    while axis.kind is Kind.WINDOW and len(axis.parts) == 1:
        links.append(f"→ {axis.label} {axis.size}")
        axis = axis.parts[0]
    return " ".join(reversed(links)), axis


# -- which inputs would have fitted ----------------------------------------------------------------------------------


def fitting(axis: Axis, wanted: int, names: Mapping[InputAxis, str] | None = None) -> Fitting | None:
    """For which input sizes an axis would have had another size.

    Args:
        axis: the axis.
        wanted: the size that would have been right.
        names: what a reader calls the inputs' axes, if not by their labels.

    Returns:
        The input sizes; None if none up to four times the present ones (at least 1024) does it.
    """
    tree = axis.tree()
    names = _names(tree, names)
    sources = [part for part in tree if part.source is not None]
    for group in _groups(sources, names):
        present = group[0].size
        keys = [part.source for part in group if part.source is not None]
        limit = max(_AT_LEAST, _FURTHEST * present)
        fit = [n for n in range(1, limit + 1) if evaluated(tree, dict.fromkeys(keys, n)) == wanted]
        if fit:
            closest = min(fit, key=lambda n: abs(n - present))
            return Fitting(_fitting_text(keys, _range_around(closest, fit), names), dict.fromkeys(keys, closest))
    return None


def _groups(sources: Sequence[Axis], names: Mapping[InputAxis, str]) -> list[list[Axis]]:
    """Which inputs' axes to change together: equal neighbours first, then each by itself, a batch at last."""
    ordered = sorted(sources, key=lambda axis: axis.source or InputAxis("", 0))
    runs: list[list[Axis]] = []
    for axis in ordered:
        if runs and _square(runs[-1][-1], axis, names):
            runs[-1].append(axis)
        else:
            runs.append([axis])
    alone = sorted(ordered, key=lambda axis: _is_batch(axis, names))
    return [run for run in runs if len(run) > 1] + [[axis] for axis in alone]


def _square(one: Axis, other: Axis, names: Mapping[InputAxis, str]) -> bool:
    if one.source is None or other.source is None or one.size != other.size or _is_batch(one, names):
        return False
    named = {names.get(one.source), names.get(other.source)}
    together = one.source.name == other.source.name and one.source.index + 1 == other.source.index
    return together and (named <= _IMAGE or named == {None})


def _is_batch(axis: Axis, names: Mapping[InputAxis, str]) -> bool:
    return axis.source is not None and names.get(axis.source, "" if axis.source.index else "batch") == "batch"


def _range_around(number: int, numbers: list[int]) -> str:
    first = last = number
    among = set(numbers)
    while first - 1 in among:
        first -= 1
    while last + 1 in among:
        last += 1
    return str(first) if first == last else f"{first} to {last}"


def _fitting_text(keys: list[InputAxis], sizes: str, names: Mapping[InputAxis, str]) -> str:
    known = [names[key] for key in keys if key in names]
    if len(known) < len(keys):
        axes = " and ".join(str(key.index) for key in keys)
        return f"`{keys[0].name}` of size {sizes} in ax{'e' if len(keys) > 1 else 'i'}s {axes}"
    whole = "images" if set(known) <= _IMAGE else f"`{keys[0].name}`"
    return f"{whole} of {' and '.join(known)} {sizes}"
