"""Where snapshots come from: one run file, opened, read again when it moved, and opened anew when it was replaced."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from tensorscope.errors import RunError
from tensorscope.run.reader import Run
from tui.head import Head, head_of
from tui.snapshot import Question, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tensorscope.events import Site

BUSY_SHARE = 0.1  # reading may take this share of the time
HEAD_SECONDS = 1.0  # how often to look whether a silent run has died
RATE_SECONDS = 10.0  # over how long steps per second are averaged


class Source:
    """Reads one run for whoever shows it; only ever used by one worker at a time.

    Args:
        path: the run's folder or file; it need not exist yet.
        clock: seconds that never go back.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._run: Run | None = None
        self._files: dict[str, tuple[int, int]] = {}
        self._asked: Question | None = None
        self._head: Head | None = None
        self._seen: deque[tuple[float, int]] = deque()
        self._version = -1
        self._due = self._head_due = 0.0

    def read(self, question: Question) -> Snapshot | None:
        """The answer to a question, or None if it would be the same as the last one.

        Raises:
            RunError: the run is not there, or cannot be read.
        """
        replaced = self._open()
        assert self._run is not None
        version, now = self._run.version, self._clock()
        due = question != self._asked or (version != self._version and now >= self._due)
        if not due and now < self._head_due:
            return None
        head = head_of(self._run, self._rate(self._run.last_step, now))
        self._head_due = now + HEAD_SECONDS
        ended = self._head is not None and head.status != self._head.status
        changed, self._head = head != self._head, head
        if not due and not ended:
            return Snapshot(head, question) if changed else None
        answer = question.answer(self._run)
        measured = tuple(self._run.measured_steps)
        self._asked, self._version = question, version
        done = self._clock()
        self._due = done + max(question.pace, (done - now) / BUSY_SHARE)
        return Snapshot(head, question, answer, measured, replaced)

    def sites(self) -> list[Site]:
        """Every site of the run; none before the first reading."""
        run = self._run
        return run.sites if run is not None else []

    def close(self) -> None:
        """Release the file."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def _open(self) -> bool:
        """Make sure that the files at the path are those being read; true if others took their place."""
        files = self._look()
        known, self._files = self._files, files
        # Further ranks and parts join a run; one that has taken its name shares no file with it.
        if self._run is not None and (not known or any(files.get(name) == its for name, its in known.items())):
            return False
        self.close()
        self._forget()
        self._run = Run(self.path)
        return bool(known)

    def _look(self) -> dict[str, tuple[int, int]]:
        """The files there; they tell a run from one that has taken its name, for the old one stays readable."""
        found = {}
        for path in sorted(self.path.glob("rank*.sqlite")) or [self.path]:
            try:
                facts = path.stat()
            except OSError:
                continue
            found[path.name] = facts.st_dev, facts.st_ino
        if not found and self._files:
            self.close()
            raise RunError(
                f"the run `{self.path}` was deleted",
                hint="the viewer goes on as soon as a run is written there again",
            )
        return found

    def _forget(self) -> None:
        self._asked = self._head = None
        self._seen.clear()
        self._version = -1
        self._due = self._head_due = 0.0

    def _rate(self, step: int, now: float) -> float | None:
        if not self._seen or step > self._seen[-1][1]:
            self._seen.append((now, step))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        (began, first), (_, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - began) if last > first and now > began else None
