"""Chapter 22: numbers made fit for a model.

What is learned from data (a range, a mean) is learned from the *training* rows and then applied to all others:

    scale = fit_z_score(train.inputs)
    train, test = train.mapped(scale), test.mapped(scale)

Glossary
    min-max    x ↦ (x - min) / (max - min), so that the rows it was fitted to fill [0, 1]
    z-score    x ↦ (x - μ) / σ, so that they have mean 0 and variance 1
    one-hot    class c as a row of zeros with a 1 at c

Source: chapter 22 of the book; ImageNet's means and deviations are those of Krizhevsky et al. (2012) per channel, as
every pretrained model expects them.

Differs from the book: a batch is never scaled by its own statistics, and each feature has its own range (erratum E-58;
`axes` still offers one range for everything); pixels are moved from (height, width, channels) to (channels, height,
width), not just called so (E-35).
Does not handle: categories that are
text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tensorscope import shapes


@dataclass(frozen=True, slots=True)
class Scaling:
    """A shift and a scale per feature, or per channel.

    Attributes:
        shift: what becomes 0; its shape broadcasts to the rows'.
        scale: what becomes 1 above that.
    """

    shift: Tensor
    scale: Tensor

    @shapes("... -> ...")
    def __call__(self, x: Tensor) -> Tensor:
        """Scale.

        Args:
            x: (batch, ...) float tensor.

        Raises:
            ValueError: it has not the features that this was fitted to.
        """
        self._require_fits(x)
        return (x - self.shift) / self.scale

    @shapes("... -> ...")
    def undo(self, x: Tensor) -> Tensor:
        """Scale back to what it was.

        Args:
            x: (batch, ...) float tensor.

        Raises:
            ValueError: it has not the features that this was fitted to.
        """
        self._require_fits(x)
        return x * self.scale + self.shift

    def _require_fits(self, x: Tensor) -> None:
        own = self.shift.shape
        beside = x.shape[len(x.shape) - len(own) :]
        if len(own) > x.ndim or any(size not in {1, other} for size, other in zip(own, beside, strict=True)):
            raise ValueError(f"expected `x` to fit a scaling of shape {tuple(own)}, got shape {tuple(x.shape)}")


def _imagenet() -> Scaling:
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return Scaling(mean, deviation)


# Of images in [0, 1], (…, 3, height, width), in the order red, green, blue.
IMAGENET = _imagenet()


def _require_rows(rows: Tensor) -> None:
    if not rows.is_floating_point():
        raise TypeError(f"expected `rows` of a float dtype, got {rows.dtype}")
    if rows.numel() == 0:
        raise ValueError(f"expected at least one number in `rows`, got shape {tuple(rows.shape)}")


@shapes("batch ...")
def fit_min_max(rows: Tensor, axes: tuple[int, ...] = (0,)) -> Scaling:
    """Learn the range of each feature; a feature that never changes becomes 0.

    Args:
        rows: (batch, ...) float tensor; a NaN makes its feature NaN.
        axes: those that share a range: (0,) is one per feature, (0, 2, 3) one per channel of images, and (0, 1) the
            book's one range for all features.

    Raises:
        TypeError: the rows are no floats.
        ValueError: there are none.
    """
    _require_rows(rows)
    low, high = rows.amin(axes, keepdim=True), rows.amax(axes, keepdim=True)
    return Scaling(low, torch.where(low == high, 1, high - low))


@shapes("batch ...")
def fit_z_score(rows: Tensor, axes: tuple[int, ...] = (0,)) -> Scaling:
    """Learn the mean and deviation of each feature; a feature that never changes becomes 0.

    Args:
        rows: (batch, ...) float tensor; a NaN makes its feature NaN.
        axes: those that share a mean: (0,) is one per feature, (0, 2, 3) one per channel of images.

    Raises:
        TypeError: the rows are no floats.
        ValueError: there are none.
    """
    _require_rows(rows)
    constant = rows.amin(axes, keepdim=True) == rows.amax(axes, keepdim=True)
    # Rounding could put the mean of equal numbers beside them, and the deviation at a tiny number instead of 0.
    mean = torch.where(constant, rows.amin(axes, keepdim=True), rows.mean(axes, keepdim=True))
    # σ = r · √(1/n Σᵢ ((xᵢ - μ) / r)²), for any r; the largest distance keeps squares from leaving the dtype's range.
    reach = (rows - mean).abs().amax(axes, keepdim=True)
    reach = torch.where(reach == 0, 1, reach)
    deviation = reach * ((rows - mean) / reach).square().mean(axes, keepdim=True).sqrt()
    return Scaling(mean, torch.where(deviation == 0, 1, deviation))


@shapes("batch ...")
def fit_robust(rows: Tensor) -> Scaling:
    """Learn the median and the range of the middle half of each feature, which a few outliers do not sway.

    Args:
        rows: (batch, ...) float tensor; a NaN makes its feature NaN.

    Raises:
        TypeError: the rows are no floats.
        ValueError: there are none.
    """
    _require_rows(rows)
    wide = rows if rows.dtype == torch.float64 else rows.float()
    # IQR = Q₃ - Q₁
    lower, median, upper = wide.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=wide.dtype), 0, keepdim=True)
    width = (upper - lower).to(rows.dtype)
    return Scaling(median.to(rows.dtype), torch.where(width == 0, 1, width))


@shapes("batch features -> features")
def column_means(rows: Tensor) -> Tensor:
    """The mean of each column's known numbers, for `impute`.

    Args:
        rows: (batch, features) float tensor, NaN where a number is missing.

    Raises:
        ValueError: a column has no known number.
    """
    known = ~rows.isnan()
    counts = known.sum(0)
    if empty := (counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"expected a known number in every column of `rows`, got none in {empty}")
    return torch.where(known, rows, 0).sum(0) / counts


@shapes("batch features, features -> batch features")
def impute(rows: Tensor, fill: Tensor) -> Tensor:
    """Put a number in every empty place.

    Args:
        rows: (batch, features) float tensor, NaN where a number is missing.
        fill: (features) float tensor, what to put into each column: the training rows' `column_means`.
    """
    return torch.where(rows.isnan(), fill, rows)


@shapes("*batch -> *batch classes")
def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Each class as a row of zeros with a 1 in its place.

    Args:
        labels: (...) integer tensor of classes.
        classes: how many there are.

    Returns:
        (..., classes) float32 tensor.

    Raises:
        TypeError: the labels are no integers.
        ValueError: one lies outside of 0 to classes - 1.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool:
        raise TypeError(f"expected `labels` of an integer dtype, got {labels.dtype}")
    if outside := [label for label in labels.flatten().tolist() if not 0 <= label < classes]:
        raise ValueError(f"expected `labels` from 0 to {classes - 1}, got {outside[0]}")
    return (labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)).float()


@shapes("*batch height width channels -> *batch channels height width")
def channels_first(images: Tensor) -> Tensor:
    """Move colours before rows and columns: files keep the colours of a pixel together, convolutions want planes.

    Args:
        images: (..., height, width, channels) tensor.
    """
    return images.movedim(-1, -3)


@shapes("batch channels _height _width -> batch channels side side")
def resize(images: Tensor, side: int) -> Tensor:
    """Interpolate images to side×side pixels, linearly in both directions.

    Args:
        images: (batch, channels, height, width) float tensor.
        side: new height and width.

    Raises:
        ValueError: there is no pixel, or none is asked for.
    """
    if side < 1 or 0 in images.shape[2:]:
        raise ValueError(f"expected `images` and `side` of at least one pixel, got {tuple(images.shape)} and {side}")
    rows, columns = (_interpolation(length, side).to(images) for length in images.shape[2:])
    return rows @ images @ columns.T


def _interpolation(length: int, side: int) -> Tensor:
    """The (side, length) matrix that interpolates a line of pixels."""
    # Pixel i of the result has its middle at (i + ½) · length / side - ½ of the original; outside, the edge goes on.
    middle = ((torch.arange(side, dtype=torch.float64) + 0.5) * length / side - 0.5).clamp(0, length - 1)
    # Each original pixel weighs 1 at its own middle and falls to 0 one pixel away.
    return (1 - (middle[:, None] - torch.arange(length)).abs()).clamp(min=0)
