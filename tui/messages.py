"""What the parts of the viewer tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from pathlib import Path

    from tensorscope.events import Site
    from tui.folder import Entry
    from tui.snapshot import Snapshot


@dataclass
class Arrived(Message):
    """A snapshot has been read."""

    snapshot: Snapshot


@dataclass
class Failed(Message):
    """A run could not be read: what is wrong, and what can be done."""

    title: str
    detail: str


@dataclass
class Listed(Message):
    """The runs below a folder have been listed."""

    entries: tuple[Entry, ...]


@dataclass
class RunChosen(Message):
    """The user wants to see a run."""

    path: Path


@dataclass
class SiteChosen(Message):
    """The user wants to see a site."""

    site: Site


@dataclass
class StepPointed(Message):
    """The user points at a step of a chart; None when no longer."""

    step: int | None


@dataclass
class PlaceChosen(Message):
    """The user wants to see a module or parameter in the tree."""

    place: str


@dataclass
class QuestionChanged(Message):
    """A view wants to know something else than before."""
