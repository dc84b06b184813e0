"""Chapters 15 and 21: networks that read a sequence one step at a time and remember.

Glossary
    x          what is read at one step (batch, inputs)
    h          the state: what is remembered from step to step (batch, hidden)
    y          what is said at one step (batch, outputs)
    W_ih, W_hh weights from the input and from the last state to the next state
    W_ho       weight from the state to the output
    A, B, C, D the four matrices of the linear recurrence that chapter 21 starts from
    mask       which steps of a sequence are real (batch, seq); the others only fill up a batch of unequal lengths

Source: chapters 15 and 21 of the book; Elman, Finding structure in time (1990); for the parallel form Hillis and
Steele, Data parallel algorithms (1986).

Differs from the book: whole batches of sequences are read at once, of unequal lengths too; what the trained network
makes of 8 is reported, not called a success, since it was never asked to go on counting (E-25).
Does not handle: sequences without a batch axis, rectifiers in place of tanh, masks in the linear recurrence and in it
powers of A that overflow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from reference_models.initialization import uniform
from reference_models.losses import mse
from reference_models.mlp import Linear
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.optim import Optimizer


class Cell(Protocol):
    """One step of a network that remembers; its state is a tensor, or a tuple of tensors of which the first is seen."""

    def __call__(self, x: Tensor, state: Any) -> Any:
        """Read one step and return the new state."""

    def start(self, x: Tensor) -> Any:
        """The state before anything was read."""


class ElmanCell(nn.Module):
    """One step of a recurrent network, with torch's names and sizes for its parameters.

    Args:
        inputs: numbers read at each step.
        hidden: numbers remembered.

    Raises:
        ValueError: there are none of either.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        require_sizes(inputs=inputs, hidden=hidden)
        bound = 1 / math.sqrt(hidden)
        self.weight_ih = nn.Parameter(uniform(hidden, inputs, bound=bound))
        self.weight_hh = nn.Parameter(uniform(hidden, hidden, bound=bound))
        self.bias_ih = nn.Parameter(uniform(hidden, bound=bound))
        self.bias_hh = nn.Parameter(uniform(hidden, bound=bound))

    @shapes("batch inputs, batch hidden -> batch hidden")
    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Read one step.

        Args:
            x: (batch, inputs) float tensor.
            state: (batch, hidden) float tensor, of the step before.

        Raises:
            ValueError: the sizes are not those of the cell.
        """
        require_fit(x, state, self.weight_ih.shape[1], self.weight_hh.shape[1])
        # h ← tanh(W_ih x + b_ih + W_hh h + b_hh)
        return torch.tanh(x @ self.weight_ih.T + self.bias_ih + state @ self.weight_hh.T + self.bias_hh)

    @shapes("batch inputs -> batch hidden")
    def start(self, x: Tensor) -> Tensor:
        """The state before anything was read.

        Args:
            x: (batch, inputs) float tensor, for its batch, dtype and device.
        """
        return x.new_zeros(len(x), len(self.weight_hh))


class ElmanRNN(nn.Module):
    """The book's network: an Elman cell and a weighted sum of its state; with the defaults 141 parameters.

    Args:
        inputs: numbers read at each step.
        hidden: numbers remembered.
        outputs: numbers said at each step.
    """

    def __init__(self, inputs: int = 1, hidden: int = 10, outputs: int = 1) -> None:
        super().__init__()
        self.cell = ElmanCell(inputs, hidden)
        self.output = Linear(hidden, outputs)

    @shapes("batch inputs, batch hidden -> batch outputs, batch hidden")
    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read one step and say something about it.

        Args:
            x: (batch, inputs) float tensor.
            state: (batch, hidden) float tensor, of the step before.

        Returns:
            (batch, outputs) what is said, and (batch, hidden) the new state.
        """
        state = self.cell(x, state)
        # y = W_ho h + b_o
        return self.output(state), state

    @shapes("batch seq inputs, batch hidden, bool[batch seq] -> batch seq outputs, batch hidden")
    def forward(
        self, sequence: Tensor, state: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read sequences.

        Args:
            sequence: (batch, seq, inputs) float tensor.
            state: (batch, hidden) float tensor from what was read before; zeros by default.
            mask: (batch, seq) bool tensor, false where nothing is to be read; all is by default.

        Returns:
            (batch, seq, outputs) what is said, 0 where nothing is read, and (batch, hidden) the last state.

        Raises:
            ValueError: the sequences have no steps, or sizes that are not the network's.
        """
        hidden, state = unroll(self.cell, sequence, state, mask)
        return blank(self.output(hidden), mask), state


def unroll(cell: Cell, sequence: Tensor, state: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Any]:
    """Apply a cell step after step, each time to the state it made before.

    Args:
        cell: of this chapter or the next.
        sequence: (batch, seq, inputs) float tensor.
        state: to begin with; zeros by default.
        mask: (batch, seq) bool tensor; where it is false the state stays as it is.

    Returns:
        (batch, seq, hidden) states that are seen, and the whole last state.

    Raises:
        ValueError: the sequences have no steps.
    """
    if not sequence.shape[1]:
        raise ValueError(f"expected `sequence` with at least 1 step, got {tuple(sequence.shape)}")
    seen = []
    for step, x in enumerate(blank(sequence, mask).unbind(1)):
        before = cell.start(x) if state is None else state
        state = cell(x, before)
        if mask is not None:
            state = choose(mask[:, step, None], state, before)
        seen.append(state if isinstance(state, Tensor) else state[0])
    return torch.stack(seen, 1), state


def choose(which: Tensor, new: Any, old: Any) -> Any:
    """The new state of some rows and the old one of the others.

    Args:
        which: (batch, 1) bool tensor, true for the new one.
        new: state after a step.
        old: state before it.
    """
    if isinstance(new, Tensor):
        return torch.where(which, new, old)
    return tuple(choose(which, *pair) for pair in zip(new, old, strict=True))


@shapes("batch seq features, batch seq -> batch seq features")
def blank(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros where nothing is real, whatever is there (also NaN), so that nothing of it reaches values or gradients.

    Args:
        x: (batch, seq, features) float tensor.
        mask: (batch, seq) bool tensor, or None if all is real.
    """
    return x if mask is None else torch.where(mask.unsqueeze(2), x, 0)


class LinearRNN(nn.Module):
    """A recurrence without a bend, which can therefore be computed for all steps at once.

    Args:
        inputs: numbers read at each step.
        hidden: numbers remembered.
        outputs: numbers said at each step.
    """

    def __init__(self, inputs: int = 1, hidden: int = 10, outputs: int = 1) -> None:
        super().__init__()
        require_sizes(inputs=inputs, hidden=hidden, outputs=outputs)
        bound = 1 / math.sqrt(hidden)
        self.A = nn.Parameter(uniform(hidden, hidden, bound=bound))
        self.B = nn.Parameter(uniform(hidden, inputs, bound=bound))
        self.C = nn.Parameter(uniform(outputs, hidden, bound=bound))
        self.D = nn.Parameter(uniform(outputs, inputs, bound=bound))

    @shapes("batch seq inputs, batch hidden -> batch seq outputs, batch hidden")
    def forward(self, sequence: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read sequences step by step.

        Args:
            sequence: (batch, seq, inputs) float tensor; it may have no steps.
            state: (batch, hidden) float tensor from what was read before; zeros by default.

        Returns:
            (batch, seq, outputs) what is said, and (batch, hidden) the last state.

        Raises:
            ValueError: the sizes are not those of the matrices.
        """
        h = self._start(sequence, state)
        said = []
        for x in sequence.unbind(1):
            # h ← A h + B x,  y = C h + D x
            h = h @ self.A.T + x @ self.B.T
            said.append(h @ self.C.T + x @ self.D.T)
        return torch.stack(said, 1) if said else sequence.new_zeros(len(sequence), 0, len(self.C)), h

    @shapes("batch seq inputs, batch hidden -> batch seq outputs, batch hidden")
    def parallel(self, sequence: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same in ⌈log₂ seq⌉ steps, each of which is a product over the whole sequence.

        Args:
            sequence: (batch, seq, inputs) float tensor; it may have no steps.
            state: (batch, hidden) float tensor from what was read before; zeros by default.

        Returns:
            (batch, seq, outputs) what is said, and (batch, hidden) the last state.

        Raises:
            ValueError: the sizes are not those of the matrices.
        """
        before = self._start(sequence, state)
        # The start counts as one more step before the first: h_t = Σ_{k ≤ t} Aᵏ u_{t-k}, u = h₀, B x₁, B x₂, …
        h = torch.cat([before.unsqueeze(1), sequence @ self.B.T], 1)
        power: Tensor = self.A  # Aʳ
        reach = 1  # r: h_t holds the first r terms of the sum
        while reach < h.shape[1]:
            # h_t ← h_t + Aʳ h_{t-r}, then r ← 2 r
            h = torch.cat([h[:, :reach], h[:, reach:] + h[:, :-reach] @ power.T], 1)
            power, reach = power @ power, 2 * reach
        return h[:, 1:] @ self.C.T + sequence @ self.D.T, h[:, -1]

    def _start(self, sequence: Tensor, state: Tensor | None) -> Tensor:
        h = sequence.new_zeros(len(sequence), len(self.A)) if state is None else state
        require_fit(sequence, h, self.B.shape[1], len(self.A))
        return h


def next_numbers() -> tuple[Tensor, Tensor]:
    """The task of chapters 15, 16 and 21: 1…7 and what comes after each, both (batch=1, seq=7, inputs=1)."""
    numbers = torch.arange(1.0, 9.0).reshape(1, 8, 1)
    return numbers[:, :-1], numbers[:, 1:]


def train_epoch(model: nn.Module, optimizer: Optimizer) -> Iterator[Tensor]:
    """Learn the next number from 1…7 once, as the book does: one optimizer step per number, one `next` per step.

    Nothing is remembered at first. The state goes on from number to number, but no gradient goes back through it
    (backpropagation through time, cut after one step).

    Args:
        model: takes a sequence and a state or None, returns outputs and the new state.
        optimizer: of its parameters.

    Yields:
        0-d tensor, the squared error of each step.
    """
    parameter = next(model.parameters())
    inputs, targets = (numbers.to(parameter) for numbers in next_numbers())
    state = None
    for x, target in zip(inputs.unbind(1), targets.unbind(1), strict=True):
        optimizer.zero_grad()
        output, state = model(x.unsqueeze(1), state)
        loss = mse(output.squeeze(1), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        state = state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)
        yield loss.detach()


def train(model: nn.Module, optimizer: Optimizer, epochs: int) -> Iterator[Tensor]:
    """So many epochs of `train_epoch`; seven steps each.

    Args:
        model: takes a sequence and a state or None, returns outputs and the new state.
        optimizer: of its parameters.
        epochs: how often 1…7 are read.

    Yields:
        0-d tensor, the squared error of each step.
    """
    for _ in range(epochs):
        yield from train_epoch(model, optimizer)


@torch.no_grad()
def predict_next(model: nn.Module, numbers: Sequence[float] = (1, 2, 3, 4, 5, 6, 7, 8, 8)) -> Tensor:
    """What a model takes for the next number after each, the state going on from one to the next.

    The book reads 8 twice at the end (erratum E-25): the two answers differ, as the state has seen the first.

    Args:
        model: takes a sequence, returns outputs and a state.
        numbers: what it reads.

    Returns:
        (seq) tensor.
    """
    parameter = next(model.parameters())
    outputs: Tensor = model(parameter.new_tensor(numbers).reshape(1, -1, 1))[0]
    return outputs.flatten()


def require_sizes(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: naming the first of them.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"expected `{name}` of at least 1, got {size}")


def require_fit(x: Tensor, state: Tensor, inputs: int, hidden: int) -> None:
    """Refuse an input or a state that is not of a cell's sizes.

    Args:
        x: (..., inputs) tensor.
        state: (batch, hidden) tensor.
        inputs: numbers that the cell reads.
        hidden: numbers that it remembers.

    Raises:
        ValueError: naming the one that does not fit.
    """
    if x.shape[-1] != inputs:
        raise ValueError(f"expected `x` with {inputs} inputs, got {tuple(x.shape)}")
    if state.shape[1] != hidden:
        raise ValueError(f"expected `state` of {hidden} numbers, got {tuple(state.shape)}")
