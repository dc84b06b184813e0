"""Looking at tensors of a program under way without its noticing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from types import TracebackType


class Observer(Protocol):
    """Whoever looks on; the first error of its own ends it."""

    error: Exception | None


class Unseen:
    """Around our own looking at tensors: nobody's mode sees it, and an error in it is kept by the observer alone."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.unseen = torch._C.DisableTorchFunction()

    def __enter__(self) -> None:
        self.unseen.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self.unseen.__exit__(None, None, None)
        if not isinstance(error, Exception):
            return False
        self.observer.error = error.with_traceback(None)  # a traceback would keep tensors alive
        return True
