"""Memory held by the process; what accelerators hold is only asked of those that are awake."""

from __future__ import annotations

import mmap
import os
import resource

import pytest
import torch

from tensorscope.live import memory as home
from tensorscope.live.memory import memory


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux only")
def test_what_is_taken_and_given_back_is_seen() -> None:
    size = 64 * 2**20
    before = memory([])["memory"]
    taken = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        taken[page] = 1
    held = memory([])["memory"]
    taken.close()
    after = memory([])["memory"]
    assert 0.9 * size < held - before < 1.5 * size
    assert after < held - 0.9 * size


def test_where_the_system_does_not_tell_the_highest_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(home.os, "open", nothing)
    found = memory(["cpu"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * home._PEAK_UNIT
    assert found.keys() == {"memory_peak"}
    assert 0.5 * peak < found["memory_peak"] <= peak


@pytest.mark.parametrize("device", ["cpu", "meta", "cuda", "cuda:0", "xpu", torch.device("cpu")], ids=str)
def test_a_device_that_is_asleep_or_none_says_nothing_and_is_not_woken(device: str | torch.device) -> None:
    assert memory([device]).keys() == memory([]).keys()
    assert not torch.cuda.is_initialized()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_an_accelerator_says_what_torch_has_allocated() -> None:
    held = torch.zeros(2**20, device="cuda:0")
    found = memory(["cuda:0"])
    assert found["memory:cuda:0"] == torch.cuda.memory_allocated(0) >= held.nbytes
    assert found["memory_peak:cuda:0"] == torch.cuda.max_memory_allocated(0)
