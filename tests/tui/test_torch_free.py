"""The viewer opens without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_after(code: str) -> set[str]:
    run = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())


def test_the_viewer_loads_no_torch() -> None:
    loaded = modules_after("import tui.app, tui.screens.site, tui.screens.help, tui.search")
    assert "tui.app" in loaded
    assert "torch" not in loaded
    assert "matplotlib" not in loaded


@pytest.mark.slow
def test_it_would_be_noticed_if_it_did() -> None:
    assert "torch" in modules_after("import tui.app, torch")
