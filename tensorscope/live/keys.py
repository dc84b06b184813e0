"""What two calls have to share so that the second fits if the first did: keys to remember checked calls by.

The key of a tensor is its shape (and dtype), of anything else its type, of a container those of what is declared in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from tensorscope.contracts import Each, Either, Fields, One, Several, What
from tensorscope.live.places import part_in

Key = Callable[[Any], object]


def shapes_of(values: Sequence[object]) -> tuple[object, ...]:
    """Keys of lone tensors whose dtypes do not matter."""
    return tuple([value.shape if isinstance(value, Tensor) else type(value) for value in values])


def shapes_and_dtypes_of(values: Sequence[object]) -> tuple[object, ...]:
    """Keys of lone tensors."""
    return tuple([(value.shape, value.dtype) if isinstance(value, Tensor) else type(value) for value in values])


def key_maker(what: What) -> Key:
    """A function that makes the key of a value of which this is declared."""
    match what:
        case One():
            return _tensor_key
        case Several():
            return _several_key([key_maker(part) for part in what.parts])
        case Each():
            return _each_key(key_maker(what.what))
        case Fields():
            return _fields_key(what, [key_maker(part) for _, part in what.parts])
        case Either():
            keys = [key_maker(option) for option in what.options]
            return lambda value: tuple([key(value) for key in keys])


def _tensor_key(value: Any) -> object:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else type(value)


def _several_key(keys: list[Key]) -> Key:
    def of(value: Any) -> object:
        if not isinstance(value, tuple | list):
            return type(value)
        if len(value) != len(keys):
            return len(value)
        return tuple([key(part) for key, part in zip(keys, value, strict=True)])

    return of


def _each_key(key: Key) -> Key:
    def of(value: Any) -> object:
        if isinstance(value, tuple | list):
            return tuple([key(part) for part in value])
        return tuple([key(part) for part in value.values()]) if isinstance(value, Mapping) else type(value)

    return of


def _fields_key(what: Fields, keys: list[Key]) -> Key:
    parts = [(number, name, key) for number, ((name, _), key) in enumerate(zip(what.parts, keys, strict=True))]

    def of(value: Any) -> object:
        if value is None or isinstance(value, Tensor):
            return type(value)
        return tuple([key(part_in(value, name, number, len(parts))) for number, name, key in parts])

    return of
