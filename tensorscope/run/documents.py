"""The texts that a run holds: its graph, what was found, what was explained."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from tensorscope.events import Finding, Severity
from tensorscope.reports import ShapeReport
from tensorscope.run.damage import damage_is_said
from tensorscope.run.origin import Origin

if TYPE_CHECKING:
    from tensorscope.graphs.graph import Graph
    from tensorscope.run.columns import Span


@damage_is_said
class Documents(ABC):
    """A run's documents, read from their texts."""

    @abstractmethod
    def _document(self, key: str) -> str | None:
        """The text that was recorded under a key."""

    @abstractmethod
    def _of_parts(self, key: str) -> list[tuple[Span, str]]:
        """The text under a key of each part that has one, with the steps for which it counts; the oldest first."""

    @property
    def graph(self) -> Graph | None:
        """The computation, if it was captured."""
        from tensorscope.graphs.graph import Graph

        text = self._document("graph")
        return None if text is None else Graph.from_json(text)

    @property
    def findings(self) -> list[Finding]:
        """What the rules found while the run was recorded, the cause first."""
        return [_finding(info) for info in self._list("findings")]

    @property
    def silent(self) -> list[Finding]:
        """Shape mistakes that raised nothing, found while the first step was recorded."""
        return [_finding(info) for info in self._list("silent")]

    @property
    def reports(self) -> list[ShapeReport]:
        """The shape errors that the run met, explained."""
        return [ShapeReport.from_json(report) for report in self._list("reports")]

    @property
    def handed_nonfinite(self) -> list[dict[str, Any]]:
        """Modules whose arguments held non-finite values when their output first did: `path` and `step` of each."""
        return self._list("handed_nonfinite")

    @property
    def origin(self) -> Origin | None:
        """What running the first bad pass again has shown; None if nothing was bad."""
        found = ((span, Origin.from_json(text)) for span, text in self._of_parts("origin"))
        return next((origin for span, origin in found if _within(origin.step, span)), None)

    @property
    def modes(self) -> list[dict[str, Any]]:
        """Each change of training modes and frozen parameters: `step`, `training`, `toggled`, `frozen`."""
        return [
            seen for span, text in self._of_parts("modes") for seen in json.loads(text) if _within(seen["step"], span)
        ]

    @property
    def optimizers(self) -> list[dict[str, Any]]:
        """How each optimizer was set when it was first seen: `type`, and of its `groups` `settings`, `parameters`."""
        return self._list("optimizers")

    def _list(self, key: str) -> list[Any]:
        text = self._document(key)
        return [] if text is None else list(json.loads(text))


def _within(step: int, span: Span) -> bool:
    return span[0] <= step <= span[1]


def _finding(info: dict[str, Any]) -> Finding:
    cause = info.pop("caused_by", None)
    severity = Severity(info.pop("severity"))
    return Finding(**info, severity=severity, caused_by=_finding(cause) if cause else None)
