"""Train the reference models, each on data that shows that it learns.

Build first, then look at the model from outside while the loop runs:

    task = PRESETS["cnn"].build(seed=0)
    for epoch in task.epochs():
        print(epoch)
    print(task.result())

A seed fixes weights, split and order of the batches. Building seeds torch's global generator, as PyTorch programs do;
the loop itself draws from a generator of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reference_models.cnn import SimpleCNN
from reference_models.data import Samples, digits, split
from reference_models.losses import accuracy, cross_entropy
from reference_models.optimizers import AdamW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # step from 0 on, loss and accuracy on its batch; 0-d tensors, so that nobody has to wait for a GPU
    OnStep = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training samples, and what the model could do after it."""

    number: int
    loss: float
    accuracy: float
    test_loss: float
    test_accuracy: float

    def __str__(self) -> str:
        return (
            f"epoch {self.number}: loss {self.loss:.3f} accuracy {self.accuracy:.3f}"
            f" · test loss {self.test_loss:.3f} accuracy {self.test_accuracy:.3f}"
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a training."""

    name: str
    seed: int
    train_accuracy: float
    test_accuracy: float
    target: float
    seconds: float

    @property
    def met(self) -> bool:
        """Whether the test accuracy reaches the target."""
        return self.test_accuracy >= self.target


@dataclass(frozen=True, slots=True)
class Preset:
    """A model with the training that suits it.

    Attributes:
        name: what it is asked for by.
        chapter: of the book.
        model: builds it.
        data: loads all samples.
        lr: of AdamW.
        batch: samples per step.
        epochs: passes over the training samples.
        target: test accuracy that it has to reach.
    """

    name: str
    chapter: int
    model: Callable[[], nn.Module]
    data: Callable[[], Samples]
    lr: float
    batch: int
    epochs: int
    target: float

    def build(self, seed: int = 0) -> Task:
        """Make model, data and optimizer, ready to train."""
        torch.manual_seed(seed)
        train, test = split(self.data(), seed)
        return Task(self, seed, self.model(), train, test)


class Task:
    """A model about to be trained, or being trained.

    Attributes:
        preset: what it was built from.
        seed: of weights, split and order.
        model: the model.
        optimizer: of all its parameters.
        seconds: spent in training and evaluation so far.
    """

    def __init__(self, preset: Preset, seed: int, model: nn.Module, train: Samples, test: Samples) -> None:
        self.preset, self.seed, self.model, self.train, self.test = preset, seed, model, train, test
        self.optimizer = AdamW(model.parameters(), preset.lr)
        self.seconds = 0.0
        self._generator = torch.Generator().manual_seed(seed)
        self._step = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.train) // self.preset.batch)

    def epochs(self, count: int | None = None, *, on_step: OnStep | None = None) -> Iterator[Epoch]:
        """Train, one epoch per iteration.

        Args:
            count: how many epochs; the preset's by default.
            on_step: called after each optimizer step with its number, loss and accuracy.
        """
        for number in range(self.preset.epochs if count is None else count):
            start = time.perf_counter()
            loss, correct = self._train_once(on_step)
            test_loss, test_accuracy = evaluate(self.model, self.test, self.preset.batch)
            self.seconds += time.perf_counter() - start
            yield Epoch(number, loss, correct, test_loss, test_accuracy)

    def result(self) -> Result:
        """Measure what the model can do now."""
        _, train_accuracy = evaluate(self.model, self.train, self.preset.batch)
        _, test_accuracy = evaluate(self.model, self.test, self.preset.batch)
        return Result(self.preset.name, self.seed, train_accuracy, test_accuracy, self.preset.target, self.seconds)

    def _train_once(self, on_step: OnStep | None) -> tuple[float, float]:
        self.model.train()
        total = torch.zeros(2)
        for batch in self.train.batches(self.preset.batch, self._generator):
            self.optimizer.zero_grad()
            logits = self.model(batch.inputs)
            loss = cross_entropy(logits, batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            scores = torch.stack([loss.detach(), accuracy(logits.detach(), batch.labels)])
            total += scores * len(batch)
            if on_step:
                on_step(self._step, scores[0], scores[1])
            self._step += 1
        mean_loss, mean_accuracy = (total / len(self.train)).tolist()
        return mean_loss, mean_accuracy


def evaluate(model: nn.Module, samples: Samples, batch: int = 64) -> tuple[float, float]:
    """Mean loss and accuracy of a model, in evaluation mode and without gradients.

    Args:
        model: classifies the samples' inputs.
        samples: what to classify.
        batch: samples at a time.
    """
    training = model.training
    model.eval()
    total = torch.zeros(2)
    try:
        with torch.no_grad():
            for part in samples.batches(batch):
                logits = model(part.inputs)
                total += torch.stack([cross_entropy(logits, part.labels), accuracy(logits, part.labels)]) * len(part)
    finally:
        model.train(training)
    loss, correct = (total / len(samples)).tolist()
    return loss, correct


def train(name: str = "cnn", *, seed: int = 0, epochs: int | None = None, on_step: OnStep | None = None) -> Result:
    """Build a preset, train it and measure it.

    Args:
        name: one of `PRESETS`.
        seed: of weights, split and order of the batches.
        epochs: the preset's by default.
        on_step: called after each optimizer step with its number, loss and accuracy.
    """
    task = PRESETS[name].build(seed)
    for _ in task.epochs(epochs, on_step=on_step):
        pass
    return task.result()


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("cnn", 13, SimpleCNN, lambda: digits(28), lr=1e-3, batch=64, epochs=10, target=0.95),
        Preset("cnn-tiny", 13, SimpleCNN.tiny, digits, lr=2e-3, batch=64, epochs=15, target=0.95),
    )
}
