"""Image files, against numpy, matplotlib and files written byte by byte."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.image import imsave

from reference_models.data import DataLoader
from reference_models.images import ImageDataset, read_idx, read_image, read_mnist

# Files of one test may be overwritten by its next example.
again = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25)
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def netpbm(pixels: np.ndarray, largest: int = 255, header: str = "P{} {} {} {}\n") -> bytes:
    kind = 6 if pixels.ndim == 3 else 5
    stored = pixels.astype(">u2" if largest > 255 else "u1")
    return header.format(kind, pixels.shape[1], pixels.shape[0], largest).encode() + stored.tobytes()


def idx(numbers: np.ndarray, code: int = 0x08) -> bytes:
    return struct.pack(f">I{numbers.ndim}I", code << 8 | numbers.ndim, *numbers.shape) + numbers.tobytes()


# 2 rows, 3 columns: nothing about it is symmetric.
COLOURED = np.arange(18).reshape(2, 3, 3)


@pytest.mark.parametrize("ending", ["ppm", "npy", "png"])
def test_each_colour_of_a_file_becomes_a_plane(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    if ending == "ppm":
        path.write_bytes(netpbm(COLOURED))
    elif ending == "npy":
        np.save(path, COLOURED.astype(np.uint8))
    else:
        imsave(path, COLOURED.astype(np.uint8))
    image = read_image(path)
    assert image.dtype is torch.float32
    assert (image * 255).round().int().tolist() == [
        [[0, 3, 6], [9, 12, 15]],
        [[1, 4, 7], [10, 13, 16]],
        [[2, 5, 8], [11, 14, 17]],
    ]


@again
@given(st.data(), st.integers(0, 4), st.integers(0, 4), st.booleans(), st.sampled_from([1, 7, 255, 256, 65535]))
def test_a_netpbm_file_is_read_as_it_was_written(tmp_path, data, height, width, coloured, largest):
    shape = (height, width, 3) if coloured else (height, width)
    pixels = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, largest)))
    path = tmp_path / "image.pgm"
    path.write_bytes(netpbm(pixels, largest))
    expected = torch.tensor(pixels if coloured else pixels[..., None]).permute(2, 0, 1) / largest
    torch.testing.assert_close(read_image(path), expected.float())


@pytest.mark.parametrize(
    "header",
    ["P{}\n{} {}\n{}\n", "P{} {}\t{}\r\n{} ", "P{}\n# made by hand\n{} {}\n# largest\n{}\n", "P{} # 3 4\n{} {} {}\n"],
    ids=["lines", "tabs", "comments", "comment with sizes"],
)
def test_a_netpbm_header_may_have_comments_and_any_white_space(tmp_path, header):
    path = tmp_path / "image.ppm"
    path.write_bytes(netpbm(COLOURED, header=header))
    assert read_image(path).shape == (3, 2, 3)


def test_pixels_that_look_like_white_space_or_comments_are_pixels(tmp_path):
    pixels = np.array([[10, 32, 35], [9, 13, 10]])
    path = tmp_path / "image.pgm"
    path.write_bytes(netpbm(pixels))
    assert (read_image(path) * 255).round().int().tolist() == [pixels.tolist()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a header of P5 or P6"),
        (b"P3 1 1 255\n0 0 0", "expected a header of P5 or P6"),
        (b"P5 1 x 255\n0", "expected a header of P5 or P6"),
        (b"P5 2 2 255\n123", "expected 4 bytes after the header, got 3"),
        (b"P5 2 2 255\n12345", "expected 4 bytes after the header, got 5"),
        (b"P6 1 1 70000\n123456", "expected a largest value from 1 to 65535, got 70000"),
        (b"P6 1 1 0\n123", "expected a largest value from 1 to 65535, got 0"),
    ],
    ids=["empty", "text form", "no number", "torn", "too long", "too deep", "no depth"],
)
def test_a_broken_netpbm_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "image.ppm"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"image.ppm: {message}"):
        read_image(path)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_array_is_read_in_its_own_numbers(tmp_path, channels):
    array = np.random.default_rng(0).normal(size=(4, 5, channels))
    np.save(tmp_path / "image.npy", array)
    image = read_image(tmp_path / "image.npy")
    assert np.allclose(image.numpy(), np.moveaxis(array, -1, 0), rtol=1e-6)


def test_a_grey_array_has_one_channel_and_16_bits_are_divided_by_theirs(tmp_path):
    np.save(tmp_path / "image.npy", np.array([[0, 65535]], dtype=np.uint16))
    assert read_image(tmp_path / "image.npy").tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"expected \(height, width\) or \(height, width, channels\), got \(3,\)"),
        (np.zeros((2, 2), dtype=np.int32), "expected unsigned integers or floats, got int32"),
        (np.array([[None]]), "expected an array of numbers"),
    ],
    ids=["one axis", "signed", "objects"],
)
def test_an_array_that_is_no_image_is_refused(tmp_path, array, message):
    np.save(tmp_path / "image.npy", array)
    with pytest.raises(ValueError, match=f"image.npy: {message}"):
        read_image(tmp_path / "image.npy")


@pytest.mark.parametrize("ending", ["png", "npy"])
@pytest.mark.parametrize("content", [b"", b"no image"], ids=["empty", "text"])
def test_what_only_claims_to_be_an_image_is_refused(tmp_path, ending, content):
    path = tmp_path / f"image.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"image.{ending}: expected"):
        read_image(path)


def test_a_missing_image_is_missing(tmp_path):
    for ending in ("png", "npy", "ppm"):
        with pytest.raises(FileNotFoundError):
            read_image(tmp_path / f"none.{ending}")


def test_an_ending_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected an ending among .pgm, .ppm, .png, .npy, got '.gif'"):
        read_image(tmp_path / "image.gif")


def test_transparency_is_dropped(tmp_path):
    imsave(tmp_path / "image.PNG", np.full((2, 3, 4), 51, dtype=np.uint8), format="png")
    image = read_image(tmp_path / "image.PNG")
    assert torch.allclose(image, torch.full((3, 2, 3), 0.2))


@again
@given(st.data(), st.sampled_from(list(IDX_CODES)), st.booleans())
def test_an_idx_file_is_read_as_it_was_written(tmp_path, data, kind, packed):
    array = data.draw(hnp.arrays(np.dtype(f">{kind}"), hnp.array_shapes(min_dims=0, min_side=0, max_dims=4)))
    content = idx(array, IDX_CODES[kind])
    path = tmp_path / ("numbers.gz" if packed else "numbers")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    read = read_idx(path)
    assert read.shape == array.shape
    assert np.array_equal(read.numpy(), array, equal_nan=kind[0] == "f")
    read.fill_(0)  # what is read belongs to whoever reads it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an idx magic number such as 2051 or 2049, got 0"),
        (b"\0\0\x08", "expected an idx magic number such as 2051 or 2049, got 8"),
        (b"\x01\x02\x08\x03" + bytes(12), "expected an idx magic number such as 2051 or 2049, got 16910339"),
        (b"\0\0\x0a\x01\0\0\0\0", "expected an idx magic number such as 2051 or 2049, got 2561"),
        (b"\0\0\x08\x03\0\0\0\1", "expected 3 sizes of 4 bytes, got 4 bytes"),
        (b"\0\0\x08\x01\0\0\0\3ab", "expected 3 bytes after the header, got 2"),
        (b"\0\0\x08\x01\0\0\0\1ab", "expected 1 bytes after the header, got 2"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "bytes after the header, got 0"),
    ],
    ids=["empty", "short", "no zeros", "no dtype", "no sizes", "torn", "too long", "absurd sizes"],
)
def test_a_broken_idx_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "numbers.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"numbers.idx: .*{message}"):
        read_idx(path)


@pytest.mark.parametrize("cut", [0, 5, -3])
def test_a_torn_packed_file_is_refused(tmp_path, cut):
    packed = gzip.compress(idx(np.zeros(30, dtype=np.uint8)))
    (tmp_path / "numbers.gz").write_bytes(packed[:cut] if cut else b"not packed")
    with pytest.raises(ValueError, match=r"numbers.gz: expected packed bytes"):
        read_idx(tmp_path / "numbers.gz")


@pytest.fixture
def mnist(tmp_path):
    scans = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "images").write_bytes(idx(scans))
    (tmp_path / "labels").write_bytes(idx(np.array([7, 2], dtype=np.uint8)))
    return tmp_path


def test_mnists_magic_numbers_are_2051_and_2049(mnist):
    assert int.from_bytes((mnist / "images").read_bytes()[:4], "big") == 2051
    assert int.from_bytes((mnist / "labels").read_bytes()[:4], "big") == 2049


def test_mnist_is_scans_between_zero_and_one_and_what_they_show(mnist):
    samples = read_mnist(mnist / "images", mnist / "labels")
    assert samples.inputs.shape == (2, 1, 3, 4)
    assert torch.equal(samples.inputs.flatten(), torch.arange(24) / 255)
    assert (samples.labels.tolist(), samples.labels.dtype) == ([7, 2], torch.int64)


def test_scans_and_labels_are_not_mistaken_for_each_other(mnist):
    with pytest.raises(
        ValueError, match=r"labels: expected bytes of 3 axes \(magic number 2051\), got uint8 of 1 axes"
    ):
        read_mnist(mnist / "labels", mnist / "images")


def test_as_many_scans_as_labels_are_needed(mnist):
    (mnist / "labels").write_bytes(idx(np.array([7, 2, 1], dtype=np.uint8)))
    with pytest.raises(ValueError, match="labels: expected 2 labels, one per image, got 3"):
        read_mnist(mnist / "images", mnist / "labels")


@pytest.fixture
def folder(tmp_path):
    for name, shade in (("dog", 200), ("cat", 100), ("cat", 101)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{shade}.pgm").write_bytes(netpbm(np.full((2, 3), shade)))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "readme").write_text("no folder")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_subfolders_are_classes_in_alphabetical_order(folder):
    dataset = ImageDataset.of_folder(folder)
    assert dataset.classes == ("cat", "dog")
    assert [(round(float(image.mean() * 255)), label) for image, label in dataset] == [(100, 0), (101, 0), (200, 1)]


def test_images_are_read_when_they_are_asked_for(folder):
    dataset = ImageDataset.of_folder(folder)
    (folder / "dog" / "200.pgm").unlink()
    assert dataset[0][0].shape == (1, 2, 3)
    with pytest.raises(FileNotFoundError):
        dataset[2]


def test_images_are_transformed_and_served_in_batches(folder):
    dataset = ImageDataset.of_folder(folder, lambda image: image.flip(-1)[..., :2])
    images, labels = next(iter(DataLoader(dataset, 3)))
    assert images.shape == (3, 1, 2, 2)
    assert labels.tolist() == [0, 0, 1]


def test_a_folder_without_subfolders_has_no_classes(tmp_path):
    with pytest.raises(ValueError, match="expected a subfolder per class, got none"):
        ImageDataset.of_folder(tmp_path)


def test_a_label_per_image_is_needed():
    with pytest.raises(ValueError, match="expected a label per path, got 1 for 2"):
        ImageDataset(["a.png", "b.png"], [0])
