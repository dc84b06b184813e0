"""Finds what a contract declares in the values of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tensorscope.contracts import Besides, Each, Either, Fields, One, Several, What
from tensorscope.dims import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.dims import Mismatch, Sizes

MISSING = object()  # stands where a named part should be


@dataclass(frozen=True, slots=True)
class Met:
    """One declared place of a call and what stands there: a tensor, or something that should be one.

    Attributes:
        place: as Python writes it from the call: `x`, `state[1]`, `batch.ids`; of a result `[0]`, empty for a lone one.
        what: what should stand there.
        value: what stands there.
        returned: whether it belongs to the result.
    """

    place: str
    what: What
    value: object
    returned: bool = False

    @property
    def options(self) -> tuple[One, ...]:
        """The tensors that may stand there."""
        options = self.what.options if isinstance(self.what, Either) else (self.what,)
        return tuple(option for option in options if isinstance(option, One))

    def __str__(self) -> str:
        if not self.returned:
            return f"`{self.place}`"
        return f"the returned tensor {self.place}".strip()


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Why what stands in a place does not fit: `mismatch` if it is the shape, else the dtype, else it is no tensor."""

    option: One | None = None
    mismatch: Mismatch | None = None


def contradiction(met: Met, sizes: Sizes) -> Contradiction | None:
    """Hold what was met against what is declared.

    Args:
        met: a place of a call.
        sizes: what is bound so far; gains what is learnt here, up to a contradiction.
    """
    options = met.options
    if not isinstance(met.value, Tensor) or not options:
        return Contradiction()
    if len(options) == 1:
        return _against(options[0], met.value, sizes)
    worst: list[Contradiction] = []
    for option in options:
        trial = dict(sizes)
        problem = _against(option, met.value, trial)
        if problem is None:
            sizes.update(trial)
            return None
        worst.append(problem)
    # Of several, the one that comes closest: of the same dtype, then of the same number of axes.
    return min(
        worst, key=lambda each: (each.mismatch is None, each.mismatch is not None and each.mismatch.axis is None)
    )


def dtype_name(value: Tensor) -> str:
    """`float32`, as torch calls it."""
    return str(value.dtype).removeprefix("torch.")


def _against(option: One, value: Tensor, sizes: Sizes) -> Contradiction | None:
    if option.dtype is not None and dtype_name(value) not in option.dtype.names:
        return Contradiction(option)
    mismatch = bind(option.dims, value.shape, sizes)
    return None if mismatch is None else Contradiction(option, mismatch)


def found(what: What, value: object, place: str, *, returned: bool = False) -> Iterator[Met]:
    """Every tensor of a value that is declared, and everything that stands where it must not.

    Args:
        what: what is declared.
        value: what was given or returned.
        place: where it is.
        returned: whether it belongs to the result.
    """
    if isinstance(what, Either):
        yield from _one_of(what, value, place, returned)
    elif not takes(what, value):
        if not _let_through(what, value):
            yield Met(place, what, value, returned)
    elif isinstance(what, One):
        yield Met(place, what, value, returned)
    else:
        for part, entry, step in _parts(what, value):
            if entry is not MISSING or Besides.ANYTHING not in {part.besides, what.besides}:
                yield from found(part, entry, place + step, returned=returned)


def takes(what: What, value: object) -> bool:
    """Whether a value is of the kind that is declared; what is in it is not looked at."""
    match what:
        case One():
            return isinstance(value, Tensor)
        case Several():
            return isinstance(value, tuple | list) and len(value) == len(what.parts)
        case Each():
            return isinstance(value, tuple | list | Mapping)
        case Fields():
            if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
                return len(value) == len(what.parts) or all(name.isdecimal() for name, _ in what.parts)
            return not (value is None or value is MISSING or isinstance(value, Tensor | int | float | str))
        case Either():
            return any(takes(option, value) for option in what.options)


def part_in(value: Any, name: str, number: int, count: int) -> object:
    """A named part of a value, `MISSING` if it has none of that name.

    Args:
        value: a dict, sequence or other object.
        name: key, attribute or position of the part.
        number: which of the declared parts it is.
        count: how many are declared: the names of a plain tuple of that many are for the reader.
    """
    if type(value) is dict and name in value:
        return value[name]
    # What is a dict and a dataclass at once may leave out the keys of fields that are None.
    if isinstance(value, Mapping) and (name in value or name not in getattr(value, "__dataclass_fields__", ())):
        key = int(name) if name.isdecimal() and name not in value else name
        return value.get(key, MISSING)
    if isinstance(value, tuple | list):
        if name.isdecimal():
            return value[int(name)] if int(name) < len(value) else MISSING
        if not hasattr(value, "_fields"):
            return value[number] if len(value) == count else MISSING
    return getattr(value, name, MISSING)


def _step(value: object, name: str, number: int) -> str:
    """How Python writes the way to a named part."""
    if isinstance(value, Mapping):
        return _subscript(name)
    if isinstance(value, tuple | list) and (name.isdecimal() or not hasattr(value, "_fields")):
        return f"[{name if name.isdecimal() else number}]"
    return f".{name}"


def _subscript(key: object) -> str:
    return f"[{key!r}]".replace("'", '"')


def _let_through(what: What, value: object) -> bool:
    if value is None:
        return what.besides is not Besides.NOTHING
    if isinstance(value, Tensor):  # its rows are entries, too
        return isinstance(what, Each) and what.besides is Besides.ANYTHING
    if value is MISSING or (isinstance(what, Several) and isinstance(value, tuple | list)):
        return False
    # What a tracer puts in a tensor's place is no tensor, but stands for one.
    return what.besides is Besides.ANYTHING or hasattr(value, "__torch_function__")


def _one_of(what: Either, value: object, place: str, returned: bool) -> Iterator[Met]:
    fitting = [option for option in what.options if takes(option, value)]
    if not fitting:
        if not _let_through(what, value):
            yield Met(place, what, value, returned)
    elif len(fitting) == 1:
        yield from found(fitting[0], value, place, returned=returned)
    elif isinstance(value, Tensor):
        yield Met(place, Either(tuple(fitting)), value, returned)
    # Which of several kinds of containers is meant, nobody can tell from here.


def _parts(what: What, value: Any) -> Iterator[tuple[What, object, str]]:
    match what:
        case Several():
            yield from ((part, entry, f"[{i}]") for i, (part, entry) in enumerate(zip(what.parts, value, strict=True)))
        case Each() if isinstance(value, Mapping):
            yield from ((what.what, entry, _subscript(key)) for key, entry in value.items())
        case Each():
            yield from ((what.what, entry, f"[{i}]") for i, entry in enumerate(value))
        case Fields():
            for number, (name, part) in enumerate(what.parts):
                entry = part_in(value, name, number, len(what.parts))
                yield part, entry, _step(value, name, number)
