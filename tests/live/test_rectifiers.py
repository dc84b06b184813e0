"""Dead units, counted by the kernel and by torch, against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tensorscope.events import Site
from tensorscope.live import rectifiers
from tensorscope.live.kernel import KERNEL
from tensorscope.live.rectifiers import QUIET_PASSES, QUIET_SAMPLES, Rectifiers

SITE = Site("relu")
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
}


@pytest.fixture(params=["kernel", "torch"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(rectifiers, "KERNEL", None)
    elif KERNEL is None:
        pytest.skip("no kernel was compiled")


def expected(outputs: list[torch.Tensor]) -> float:
    """Share of units that were silent for the last passes, looked at all at once."""
    axis = 1 if outputs[0].dim() > 3 else outputs[0].dim() - 1
    silent = []
    for output in outputs:
        by_unit = np.moveaxis(output.double().numpy(), axis, 0).reshape(output.shape[axis], -1)
        silent.append(~(by_unit > 0).any(1))
    passes = np.cumprod(silent[::-1], 0).sum(0)
    samples = [sum(len(output) for output in outputs[len(outputs) - p :]) for p in passes]
    return float(np.mean((passes >= QUIET_PASSES) & (np.array(samples) >= QUIET_SAMPLES)))


@pytest.mark.usefixtures("_way")
@given(
    shape=st.sampled_from([(7, 3), (501, 1), (1, 40), (60, 4, 5), (51, 3, 2, 3), (3, 1, 1, 7), (50, 3, 1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    passes=st.integers(1, QUIET_PASSES + 4),
    liveliness=st.floats(0, 0.2),
    seed=st.integers(0, 99),
)
def test_dead_units_are_those_that_numpy_finds_silent(
    shape: tuple[int, ...], dtype: torch.dtype, layout: str, passes: int, liveliness: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    seen, outputs = Rectifiers(), []
    for _ in range(passes):
        fires = torch.rand(shape, generator=generator) < liveliness / math.prod(shape) * shape[-1]
        outputs.append(LAYOUTS[layout](fires.to(dtype)))
        found = seen.dead_fraction(SITE, nn.ReLU(), outputs[-1])
        assert found == pytest.approx(expected(outputs), abs=1e-6)


@pytest.mark.usefixtures("_way")
def test_one_sign_of_life_starts_the_count_anew() -> None:
    seen, silent = Rectifiers(), torch.zeros(QUIET_SAMPLES, 4)
    alive = silent.clone()
    alive[-1, 2] = 1e-30
    shares = [seen.dead_fraction(SITE, nn.ReLU(), silent) for _ in range(QUIET_PASSES)]
    assert shares == [0.0] * (QUIET_PASSES - 1) + [1.0]
    assert seen.dead_fraction(SITE, nn.ReLU(), alive) == 0.75
    assert [seen.dead_fraction(SITE, nn.ReLU(), silent) for _ in range(QUIET_PASSES)][-2:] == [0.75, 1.0]


@pytest.mark.usefixtures("_way")
def test_small_batches_take_more_passes() -> None:
    seen, batch = Rectifiers(), torch.zeros(10, 2)
    shares = [seen.dead_fraction(SITE, nn.ReLU(), batch) for _ in range(60)]
    assert shares.index(1.0) == QUIET_SAMPLES // 10 - 1


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("number", [math.nan, -math.inf, -1.0])
def test_what_is_not_above_zero_is_no_sign_of_life(number: float) -> None:
    seen = Rectifiers()
    for _ in range(QUIET_PASSES):
        share = seen.dead_fraction(SITE, nn.ReLU(), torch.full((QUIET_SAMPLES, 3), number))
    assert share == 1.0


@pytest.mark.usefixtures("_way")
def test_a_unit_beside_nan_is_alive() -> None:
    seen, output = Rectifiers(), torch.tensor([[math.nan, 0.0], [1.0, 0.0]]).repeat(QUIET_SAMPLES, 1)
    for _ in range(QUIET_PASSES):
        share = seen.dead_fraction(SITE, nn.ReLU(), output)
    assert share == 0.5


@pytest.mark.usefixtures("_way")
def test_another_number_of_units_begins_anew() -> None:
    seen = Rectifiers()
    for _ in range(QUIET_PASSES):
        seen.dead_fraction(SITE, nn.ReLU(), torch.zeros(QUIET_SAMPLES, 3))
    assert seen.dead_fraction(SITE, nn.ReLU(), torch.zeros(QUIET_SAMPLES, 5)) == 0.0


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(
    "output", [torch.zeros(3), torch.zeros(0, 3), torch.zeros(()), torch.zeros(2, 3, device="meta")]
)
def test_what_has_no_units_has_no_dead_ones(output: torch.Tensor) -> None:
    assert Rectifiers().dead_fraction(SITE, nn.ReLU(), output) is None


def test_other_modules_have_no_dead_units() -> None:
    assert Rectifiers().dead_fraction(SITE, nn.GELU(), torch.zeros(500, 3)) is None
