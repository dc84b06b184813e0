"""Train the reference models, each on data that shows that it learns.

Build first, then look at the model from outside while the loop runs:

    task = PRESETS["cnn"].build(seed=0)
    for epoch in task.epochs():
        print(epoch)
    print(task.result())

A seed fixes weights, split and order of the batches. Building seeds torch's global generator, as PyTorch programs do,
and so do dropout and noise draw from it; the order of the batches comes from a generator of the loop's own.

Glossary
    task       a model with its data and its loop, about to be trained
    preset     what a task is built from, by name
    score      a number measured when the training is over
    target     what a score has to reach
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from reference_models.data import Samples
from reference_models.losses import accuracy, cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer

    Numbers = Mapping[str, Tensor]
    # step from 0 on, and what is known of its batch; 0-d tensors, so that nobody has to wait for a GPU
    OnStep = Callable[[int, Numbers], None]
    Metric = Callable[[Tensor, Tensor], Tensor]
    Measure = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Target:
    """What a score has to reach.

    Attributes:
        score: its name.
        bound: the least it may be.
        at_most: whether that is the most it may be.
    """

    score: str
    bound: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        """Whether a value reaches it, but for the rounding of a float32; NaN never does."""
        slack = 1e-6 * abs(self.bound)
        return value <= self.bound + slack if self.at_most else value >= self.bound - slack

    def __str__(self) -> str:
        return f"{self.score} {'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training samples, and what the model could do after it."""

    number: int
    numbers: dict[str, float]

    def __str__(self) -> str:
        return f"epoch {self.number}: " + " · ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a training.

    Attributes:
        name: of the preset.
        seed: that it was trained with.
        scores: what was measured.
        targets: what some of that has to reach.
        seconds: of training and evaluation.
    """

    name: str
    seed: int
    scores: dict[str, float]
    targets: tuple[Target, ...]
    seconds: float

    @property
    def met(self) -> bool:
        """Whether every target is reached."""
        return all(target.met(self.scores[target.score]) for target in self.targets)


@dataclass(frozen=True, slots=True)
class Preset:
    """A model with the training that suits it.

    Attributes:
        name: what it is asked for by.
        chapter: of the book.
        task: what is learned from what, in a few words.
        make: builds the task from a seed; torch's global generator has been seeded with it.
        targets: what it has to reach.
        provokes: rules of diagnosis whose fault it is meant to show; none for a healthy training.
        is_slow: whether it takes more than some seconds.
    """

    name: str
    chapter: str
    task: str
    make: Callable[[int], Task]
    targets: tuple[Target, ...] = ()
    provokes: tuple[str, ...] = ()
    is_slow: bool = False

    def build(self, seed: int = 0) -> Task:
        """Make model, data and optimizer, ready to train."""
        torch.manual_seed(seed)
        task = self.make(seed)
        task.preset, task.seed = self, seed
        return task


class Task(ABC):
    """A model about to be trained, or being trained.

    Args:
        model: the model.
        length: epochs that its training takes.
        steps: optimizer steps of one epoch.

    Attributes:
        preset: what it was built from.
        seed: of weights, split and order.
        seconds: spent in training and evaluation so far.
    """

    preset: Preset
    seed: int

    def __init__(self, model: nn.Module, length: int, steps: int) -> None:
        self.model, self.length, self.steps_per_epoch = model, length, steps
        self.seconds = 0.0
        self._step = self._epoch = 0

    @abstractmethod
    def train_once(self, told: Callable[[Numbers], None]) -> dict[str, float]:
        """Train for one epoch.

        Args:
            told: to be called after each optimizer step.

        Returns:
            What is to be said of the epoch.
        """

    @abstractmethod
    def scores(self) -> dict[str, float]:
        """Measure what the model can do now."""

    def epochs(self, count: int | None = None, *, on_step: OnStep | None = None) -> Iterator[Epoch]:
        """Train, one epoch per iteration.

        Args:
            count: how many epochs; the preset's by default.
            on_step: called after each optimizer step with its number and what is known of its batch, such as `loss`.
        """

        def told(numbers: Numbers) -> None:
            if on_step:
                on_step(self._step, numbers)
            self._step += 1

        for _ in range(self.length if count is None else count):
            start = time.perf_counter()
            numbers = self.train_once(told)
            self.seconds += time.perf_counter() - start
            yield Epoch(self._epoch, numbers)
            self._epoch += 1

    def result(self) -> Result:
        """Measure what the model can do now, and compare it with the targets."""
        return Result(self.preset.name, self.seed, self.scores(), self.preset.targets, self.seconds)


@dataclass(frozen=True, slots=True)
class Data:
    """What a model learns from, and what it is tested with.

    Attributes:
        train: training samples, or what makes new ones for each epoch.
        test: samples that are not trained on; None if there are none.
    """

    train: Samples | Callable[[torch.Generator], Samples]
    test: Samples | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a supervised model is trained.

    Attributes:
        optimizer: makes it from the parameters.
        epochs: passes over the training samples.
        batch: samples per step; None for all at once.
        loss: of outputs and labels.
        metrics: name → what else is to be known of outputs and labels.
        schedule: of the learning rate: given the optimizer, makes what is called after each of its steps.
        shuffle: whether each epoch has an order of its own.
    """

    optimizer: Callable[[Iterator[nn.Parameter]], Optimizer]
    epochs: int
    batch: int | None = 64
    loss: Metric = cross_entropy
    metrics: Mapping[str, Metric] | None = None
    schedule: Callable[[Optimizer], Callable[[], None]] | None = None
    shuffle: bool = True

    def measured(self) -> dict[str, Metric]:
        """All that is to be known of outputs and labels; of a classifier its accuracy."""
        more = {"accuracy": accuracy} if self.metrics is None and self.loss is cross_entropy else self.metrics
        return {"loss": self.loss, **(more or {})}


class Supervised(Task):
    """A model that learns to give each input its label.

    Args:
        model: the model.
        data: what it learns from.
        recipe: how.
        measure: finds further scores of the trained model.
        seed: of the order of the batches, and of data that are made.

    Attributes:
        optimizer: of all the model's parameters.
    """

    def __init__(
        self, model: nn.Module, data: Data, recipe: Recipe, *, measure: Measure | None = None, seed: int = 0
    ) -> None:
        self.data, self.recipe, self._measure = data, recipe, measure
        self._generator = torch.Generator().manual_seed(seed)
        self.train = data.train if isinstance(data.train, Samples) else data.train(self._generator)
        self.batch = recipe.batch or len(self.train)
        super().__init__(model, recipe.epochs, -(-len(self.train) // self.batch))
        self.optimizer = recipe.optimizer(model.parameters())
        self._after_step = recipe.schedule(self.optimizer) if recipe.schedule else None

    def train_once(self, told: Callable[[Numbers], None]) -> dict[str, float]:
        """See `Task`: means over the training batches, and what the model can do with the test samples after them."""
        self.model.train()
        if self._epoch and not isinstance(self.data.train, Samples):
            self.train = self.data.train(self._generator)
        measured = self.recipe.measured()
        total = torch.zeros(len(measured))
        for batch in self.train.batches(self.batch, self._generator if self.recipe.shuffle else None):
            self.optimizer.zero_grad()
            outputs = self.model(batch.inputs)
            loss = self.recipe.loss(outputs, batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self._after_step:
                self._after_step()
            scores = _scored(measured, outputs.detach(), batch.labels)
            total += scores * len(batch)
            told(dict(zip(measured, scores, strict=True)))
        numbers = dict(zip(measured, (total / len(self.train)).tolist(), strict=True))
        return numbers | (self._evaluated(self.data.test, "test_") if self.data.test else {})

    def scores(self) -> dict[str, float]:
        """See `Task`: all that is measured, of the training samples and of the test samples."""
        found = self._evaluated(self.train, "train_")
        if self.data.test:
            found |= self._evaluated(self.data.test, "test_")
        return found | (self._measure(self.model) if self._measure else {})

    def _evaluated(self, samples: Samples, prefix: str) -> dict[str, float]:
        found = evaluate(self.model, samples, self.recipe.measured(), self.batch)
        return {prefix + name: value for name, value in found.items()}


def _scored(metrics: Mapping[str, Metric], outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([metric(outputs, labels) for metric in metrics.values()])


def evaluate(model: nn.Module, samples: Samples, metrics: Mapping[str, Metric], batch: int = 64) -> dict[str, float]:
    """Means of some metrics over samples, in evaluation mode and without gradients.

    Args:
        model: gives outputs for the samples' inputs.
        samples: what to look at.
        metrics: name → function of outputs and labels.
        batch: samples at a time.
    """
    training = model.training
    model.eval()
    total = torch.zeros(len(metrics))
    try:
        with torch.no_grad():
            for part in samples.batches(batch):
                total += _scored(metrics, model(part.inputs), part.labels) * len(part)
    finally:
        model.train(training)
    return dict(zip(metrics, (total / len(samples)).tolist(), strict=True))
