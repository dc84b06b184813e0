"""Chapter 22: data, split and served in batches.

Glossary
    sample     one input and its label
    dataset    whatever has a length and gives a sample for a row's number; it may read it only then
    collate    make one batch of several samples
    stratified each class is split in the same proportion
    leak       something of the test samples that training has seen

Source: chapter 22 of the book. The digits are the 1 797 scans of 8×8 that come with scikit-learn, which stand in for
MNIST since nothing has to be downloaded for them; the irises are Fisher's 150, of chapter 7.

Differs from the book: splits are stratified and disjoint; irises are scaled by the range of the training rows, since
that of all rows is a leak (`iris(scaled=True)` is the book's way); every epoch is a new permutation.
Does not handle: several processes that load, data on the GPU. Files are in `reference_models.files` and
`reference_models.images`, sequences of different lengths in `reference_models.padding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from reference_models.transforms import fit_min_max, resize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs and their labels, one row each."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> Samples:
        return Samples(self.inputs[rows], self.labels[rows])

    def mapped(self, transform: Callable[[Tensor], Tensor]) -> Samples:
        """The same samples with other inputs.

        Args:
            transform: of all inputs, such as a fitted `reference_models.transforms.Scaling`.
        """
        return Samples(transform(self.inputs), self.labels)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Samples]:
        """Serve all samples once; the last batch is short if they do not divide.

        Args:
            size: samples per batch.
            generator: shuffles them; in order without one.
        """
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for start in range(0, len(self), size):
            yield self[order[start : start + size]]


class Dataset(Protocol[Item_co]):
    """Samples by number, from 0 to the length - 1."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, row: int, /) -> Item_co:
        """Give one sample."""


class InMemoryDataset:
    """Samples that are all there.

    Args:
        samples: inputs and labels, one row each.

    Raises:
        ValueError: there are not as many labels as inputs.
    """

    def __init__(self, samples: Samples) -> None:
        if len(samples.inputs) != len(samples.labels):
            raise ValueError(f"expected a label per input, got {len(samples.labels)} for {len(samples.inputs)}")
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.samples.inputs[row], self.samples.labels[row]


def collate(samples: Sequence[Any]) -> Any:
    """Make a batch: tensors are stacked, numbers become a tensor, and tuples are batched part by part.

    Args:
        samples: at least one, all of the same kind.

    Raises:
        ValueError: tensors of different shapes; `reference_models.padding.pad_sequences` makes them equal.
    """
    first = samples[0]
    if isinstance(first, tuple):
        return tuple(collate(part) for part in zip(*samples, strict=True))
    if not isinstance(first, Tensor):
        return torch.tensor(samples)
    if others := [tuple(sample.shape) for sample in samples if sample.shape != first.shape]:
        raise ValueError(f"expected samples of one shape, got {tuple(first.shape)} and {others[0]}")
    return torch.stack(list(samples))


class DataLoader(Generic[Item]):
    """A dataset in batches, in a new order each epoch if it is shuffled.

    Args:
        dataset: samples by number.
        batch: samples at a time.
        shuffle: whether each epoch has an order of its own.
        drop_last: whether a short last batch is left out.
        generator: where orders come from; torch's own by default.
        collate: makes a batch of samples.

    Raises:
        ValueError: the batch is empty.
    """

    def __init__(
        self,
        dataset: Dataset[Item],
        batch: int = 32,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        collate: Callable[[Sequence[Item]], Any] = collate,
    ) -> None:
        if batch < 1:
            raise ValueError(f"expected `batch` of at least 1, got {batch}")
        self.dataset, self.batch, self.shuffle, self.drop_last = dataset, batch, shuffle, drop_last
        self.generator, self.collate = generator, collate

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        count = len(self.dataset)
        order = torch.randperm(count, generator=self.generator).tolist() if self.shuffle else list(range(count))
        for number in range(len(self)):
            rows = order[number * self.batch : (number + 1) * self.batch]
            yield self.collate([self.dataset[row] for row in rows])


def digits(image: int = 8) -> Samples:
    """Scans of handwritten digits, (sample, 1, image, image) in [0, 1].

    Args:
        image: height and width; larger than 8 they are interpolated.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    return Samples(resize(inputs, image), torch.as_tensor(bunch.target, dtype=torch.int64))


def iris(*, scaled: bool = False) -> Samples:
    """Length and width of the sepals and petals of 150 flowers, (150, 4) in centimetres, and their 3 species.

    Args:
        scaled: to [0, 1] by the range of all flowers, as the book does. A test set that is split off afterwards has
            then had its say in the training set; fit a `reference_models.transforms.Scaling` to the latter instead.
    """
    from sklearn.datasets import load_iris

    bunch = load_iris()
    inputs = torch.as_tensor(bunch.data, dtype=torch.float32)
    samples = Samples(inputs, torch.as_tensor(bunch.target, dtype=torch.int64))
    return samples.mapped(fit_min_max(inputs)) if scaled else samples


def split(samples: Samples, seed: int, *, test: float = 0.2) -> tuple[Samples, Samples]:
    """Split each class of the samples in the same proportion; rows keep their order.

    Args:
        samples: what to split; without classes (labels are floats, or more than one each) they are split as one.
        seed: which split.
        test: share of the second part.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    train, _, tested = train_val_test(samples, seed, val=0.0, test=test)
    return train, tested


def train_val_test(
    samples: Samples, seed: int, *, val: float = 0.1, test: float = 0.1
) -> tuple[Samples, Samples, Samples]:
    """Split each class in the same proportions, to train with, to choose with, and to look at once.

    Args:
        samples: what to split; without classes (labels are floats, or more than one each) they are split as one.
        seed: which split.
        val: share of the second part.
        test: share of the third part.

    Raises:
        ValueError: a share is negative, or together they are more than everything.
    """
    if min(val, test) < 0 or val + test > 1:
        raise ValueError(f"expected `val` and `test` to be shares of a whole, got {val} and {test}")
    generator = torch.Generator().manual_seed(seed)
    part = torch.zeros(len(samples), dtype=torch.int64)
    for rows in _rows_by_class(samples.labels):
        order = rows[torch.randperm(len(rows), generator=generator)]
        tested, validated = round(test * len(rows)), round(val * len(rows))
        part[order[:tested]] = 2
        part[order[tested : tested + validated]] = 1
    return samples[part == 0], samples[part == 1], samples[part == 2]


def _rows_by_class(labels: Tensor) -> list[Tensor]:
    if labels.ndim > 1 or labels.is_floating_point():
        return [torch.arange(len(labels))]
    return [(labels == label).nonzero().squeeze(1) for label in sorted(set(labels.tolist()))]


def leaked(train: Samples, test: Samples) -> Tensor:
    """Find the test samples whose inputs are among the training samples' as well.

    Args:
        train: samples that a model is trained with.
        test: samples that it is tested with.

    Returns:
        (test samples) bool tensor.
    """
    seen = set(_rows(train.inputs))
    return torch.tensor([row in seen for row in _rows(test.inputs)], dtype=torch.bool)


def _rows(inputs: Tensor) -> list[tuple[float, ...]]:
    return list(map(tuple, inputs.unsqueeze(1).flatten(1).tolist()))
