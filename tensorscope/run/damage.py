"""What a damaged file makes of our reading comes out as a `RunError`."""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tensorscope.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

BROKEN = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, zlib.error)
Reader = TypeVar("Reader")


def damage_is_said(reader: type[Reader]) -> type[Reader]:
    """Let every public method and property of a class that reads a run, whose `path` it has, say so."""

    def safe(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def read(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                with np.errstate(all="ignore"):
                    return method(self, *args, **kwargs)
            except BROKEN as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is None:
                    raise  # a wrong call, not a damaged file
                facts = {"reason": f"{type(error).__name__}: {error}", "asked for": method.__name__}
                raise RunError(f"the run `{self.path}` is damaged", facts=facts) from error

        return read

    for name, member in list(vars(reader).items()):
        if isinstance(member, property) and member.fget is not None:
            setattr(reader, name, property(safe(member.fget)))
        elif callable(member) and not name.startswith("_"):
            setattr(reader, name, safe(member))
    return reader
