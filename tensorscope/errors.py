"""Every error tensorscope raises: one first line that is enough, then facts, then one hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class TensorscopeError(Exception):
    """Base of all errors; keeps what it says as attributes.

    Args:
        title: what is wrong, with the values, names in backticks, no full stop.
        facts: label → value, printed aligned below the title.
        hint: one thing the reader can do.
    """

    def __init__(self, title: str, *, facts: Mapping[str, object] | None = None, hint: str | None = None) -> None:
        super().__init__(title)
        self.title = title
        self.facts = dict(facts or {})
        self.hint = hint

    def __str__(self) -> str:
        return message(self.title, self.facts, self.hint)


class ShapeError(TensorscopeError, ValueError):
    """A tensor's shape contradicts what was declared for it."""


class DimsError(TensorscopeError, ValueError):
    """A dims string such as `batch seq dim` cannot be read."""


class ModelError(TensorscopeError, TypeError):
    """What should be a model is not a `torch.nn.Module`, or cannot be traced."""


class RunError(TensorscopeError, OSError):
    """A run cannot be written or read: missing, not ours, newer than this version, or damaged."""


class GraphError(TensorscopeError, RuntimeError):
    """A graph cannot be captured or drawn."""


def message(title: str, facts: Mapping[str, object] | None = None, hint: str | None = None) -> str:
    """Lay out a title, aligned `label  value` facts and a hint, the way every message here looks."""
    lines = [title]
    width = max((len(label) for label in facts), default=0) + 2 if facts else 0
    for label, value in (facts or {}).items():
        first, *rest = str(value).splitlines() or [""]
        lines.append(f"  {label:<{width}}{first}".rstrip())
        lines += [f"  {'':<{width}}{line}".rstrip() for line in rest]
    if hint:
        lines += ["", f"hint: {hint}"]
    return "\n".join(lines)


def did_you_mean(name: str, known: Iterable[object]) -> str | None:
    """A hint that names the closest known names, if any is close."""
    from difflib import get_close_matches  # only ever needed once something is wrong

    close = get_close_matches(name, [str(k) for k in known], n=3)
    return f"did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else None
