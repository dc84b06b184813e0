"""Chapter 22: more samples out of those there are.

What is done to an image or a text is drawn for each anew, and leaves what it shows the same. Only training samples are
augmented.

Glossary
    p          how probable it is
    θ          an angle, against the clock
    factor     what brightness or contrast is multiplied by; 1 leaves the image alone

Source: chapter 22 of the book; Wei and Zou, EDA (2019), for the words.

Differs from the book: rotation rotates, and colours stay in [0, 1] after jitter (erratum E-58).
Does not handle: hue and saturation, synonyms. Noise and dropped features are in `reference_models.regularization`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Sequence


def _require_share(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"expected `p` from 0 to 1, got {p}")


@shapes("batch channels height width -> batch channels height width")
def flip(images: Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    """Mirror some images, left becoming right.

    Args:
        images: (batch, channels, height, width) tensor.
        p: how probable that is for each.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: `p` is no probability.
    """
    _require_share(p)
    chosen = torch.rand(len(images), generator=generator).to(images.device) < p
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


@shapes("batch channels _height _width -> batch channels side side")
def crop(images: Tensor, side: int, *, padding: int = 0, generator: torch.Generator | None = None) -> Tensor:
    """Cut a square out of each image, somewhere.

    Args:
        images: (batch, channels, height, width) tensor.
        side: height and width of the square.
        padding: rows and columns of zeros that are put around the images before.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: the square is larger than the padded image, or a size is negative.
    """
    height, width = (length + 2 * padding for length in images.shape[2:])
    if padding < 0 or not 0 <= side <= min(height, width):
        raise ValueError(f"expected `side` from 0 to {min(height, width)} with `padding` {padding}, got {side}")
    padded = torch.constant_pad_nd(images, [padding] * 4)
    batch, channels = images.shape[:2]
    top = torch.randint(height - side + 1, (batch,), generator=generator)
    left = torch.randint(width - side + 1, (batch,), generator=generator)
    rows = (top[:, None] + torch.arange(side))[:, None, :, None]
    columns = (left[:, None] + torch.arange(side))[:, None, None, :]
    return padded[torch.arange(batch)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns]


@shapes("batch channels height width, batch -> batch channels height width")
def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image about its middle; what comes in from outside is 0.

    Args:
        images: (batch, channels, height, width) float tensor.
        degrees: (batch) float tensor of angles against the clock.
    """
    height, width = images.shape[2:]
    angle = torch.deg2rad(degrees.to(torch.float64))[:, None, None]
    y = torch.arange(height, dtype=torch.float64, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64, device=images.device) - (width - 1) / 2
    # The pixel at (y, x) comes from where turning it back by θ leads; y grows downwards.
    # y' = y cos θ + x sin θ,  x' = x cos θ - y sin θ
    from_y = y * angle.cos() + x * angle.sin() + (height - 1) / 2
    from_x = x * angle.cos() - y * angle.sin() + (width - 1) / 2
    return _interpolated(images, from_y, from_x)


def _interpolated(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Read each image (channels, height, width) at places (batch, height, width) between its pixels."""
    channels, height, width = images.shape[1:]
    # One pixel of zeros all around is read by whatever lies outside.
    padded = torch.constant_pad_nd(images, [1, 1, 1, 1]).flatten(2)
    total = torch.zeros_like(images)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        near_y, near_x = y.floor() + row, x.floor() + column
        # Each of the four pixels around the place weighs 1 at its own middle and falls to 0 one pixel away.
        weight = (1 - (y - near_y).abs()) * (1 - (x - near_x).abs())
        place = (near_y.clamp(-1, height) + 1) * (width + 2) + near_x.clamp(-1, width) + 1
        pixels = padded.gather(2, place.long().flatten(1)[:, None].expand(-1, channels, -1)).reshape(images.shape)
        total = total + pixels * weight[:, None].to(images.dtype)
    return total


@shapes("batch channels height width -> batch channels height width")
def random_rotation(images: Tensor, most: float = 15.0, *, generator: torch.Generator | None = None) -> Tensor:
    """Turn each image by some angle.

    Args:
        images: (batch, channels, height, width) float tensor.
        most: degrees that it is turned by at most, in either direction.
        generator: where randomness comes from; torch's own by default.
    """
    return rotate(images, (torch.rand(len(images), generator=generator).to(images.device) * 2 - 1) * most)


@shapes("batch channels height width -> batch channels height width")
def jitter(
    images: Tensor, brightness: float = 0.2, contrast: float = 0.2, *, generator: torch.Generator | None = None
) -> Tensor:
    """Make each image a little brighter or darker, and its contrast a little stronger or weaker.

    Args:
        images: (batch, channels, height, width) float tensor in [0, 1].
        brightness: how far the factor of all pixels may be from 1.
        contrast: how far the factor of their distances from the image's mean may be from 1.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: a factor could be negative.
    """
    for name, far in (("brightness", brightness), ("contrast", contrast)):
        if not 0 <= far <= 1:
            raise ValueError(f"expected `{name}` from 0 to 1, got {far}")
    drawn = torch.rand(2, len(images), 1, 1, 1, generator=generator).to(images)
    bright, strong = 1 + (2 * drawn - 1) * torch.tensor([brightness, contrast]).to(images).reshape(2, 1, 1, 1, 1)
    brighter = (images * bright).clamp(0, 1)
    # x ↦ μ + factor · (x - μ), and no colour beyond black and white
    mean = brighter.mean((1, 2, 3), keepdim=True)
    jittered: Tensor = (mean + strong * (brighter - mean)).clamp(0, 1)
    return jittered


def delete_words(words: Sequence[str], p: float = 0.1, *, generator: torch.Generator | None = None) -> list[str]:
    """Leave some words out; if that would be all of them, one stays.

    Args:
        words: of a text.
        p: how probable that is for each.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: `p` is no probability.
    """
    _require_share(p)
    drawn = torch.rand(len(words), generator=generator).tolist()
    kept = [word for word, number in zip(words, drawn, strict=True) if number >= p]
    luckiest = max(range(len(drawn)), key=drawn.__getitem__, default=0)
    return kept or list(words[luckiest : luckiest + 1])


def swap_words(words: Sequence[str], count: int = 1, *, generator: torch.Generator | None = None) -> list[str]:
    """Let pairs of words change places.

    Args:
        words: of a text.
        count: how many times two places are drawn.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"expected `count` of at least 0, got {count}")
    swapped = list(words)
    for _ in range(count if len(swapped) > 1 else 0):
        first, second = torch.randperm(len(swapped), generator=generator)[:2].tolist()
        swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped
