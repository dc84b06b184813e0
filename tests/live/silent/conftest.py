"""What every test here starts from."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    """Losses are not watched in a process that compiles, and another test may have compiled."""
    torch._dynamo.reset()
