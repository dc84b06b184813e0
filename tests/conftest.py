"""What every test starts from: one seed, one thread, one Hypothesis profile."""

from __future__ import annotations

import gc
import os
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

CI = "CI" in os.environ
# The same examples every time on CI, so that a red build is the change's fault; a slow machine is not a failure.
settings.register_profile(
    "fast", max_examples=25, deadline=None, derandomize=CI, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("fast"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# Tests run side by side on few cores, where more threads per test only wait for each other.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is there by now stays: whoever looks at all objects, as each trace does for optimizers, need not see it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0
