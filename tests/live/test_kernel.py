"""The compiled kernel: its widths agree, it reads its tensor alone and writes nothing there; and how it is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measuring import EXACT, LIBRARY, QUICK, WIDTHS, arrays, assert_rows_agree, kernel_of, oracle

from tensorscope.live import kernel
from tensorscope.live.kernel import BAD, COUNT, HIGH, KINDS, LOW, WIDTH, ZEROS, Kernel
from tensorscope.live.stats import Row

ROOT = Path(__file__).parents[2]
every_width = pytest.mark.parametrize("width", WIDTHS)


def row_of(x: torch.Tensor, width: str, *, exact: bool) -> Row:
    alone, row = np.empty(WIDTH), np.full(WIDTH, np.nan)
    run = kernel_of(width).measure
    run(x.data_ptr(), x.numel(), KINDS[x.dtype], exact, alone.ctypes.data, row.ctypes.data)
    np.testing.assert_array_equal(alone, row)
    return row


@pytest.mark.parametrize("exact", [True, False])
@given(data=st.data())
def test_every_width_of_vectors_finds_the_same(exact: bool, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from((*QUICK, *EXACT)))))
    rows = [row_of(x, width, exact=exact) for width in WIDTHS]
    for row in rows:
        assert_rows_agree(row, oracle(x), quick=not exact and x.dtype in QUICK)
        counted = [COUNT, ZEROS, BAD, LOW, HIGH]
        np.testing.assert_array_equal(row[counted], rows[0][counted])


@every_width
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_element_is_found_at_every_place(width: str, bad: float) -> None:
    for size in (1, 33, 70, 130):
        for place in range(size):
            x = torch.full((size,), 3.0)
            x[place] = bad
            for dtype in QUICK:
                row = row_of(x.to(dtype), width, exact=False)
                assert row[[COUNT, BAD, ZEROS]].tolist() == [size, 1, 0]
            assert _first_bad(width, [torch.ones(size), x, x]) == 1


def _first_bad(width: str, tensors: list[torch.Tensor]) -> int:
    addresses = np.array([x.data_ptr() for x in tensors], np.uint64)
    sizes = np.array([x.numel() for x in tensors], np.int64)
    return kernel_of(width).first_bad(addresses.ctypes.data, sizes.ctypes.data, len(tensors))


@every_width
@given(st.lists(arrays(torch.float32), max_size=4))
def test_the_first_bad_array_is_the_first_that_numpy_finds(width: str, tensors: list[torch.Tensor]) -> None:
    bad = [not np.isfinite(x.numpy()).all() for x in tensors]
    assert _first_bad(width, tensors) == (bad.index(True) if any(bad) else -1)


@given(arrays(torch.float32), st.integers(1, 70))
def test_a_sample_is_every_so_manieth_element(x: torch.Tensor, stride: int) -> None:
    for dtype in (*QUICK, torch.float64):
        y = x.to(dtype)
        few = np.full(-(-len(y) // stride) + 1, -7.0)
        kernel_of("plain").sample(y.data_ptr(), len(y), stride, KINDS[dtype], few.ctypes.data)
        np.testing.assert_array_equal(few[:-1], y[::stride].double().numpy())
        assert few[-1] == -7


# Every tensor lies at the end of a page (or at the beginning of one) whose neighbours may not be touched at all, and in
# memory that may not be written to.
GUARDED = """
import ctypes, mmap, sys
import numpy as np
import torch
from tensorscope.live.kernel import KINDS, Kernel
from pathlib import Path

libc, page = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
pages = 8
memory = mmap.mmap(-1, (pages + 2) * page)
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))

def protect(first, count, how):
    if libc.mprotect(ctypes.c_void_p(base + first * page), ctypes.c_size_t(count * page), how):
        sys.exit("mprotect failed")

run = Kernel(Path(sys.argv[1]))
run.limit(int(sys.argv[2]))
alone, row, few = np.zeros(8), np.full(8, np.nan), np.zeros(pages * page)
protect(0, 1, 0)
protect(pages + 1, 1, 0)
inside = np.frombuffer(memory, np.uint8)[page : (pages + 1) * page]
sizes = [*range(1, 140), 2047, 2048, 2049, 2111, 4095, 4096, 4097]
for dtype, kind in KINDS.items():
    wide = dtype.itemsize
    protect(1, pages, mmap.PROT_READ | mmap.PROT_WRITE)
    inside[:] = np.random.default_rng(0).integers(0, 2, len(inside))
    protect(1, pages, mmap.PROT_READ)
    for n in sizes:
        if n * wide > len(inside):
            continue
        for address in (base + page, base + (pages + 1) * page - n * wide):
            for exact in (0, 1):
                run.measure(address, n, kind, exact, alone.ctypes.data, row.ctypes.data)
                assert alone[0] == n
            run.sample(address, n, 3, kind, few.ctypes.data)
            run.change(address, n, 3, kind, few.ctypes.data, alone.ctypes.data, row.ctypes.data)
            assert alone[3] == alone[4] == 0 or alone[6]
            if dtype is torch.float32:
                there, size = np.array([address], np.uint64), np.array([n], np.int64)
                run.first_bad(there.ctypes.data, size.ctypes.data, 1)
print("untouched")
if sys.argv[3] == "over":
    run.measure(base + page, pages * page + 1, 8, 0, alone.ctypes.data, row.ctypes.data)
    print("nothing noticed")
"""


def _guarded(width: str, then: str) -> subprocess.CompletedProcess[str]:
    kernel_of(width)
    command = [sys.executable, "-c", GUARDED, str(LIBRARY), str(WIDTHS[width][0]), then]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages by libc's mprotect")
@pytest.mark.slow
@every_width
def test_nothing_outside_of_a_tensor_is_read_and_nothing_in_it_written(width: str) -> None:
    run = _guarded(width, "stop")
    assert (run.returncode, run.stdout) == (0, "untouched\n"), run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages by libc's mprotect")
@pytest.mark.slow
def test_one_element_too_many_would_be_noticed() -> None:
    run = _guarded("plain", "over")
    assert (run.returncode < 0, run.stdout) == (True, "untouched\n")


@every_width
def test_threads_do_not_disturb_each_other(width: str) -> None:
    tensors = [torch.randn(200_000) + place for place in range(4)]
    expected = [row_of(x, width, exact=False) for x in tensors]
    found: list[list[Row]] = [[] for _ in tensors]
    begin = threading.Barrier(len(tensors))

    def work(place: int) -> None:
        x, run = tensors[place], kernel_of(width).measure_large  # without the interpreter's lock
        begin.wait()
        for _ in range(30):
            alone, row = np.empty(WIDTH), np.full(WIDTH, np.nan)
            run(x.data_ptr(), x.numel(), KINDS[x.dtype], False, alone.ctypes.data, row.ctypes.data)
            found[place].append(row)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(tensors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows, row in zip(found, expected, strict=True):
        assert len(rows) == 30
        np.testing.assert_array_equal(np.stack(rows), np.stack([row] * 30))


# --- how it gets there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"no library", b"\x7fELF" + bytes(200)], ids=repr)
def test_a_library_that_cannot_be_loaded_is_none(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "_kernel.so").write_bytes(content)
    monkeypatch.setattr(kernel, "__file__", str(tmp_path / "kernel.py"))
    assert kernel._load() is None


@pytest.mark.slow
def test_a_library_of_another_version_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, other = tmp_path / "other.cpp", tmp_path / "_kernel.so"
    source.write_text('extern "C" void tensorscope_measure() {}')
    if shutil.which("c++") is None:
        pytest.skip("no compiler")
    subprocess.run(["c++", "-shared", "-fPIC", str(source), "-o", str(other)], check=True)
    monkeypatch.setattr(kernel, "__file__", str(tmp_path / "kernel.py"))
    assert kernel._load() is None


def test_the_library_offers_every_function() -> None:
    if not LIBRARY.exists():
        pytest.skip("no kernel was compiled")
    assert {*Kernel.__annotations__} == {*vars(Kernel(LIBRARY))} == {*kernel._SIGNATURES, "measure_large"}


WORKS = """
import sys, torch, tensorscope
from tensorscope.live.kernel import KERNEL
from tensorscope.live.moments import Moments
assert tensorscope.__file__.startswith(sys.argv[1]), tensorscope.__file__
seen = Moments()
seen.add(0, torch.tensor([1.0, 3.0, float("nan")]))
print(KERNEL is not None, seen.rows()()[0].tolist()[:7], tensorscope.measure(torch.ones(3)).mean)
"""


def _wheel(folder: Path, compiler: str | None) -> tuple[str, list[str], str]:
    """Build a wheel of a copy of the project: its name, what it holds, and what a program says that uses it."""
    pytest.importorskip("hatchling")
    copy = folder / "project"
    leave = shutil.ignore_patterns(".*", "_kernel.*", "__pycache__", "tests", "runs")
    shutil.copytree(ROOT, copy, ignore=leave)
    shutil.copy(LIBRARY.with_name("kernel.cpp"), copy / "tensorscope" / "live")
    environment = os.environ | ({"CXX": compiler} if compiler else {})
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    done = subprocess.run([*build, str(copy)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
        held = archive.namelist()
    installed = folder / "installed"
    run = [sys.executable, "-c", WORKS, str(installed)]
    paths = {"PYTHONPATH": str(installed)}
    said = subprocess.run(run, capture_output=True, text=True, env=os.environ | paths, cwd=folder, check=True)
    return wheel.name, held, said.stdout


@pytest.mark.slow
def test_a_wheel_holds_the_kernel(tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no compiler")
    name, held, said = _wheel(tmp_path, None)
    assert "tensorscope/live/_kernel.so" in held
    assert not name.endswith("none-any.whl")
    assert said == "True [3.0, 2.0, 2.0, 1.0, 3.0, 0.0, 1.0] 1.0\n"


@pytest.mark.slow
def test_without_a_compiler_a_wheel_is_pure_python_and_works(tmp_path: Path) -> None:
    name, held, said = _wheel(tmp_path, "/nonexistent")
    assert not [path for path in held if path.endswith(".so")]
    assert name.endswith("none-any.whl")
    assert said == "False [3.0, 2.0, 2.0, 1.0, 3.0, 0.0, 1.0] 1.0\n"
