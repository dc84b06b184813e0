"""Chapter 22: images, from files to (channels, height, width).

Glossary
    netpbm     a picture as a few words of text (P5 grey or P6 colour, width, height, largest value) and its pixels
    idx        MNIST's format: a magic number that tells dtype and axes, the sizes, then all numbers, largest byte first
    lazy       read when it is asked for, so that a dataset may be larger than memory

Source: chapter 22 of the book; Poskanzer, netpbm(5); LeCun, Cortes and Burges, The MNIST database (1998).

Differs from the book: a file holds the three colours of one pixel after another, (height, width, channels), and so they
are moved; the book only calls them (channels, height, width), which scrambles the image (erratum E-35).
Does not handle: JPEG, the text forms of netpbm, animations. What a PNG says of transparency is dropped.
"""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from reference_models.data import Samples
from reference_models.transforms import channels_first

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Magic, width, height, largest value, with comments from # to the end of a line, and then one white space.
_NETPBM = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d+)" + rb"(?:#[^\n]*\n|\s)")
# Third byte of idx's magic number → how numbers are stored.
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_image(path: str | Path) -> Tensor:
    """Read a .pgm, .ppm, .png or .npy file.

    Args:
        path: of the file; its ending says what it is. An .npy file holds (height, width) or (height, width, channels).

    Returns:
        (channels, height, width) float32 tensor; whole numbers of files are divided by their largest, hence in [0, 1].

    Raises:
        ValueError: it is no such file.
    """
    path = Path(path)
    readers = {".pgm": _read_netpbm, ".ppm": _read_netpbm, ".png": _read_png, ".npy": _read_npy}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected an ending among {', '.join(readers)}, got {path.suffix!r}")
    pixels = readers[path.suffix.lower()](path)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise ValueError(f"{path}: expected (height, width) or (height, width, channels), got {pixels.shape}")
    return channels_first(torch.tensor(pixels, dtype=torch.float32)).contiguous()


def _read_netpbm(path: Path) -> np.ndarray:
    data = path.read_bytes()
    header = _NETPBM.match(data)
    if header is None:
        raise ValueError(
            f"{path}: expected a header of P5 or P6 with width, height and largest value, got {data[:20]!r}"
        )
    kind, width, height, largest = map(int, header.groups())
    if not 0 < largest < 65536:
        raise ValueError(f"{path}: expected a largest value from 1 to 65535, got {largest}")
    dtype = np.dtype("u1" if largest < 256 else ">u2")
    shape = (height, width, 3) if kind == 6 else (height, width)
    _require_bytes(path, len(data) - header.end(), math.prod(shape) * dtype.itemsize)
    return np.frombuffer(data, dtype, offset=header.end()).reshape(shape) / largest


def _read_png(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    try:
        pixels = np.asarray(imread(path))
    except (OSError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: expected a PNG image, got {error}") from error
    # Grey with transparency has two channels, colour with transparency four.
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def _read_npy(path: Path) -> np.ndarray:
    try:
        pixels: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected an array of numbers, got {error}") from error
    if pixels.dtype.kind == "u":
        return pixels / np.iinfo(pixels.dtype).max
    if pixels.dtype.kind != "f":
        raise ValueError(f"{path}: expected unsigned integers or floats, got {pixels.dtype}")
    return pixels


def _require_bytes(path: Path, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(f"{path}: expected {expected} bytes after the header, got {got}")


def read_idx(path: str | Path) -> Tensor:
    """Read an idx file, such as MNIST's.

    Args:
        path: of the file; one that ends in .gz is unpacked.

    Returns:
        Tensor with the axes and the dtype that the file says.

    Raises:
        ValueError: the file is not what its first bytes say.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}: expected packed bytes, got {error}") from error
    # magic = 0, 0, dtype, number of axes: 2051 = 0x0803 is images, 2049 = 0x0801 labels
    magic = int.from_bytes(data[:4], "big")
    dtype, axes = _IDX_DTYPES.get(magic >> 8), magic & 0xFF
    if len(data) < 4 or dtype is None:
        raise ValueError(f"{path}: expected an idx magic number such as 2051 or 2049, got {magic}")
    start = 4 + 4 * axes
    if len(data) < start:
        raise ValueError(f"{path}: expected {axes} sizes of 4 bytes, got {len(data) - 4} bytes")
    shape = tuple(map(int, np.frombuffer(data, ">u4", axes, offset=4)))
    _require_bytes(path, len(data) - start, math.prod(shape) * np.dtype(dtype).itemsize)
    numbers = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("=")))


def read_mnist(images: str | Path, labels: str | Path) -> Samples:
    """Read scans and what they show.

    Args:
        images: path of an idx file of bytes (sample, height, width), magic number 2051.
        labels: path of an idx file of bytes (sample), magic number 2049.

    Returns:
        (sample, 1, height, width) float32 inputs in [0, 1] and int64 labels.

    Raises:
        ValueError: the files are of another kind, or do not hold the same number.
    """
    scans, shown = read_idx(images), read_idx(labels)
    for path, numbers, axes in ((images, scans, 3), (labels, shown, 1)):
        if numbers.ndim != axes or numbers.dtype is not torch.uint8:
            kind = f"{str(numbers.dtype).removeprefix('torch.')} of {numbers.ndim} axes"
            raise ValueError(f"{path}: expected bytes of {axes} axes (magic number {2048 + axes}), got {kind}")
    if len(scans) != len(shown):
        raise ValueError(f"{labels}: expected {len(scans)} labels, one per image, got {len(shown)}")
    return Samples(scans.unsqueeze(1).float() / 255, shown.long())


class ImageDataset:
    """Images that are read when they are asked for.

    Args:
        paths: files, as `read_image` takes them.
        labels: class of each.
        transform: of each image after it was read, such as a random crop.

    Raises:
        ValueError: there are not as many labels as paths.
    """

    def __init__(
        self, paths: Sequence[str | Path], labels: Sequence[int], transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if len(paths) != len(labels):
            raise ValueError(f"expected a label per path, got {len(labels)} for {len(paths)}")
        self.paths, self.labels, self.transform = paths, labels, transform
        self.classes: tuple[str, ...] = ()

    @classmethod
    def of_folder(cls, folder: str | Path, transform: Callable[[Tensor], Tensor] | None = None) -> Self:
        """Take each subfolder as a class, in alphabetical order, and its images as samples.

        Args:
            folder: of subfolders.
            transform: of each image after it was read.

        Raises:
            ValueError: it has no subfolder.
        """
        folders = sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
        if not folders:
            raise ValueError(f"{folder}: expected a subfolder per class, got none")
        found = [
            (path, label)
            for label, folder_ in enumerate(folders)
            for path in sorted(folder_.iterdir())
            if path.suffix.lower() in {".pgm", ".ppm", ".png", ".npy"}
        ]
        dataset = cls([path for path, _ in found], [label for _, label in found], transform)
        dataset.classes = tuple(path.name for path in folders)
        return dataset

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = read_image(self.paths[row])
        return (self.transform(image) if self.transform else image), self.labels[row]
