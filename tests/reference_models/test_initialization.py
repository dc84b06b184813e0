"""Initial weights: torch's own ranges, and variance kept."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import assert_close
from torch import nn

from reference_models.cnn import Conv2d
from reference_models.initialization import fan_in_out, kaiming_uniform, uniform
from reference_models.mlp import Linear


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: Linear(20, 30), lambda: nn.Linear(20, 30)),
        (lambda: Conv2d(4, 6, 3), lambda: nn.Conv2d(4, 6, 3)),
        (lambda: Conv2d(4, 6, 5, groups=2), lambda: nn.Conv2d(4, 6, 5, groups=2)),
    ],
)
def test_a_seed_gives_the_weights_that_torch_starts_from(ours, theirs):
    torch.manual_seed(3)
    mine = ours()
    torch.manual_seed(3)
    torchs = theirs()
    assert_close(mine.weight.detach(), torchs.weight.detach())
    assert_close(mine.bias.detach(), torchs.bias.detach())


def test_fans_are_counted_over_the_axes_after_the_first():
    assert fan_in_out((64, 32, 3, 3)) == (288, 576)
    assert fan_in_out((10, 128)) == (128, 10)
    with pytest.raises(ValueError, match="has no fan"):
        fan_in_out((3,))


def test_ten_rectified_layers_keep_the_variance():
    x = start = torch.randn(256, 400)
    for _ in range(10):
        x = (x @ kaiming_uniform(400, 400, a=0).T).clamp(min=0)
    assert 0.3 <= float(x.square().mean() / start.square().mean()) <= 3


def test_weights_fill_their_range():
    weight = kaiming_uniform(500, 100)
    assert 0.099 < float(weight.abs().max()) <= 1 / math.sqrt(100)


def test_a_generator_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    weights = [kaiming_uniform(3, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert uniform(2, 3, bound=0.0).abs().sum() == 0
