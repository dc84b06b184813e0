"""Small programs as users write them, each with one shape mistake, and what a report about it has to say."""

from __future__ import annotations

import importlib
from pathlib import Path

from shape_programs.record import REGISTRY, Case

for _family in sorted(Path(__file__).parent.glob("programs_*.py")):
    importlib.import_module(f"shape_programs.{_family.stem}")

CORPUS: tuple[Case, ...] = tuple(case for case in REGISTRY.values() if not case.unrelated)
UNRELATED: tuple[Case, ...] = tuple(case for case in REGISTRY.values() if case.unrelated)
