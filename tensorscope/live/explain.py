"""Explains a shape error from the exception alone: where it happened, where the dimension came from, what helps.

Nothing runs and nothing is kept until an error happens. Then the frames of its traceback say which module, line and
call failed; that module is run again on copies of its tensors, every operation written down, and the changes that would
help are tried out the same way. The program's own tensors, modules and random state stay as they are.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import torch

from tensorscope.errors import ShapeError
from tensorscope.live.panel import install
from tensorscope.live.postmortem.account import account, from_frames
from tensorscope.live.postmortem.crash import read_crash
from tensorscope.live.postmortem.gradients import of_checkpoint
from tensorscope.live.postmortem.programs import programs
from tensorscope.live.postmortem.relevance import is_about_tensors
from tensorscope.live.postmortem.replay import ONE_AT_A_TIME, is_small, replay
from tensorscope.live.postmortem.scene import Scene
from tensorscope.live.sandbox import quiet
from tensorscope.reports import ShapeReport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from torch import nn

    from tensorscope.live.postmortem.crash import Crash
    from tensorscope.live.postmortem.replay import Failure, Program, Replay

_DEEPEST = 16  # causes of causes
_ATTRIBUTE = "__tensorscope_report__"


def explain(error: BaseException, model: nn.Module | None = None) -> ShapeReport | None:
    """Explain a shape error.

    Args:
        error: the exception, as it was caught.
        model: the model that module paths are to start from; default: the outermost module that was running.

    Returns:
        The report; None if the error is not about shapes, dtypes, devices or index ranges of tensors.
    """
    if (known := getattr(error, _ATTRIBUTE, None)) is not None:
        return ShapeReport.from_json(known)
    crash = next((c for c in (read_crash(cause, error) for cause in _causes(error)) if _is_ours(c)), None)
    if crash is None:
        return None
    with ONE_AT_A_TIME, quiet():
        report = _report(crash, model)
    with contextlib.suppress(AttributeError):
        setattr(error, _ATTRIBUTE, report.to_json())  # a text, so that the error pickles as before
    return report


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and the ones that it was raised from."""
    seen: list[BaseException] = []
    while error not in seen and len(seen) < _DEEPEST:
        seen.append(error)
        yield error
        if error.__cause__ is None:
            return
        error = error.__cause__


def _is_ours(crash: Crash) -> bool:
    try:
        return is_about_tensors(crash)
    except Exception:  # noqa: BLE001  (such as one whose text cannot be had)
        return False


class explaining:  # noqa: N801  (a context manager, used like a function)
    """Attach the explanation to a shape error that leaves the block; the error goes on as it is.

    The report becomes a note of the exception (PEP 678), which tracebacks print below its message; on a terminal it is
    shown as a panel.

    Args:
        model: see `explain`.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.model = model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, Exception):
            attach(error, self.model)


def attach(error: BaseException, model: nn.Module | None = None) -> ShapeReport | None:
    """Explain an error and note the explanation on it; a failure to explain is noted, and never raised.

    Returns:
        The report, None if there is none.
    """
    noted = hasattr(error, _ATTRIBUTE)
    try:
        report = explain(error, model)
        if report is not None and not noted:
            error.add_note(f"\n{report}")
            install(error, report)
    except Exception as failure:  # noqa: BLE001  (the user's error must come through whatever happens here)
        error.add_note(f"tensorscope could not explain this: {type(failure).__name__}: {failure}")
        return None
    return report


def _report(crash: Crash, model: nn.Module | None) -> ShapeReport:
    try:
        found = _from_replay(crash, model)
    except Exception as failure:  # noqa: BLE001  (what the frames tell is still better than nothing)
        note = f"the analysis ended early: {type(failure).__name__}: {failure}"
        return replace(from_frames(crash, model), notes=(note,))
    return found or from_frames(crash, model)


def _from_replay(crash: Crash, model: nn.Module | None) -> ShapeReport | None:
    """Run what failed again, and tell what that showed; None if nothing could be made to fail the same way."""
    if _has_peers() or of_checkpoint(crash) or isinstance(crash.error, ShapeError):
        return None
    outer = crash.user.place if crash.user is not None else None
    for program in programs(crash):
        for real in (True,) if is_small(program) else (False, True):
            seen = _seen(program, real=real)
            if seen is not None and seen.failure is not None and _agree(crash, program, seen.failure, same_words=real):
                return account(crash, Scene(program, seen, seen.failure, outer), model, real=real)
    return None


def _seen(program: Program, *, real: bool) -> Replay | None:
    try:
        return replay(program, real=real)
    except Exception:  # noqa: BLE001  (tensors of which no copy can be made, such as those inside of a vmap)
        return None


def _agree(crash: Crash, program: Program, failure: Failure, *, same_words: bool) -> bool:
    """Whether a replay failed as the program did: in the same module, on the same line, with the same error."""
    if crash.is_compiled:
        return failure.place is not None and failure.place.text in str(crash.error)
    kinds = type(crash.error), type(failure.error)
    alike = issubclass(kinds[1], kinds[0]) or {*kinds} <= {RuntimeError, ValueError, IndexError, AssertionError}
    if same_words and str(crash.error) != str(failure.error):
        return False  # the same line again, in another state
    return alike and crash.module is failure.crash.module and _same_line(crash, program, failure)


def _same_line(crash: Crash, program: Program, failure: Failure) -> bool:
    # A module's call does not show the line that the call stands on.
    start = crash.entry.level if crash.entry is not None and program.scope == "program" else 0
    inside = crash.scene is not None and crash.levels.index(crash.scene) >= start
    if failure.place is None or crash.scene is None or not inside:
        return failure.place is None and not inside
    place = crash.scene.place
    return (place.file, place.line) == (failure.place.file, failure.place.line)


def _has_peers() -> bool:
    """Whether other processes would have to take part in a replay."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
