"""Finds sizes for axes that were given none, with which a model runs.

A forward on symbols leaves the conditions that it decided by. Where it fails, one of them was decided the wrong way:
other sizes are looked for with which it goes the other way, the last condition first (concolic testing; Godefroid,
Klarlund and Sen, DART, 2005).
"""

from __future__ import annotations

import math
from itertools import count, islice
from typing import TYPE_CHECKING

from tensorscope.live.rehearsal.forward import Rehearsal, rehearse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn

    from tensorscope.live.rehearsal.inputs import Given
    from tensorscope.live.rehearsal.symbols import Condition

TRIES = 40  # forwards on symbols
LARGEST = 4096  # size that is thought of
_USUAL = (28, 32, 64, 96, 128, 224, 256, 299, 384, 512, 768, 1024)  # sizes that are thought of first
_SQUARE = 48  # largest sizes of two axes that are thought of together
# Where the search begins; all different, so that no two axes fit each other by accident.
_FIRST = {"batch": 2, "channels": 3, "height": 64, "width": 96, "length": 80, "depth": 32, "seq": 16, "time": 16}


def settle(model: nn.Module, given: Given) -> tuple[Given, Rehearsal]:
    """Give every open name a size with which the model runs.

    Returns:
        What the model takes (whole numbers where nothing was said and real ones do not go), and the forward with those
        sizes, symbols for open ones; one that failed if no sizes were found, the one that came furthest.
    """
    first = start(given)
    if not given.open:
        return given, rehearse(model, given, first)
    best = _searched(model, given, first)
    if best.runs or not best.imaginable:
        return given, best
    for slot in given.slots:
        if not slot.declared:
            twin = given.with_ids(slot.name)
            found = _searched(model, twin, first)
            if found.runs:
                return twin, found
            if found.operations > best.operations:
                best, given = found, twin
    return given, best


def start(given: Given) -> dict[str, int]:
    """Sizes to begin with."""
    sizes = {name: size for name, size in given.sizes.items() if size is not None}
    fresh = _others({*sizes.values(), *_FIRST.values()})
    for name in given.open:
        usual = _FIRST.get(name.rpartition(".")[2])
        sizes[name] = usual if usual is not None and usual not in sizes.values() else next(fresh)
    return {name: sizes[name] for name in given.sizes}


def _others(taken: Iterable[int]) -> Iterator[int]:
    """Odd numbers that nothing else is likely to be."""
    known = set(taken)
    return (number for number in primes(5) if number not in known)


def primes(start: int) -> Iterator[int]:
    """The prime numbers from a number on."""
    return (n for n in count(start) if n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1)))


def _searched(model: nn.Module, given: Given, first: dict[str, int]) -> Rehearsal:
    """The first forward that runs, depth first; the one that came furthest if none does."""
    waiting: list[Iterator[dict[str, int]]] = [iter([first])]
    seen: set[tuple[int, ...]] = set()
    best: Rehearsal | None = None
    while waiting and len(seen) < TRIES:
        sizes = next(waiting[-1], None)
        if sizes is None:
            waiting.pop()
            continue
        if (key := tuple(sizes.values())) in seen:
            continue
        seen.add(key)
        tried = rehearse(model, given, sizes, given.open)
        if tried.runs:
            return tried
        if not tried.imaginable:
            return rehearse(model, given, sizes)
        if best is None or tried.operations > best.operations:
            best = tried
        waiting.append(turned(tried, given.open))
    assert best is not None
    return best


def turned(tried: Rehearsal, names: Iterable[str]) -> Iterator[dict[str, int]]:
    """Sizes with which one of the conditions comes out the other way, the last condition first."""
    conditions = tried.symbols.conditions() if tried.symbols else []
    free = set(names)
    for place in reversed(range(len(conditions))):
        uses = [name for name in conditions[place].uses if name in free]
        yield from _solved(conditions[place], conditions[:place], uses, tried.sizes)


def _solved(
    condition: Condition, before: list[Condition], names: list[str], sizes: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """Sizes that break a condition and keep those before it: one changed, all made equal, or two changed."""
    before = [other for other in before if set(other.uses) & set(names)]
    ways = [_single(name, sizes, condition) for name in names]
    if len(names) > 1:
        ways.append({**sizes, **dict.fromkeys(names, size)} for size in (*_USUAL, *range(1, LARGEST)))
    for way in ways:
        broken = (trial for trial in way if not condition.holds(trial))
        kept = (trial for trial in broken if all(other.holds(trial) for other in before))
        yield from islice(kept, 1)
    if len(names) == 2 and condition.tells_apart:
        pairs = ({**sizes, names[0]: a, names[1]: b} for a in range(1, _SQUARE) for b in range(1, _SQUARE))
        yield from islice((trial for trial in pairs if not condition.holds(trial)), 1)


def _single(name: str, sizes: Mapping[str, int], condition: Condition) -> Iterator[dict[str, int]]:
    """Sizes with one changed: to be equal to something the smallest first, otherwise the nearest."""
    values: Iterable[int] = (*_USUAL, *range(1, LARGEST + 1))
    if not condition.tells_apart:
        values = sorted(values, key=lambda value: (abs(value - sizes[name]), -value))
    return ({**sizes, name: value} for value in values if value != sizes[name])
