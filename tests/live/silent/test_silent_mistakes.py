"""Every silent mistake is found where it is made, and its repaired twin is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import silent_findings
from sick_layouts import LAYOUTS
from sick_masks import MASKS
from sick_programs import VALUES

SICK = VALUES | LAYOUTS | MASKS


@pytest.mark.parametrize("name", SICK)
def test_a_silent_mistake_is_found_where_it_is(name: str, tmp_path: Path) -> None:
    rule, site, build = SICK[name]
    found = silent_findings(build(False), tmp_path)
    assert [(finding.rule, finding.site) for finding in found] == [(rule, site)], found


@pytest.mark.parametrize("name", SICK)
def test_its_repaired_twin_is_left_alone(name: str, tmp_path: Path) -> None:
    assert silent_findings(SICK[name][2](True), tmp_path) == []
