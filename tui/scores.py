"""What the reference models reached when they were trained last on this machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from platformdirs import user_state_path

if TYPE_CHECKING:
    from pathlib import Path

    from reference_models.training import Result

Scores = dict[str, dict[str, dict[str, float]]]  # preset → seed → score → value


def scores_file() -> Path:
    """Where they are kept."""
    return user_state_path("tensorscope") / "scores.json"


def known_scores() -> Scores:
    """All that is known; nothing if the file is not there or was spoiled."""
    try:
        found = json.loads(scores_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(result: Result) -> None:
    """Keep what a training reached; without a word where that cannot be written, since it is but a comfort."""
    scores, file = known_scores(), scores_file()
    scores.setdefault(result.name, {})[str(result.seed)] = result.scores
    part = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(scores, indent=1))
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
