"""Correct programs are left alone, whatever sizes they happen to share."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import silent_findings
from sound_layers import LAYERS
from sound_models import SOUND
from sound_splits import SPLITS
from sound_trainings import TRAININGS

from tensorscope.live.capture import watched

FORWARDS = SOUND | LAYERS | SPLITS


@pytest.mark.parametrize("name", FORWARDS)
def test_a_correct_forward_is_left_alone(name: str) -> None:
    program = FORWARDS[name]()
    watch = watched(program.model, program.args, {})
    assert watch is not None
    assert watch.error is None
    assert watch.end() == []


@pytest.mark.parametrize("name", TRAININGS)
def test_a_correct_training_is_left_alone(name: str, tmp_path: Path) -> None:
    assert silent_findings(TRAININGS[name](), tmp_path) == []
