"""Reads an exception's traceback: the user's line, the modules on the way to it, and the call they began with."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem.source import Place

if TYPE_CHECKING:
    from types import CodeType, FrameType

_TORCH = os.path.dirname(torch.__file__) + os.sep
_HOME = str(Path(__file__).parents[3]) + os.sep
_OURS = (_HOME + "tensorscope" + os.sep, _HOME + "tui" + os.sep)
_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")})
_MODULE_FILE = nn.Module.__call__.__code__.co_filename
CALLS = (nn.Module._wrapped_call_impl.__code__, nn.Module._call_impl.__code__)


@dataclass(frozen=True, slots=True)
class Level:
    """One frame of a traceback, and where it was."""

    frame: FrameType
    place: Place

    @property
    def module(self) -> nn.Module | None:
        """The module whose method the frame runs."""
        owner = self.frame.f_locals.get("self")
        return owner if isinstance(owner, nn.Module) else None


@dataclass(frozen=True, slots=True)
class Entry:
    """The outermost module call on the way to an error."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    level: int


@dataclass(frozen=True, slots=True)
class Crash:
    """An exception, and the frames it passed, outermost first."""

    error: BaseException
    levels: tuple[Level, ...]

    @property
    def user(self) -> Level | None:
        """The innermost frame of the user's own code; of a library's that calls torch if there is none."""
        return next((level for level in reversed(self.levels) if is_users(level.place.file)), self.scene)

    @property
    def scene(self) -> Level | None:
        """The innermost frame that is neither torch's nor ours."""
        return next((level for level in reversed(self.levels) if not is_torchs(level.place.file)), None)

    @property
    def module(self) -> nn.Module | None:
        """The innermost module that was running; for a hook the module that it hangs on."""
        for index in range(len(self.levels) - 1, -1, -1):
            level = self.levels[index]
            if level.module is not None:
                below = self.levels[index - 1] if index else level
                is_hook = below.place.file == _MODULE_FILE and level.frame.f_code.co_name in vars(type(level.module))
                is_hook &= level.frame.f_code.co_name != "forward" and level.place.file != _MODULE_FILE
                return below.module if is_hook and below.module is not None else level.module
        return None

    @property
    def is_compiled(self) -> bool:
        """Whether it was raised while a program was being compiled, out of sight of the user's lines."""
        return type(self.error).__module__.startswith("torch._dynamo")

    @property
    def entry(self) -> Entry | None:
        """The outermost module call, with the arguments it was given."""
        for index, level in enumerate(self.levels):
            if level.frame.f_code in CALLS and level.module is not None:
                values = level.frame.f_locals
                return Entry(level.module, values.get("args", ()), values.get("kwargs", {}), index)
        return None


def read_crash(error: BaseException, raised: BaseException | None = None) -> Crash:
    """Read an exception's traceback.

    Args:
        error: the exception.
        raised: what was raised from it, whose frames lead to those of the exception.
    """
    inner = _levels(error)
    outer = _levels(raised) if raised is not None else ()
    frames = [level.frame for level in outer]
    if inner and inner[0].frame in frames:
        return Crash(error, (*outer[: frames.index(inner[0].frame)], *inner))
    return Crash(error, inner)


def _levels(error: BaseException) -> tuple[Level, ...]:
    levels = []
    step = error.__traceback__
    while step is not None:
        levels.append(Level(step.tb_frame, Place(step.tb_frame.f_code, step.tb_lasti, step.tb_lineno)))
        step = step.tb_next
    return tuple(levels)


def is_torchs(file: str) -> bool:
    """Whether a file is torch's or ours, or code that torch made."""
    return file.startswith((_TORCH, "<eval_with_key>", "<frozen ", *_OURS))


def is_users(file: str) -> bool:
    """Whether a file is the user's own: not torch's, ours, or another installed library's."""
    return not is_torchs(file) and not file.startswith(_INSTALLED)


def running_place(frame: FrameType | None, start: CodeType) -> Place | None:
    """Where the innermost frame that is neither torch's nor ours is, looking no further than a frame of ours."""
    while frame is not None and is_torchs(frame.f_code.co_filename):
        if frame.f_code is start:
            return None
        frame = frame.f_back
    return Place(frame.f_code, frame.f_lasti, frame.f_lineno) if frame is not None else None
