"""Watches the first step of a training for shape mistakes, from the forward to the optimizer."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tensorscope.live.transcript import Aftermath

if TYPE_CHECKING:
    from tensorscope.live.silent.watch import Watch
    from tensorscope.run.writer import Writer


class FirstStep:
    """Keeps a watch going after the forward, and writes down what it found.

    Args:
        writer: takes the findings.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._watch: Watch | None = None
        self._mode: Aftermath | None = None
        self._step = 0

    def forward_ended(self, watch: Watch | None, step: int) -> None:
        """Go on with the loss, if nobody else looks at functions; else what the forward showed is all."""
        self.end()
        if watch is None:
            return
        self._watch, self._step = watch, step
        mode = Aftermath(watch)
        if watch.error is None and mode.begin():
            self._mode = mode
        else:
            self.end()

    def end(self) -> None:
        """The step is over; harmless if nothing is being watched."""
        mode, self._mode = self._mode, None
        if mode is not None:
            mode.end()
        watch, self._watch = self._watch, None
        if watch is None:
            return
        with watch.safely():
            found = [replace(finding, first_step=self._step, last_step=self._step) for finding in watch.end()]
            if found:
                self._writer.document("silent", json.dumps([asdict(finding) for finding in found]))
        if watch.error is not None:
            error = f"{type(watch.error).__name__}: {watch.error}"
            self._writer.note(self._step, f"shapes were not watched to the end: {error}")
