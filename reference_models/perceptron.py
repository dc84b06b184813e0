"""Chapter 2: neurons that fire or do not, the rule by which they learn, and the function that one alone can't learn.

Glossary
    x          inputs (…, inputs)
    y          the right answer, 0 or 1
    ŷ          the neuron's answer
    w, b       `weight` (inputs) and `bias` (); the neuron's threshold is -b
    θ          threshold of a McCulloch-Pitts neuron
    η          how far one mistake moves the weights, `lr`

Source: chapter 2 of the book; McCulloch and Pitts, A Logical Calculus of the Ideas Immanent in Nervous Activity (1943);
Rosenblatt, The Perceptron (1958).

Differs from the book: a perceptron fires above its threshold, not at it (`>`, erratum E-01; chapter 10 has both).
Neurons answer (…) instead of (…, 1), and so do the labels of a truth table.
Does not handle: several perceptrons side by side, the order in which samples are shown (they come as they are).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reference_models.activations import activation
from reference_models.data import Samples
from reference_models.mlp import Linear
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a function of two bits gives for 00, 01, 10 and 11.
TRUTH_TABLES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "NAND": (1, 1, 1, 0), "XOR": (0, 1, 1, 0)}


def truth_table(name: str) -> Samples:
    """All of a function of two bits: inputs (4, 2) and labels (4), float tensors of 0 and 1.

    Args:
        name: `AND`, `OR`, `NAND` or `XOR`.

    Raises:
        ValueError: there is no such function.
    """
    if name not in TRUTH_TABLES:
        raise ValueError(f"`name`: expected one of {', '.join(TRUTH_TABLES)}, got {name!r}")
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return Samples(inputs, torch.tensor(TRUTH_TABLES[name], dtype=torch.float32))


class McCullochPittsNeuron(nn.Module):
    """Counts the inputs that fire; one that inhibits forbids it to fire at all. It has nothing to learn.

    `McCullochPittsNeuron((1, 1), threshold=2)` is AND, with `threshold=1` it is OR; `McCullochPittsNeuron((-1,),
    threshold=0)` is NOT.

    Args:
        signs: 1 for each input that excites, -1 for each that inhibits.
        threshold: how many inputs have to excite.

    Raises:
        ValueError: a sign is neither 1 nor -1.
    """

    signs: Tensor

    def __init__(self, signs: Sequence[int] = (1, 1), *, threshold: int = 2) -> None:
        super().__init__()
        if not set(signs) <= {1, -1}:
            raise ValueError(f"`signs`: expected 1 and -1, got {tuple(signs)}")
        self.register_buffer("signs", torch.tensor(signs, dtype=torch.float32))
        self.threshold = threshold

    @shapes("*batch inputs -> *batch")
    def forward(self, x: Tensor) -> Tensor:
        """Fire or do not.

        Args:
            x: (..., inputs) float tensor of 0 and 1.

        Returns:
            (...) tensor of 0 and 1.
        """
        exciting = x @ (self.signs > 0).to(x.dtype)
        inhibiting = x @ (self.signs < 0).to(x.dtype)
        # y = 1 if Σ exciting ≥ θ and Σ inhibiting = 0, else 0
        return ((exciting >= self.threshold) & (inhibiting == 0)).to(x.dtype)


class Perceptron(nn.Module):
    """A neuron that learns which side of a plane its inputs lie on.

    Its answer is flat but for one jump, so there is no gradient to follow; the parameters have none.

    Args:
        inputs: numbers in.
    """

    def __init__(self, inputs: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(()), requires_grad=False)

    @shapes("*batch inputs -> *batch")
    def forward(self, x: Tensor) -> Tensor:
        """Fire or do not.

        Args:
            x: (..., inputs) float tensor.

        Returns:
            (...) tensor of 0 and 1.
        """
        # ŷ = 1 if Σᵢ wᵢ xᵢ + b > 0, else 0
        return (x @ self.weight + self.bias > 0).to(x.dtype)

    @torch.no_grad()
    @shapes("batch inputs, batch")
    def fit(self, inputs: Tensor, labels: Tensor, *, lr: float = 1.0, epochs: int = 100) -> list[int]:
        """Learn by Rosenblatt's rule: samples that are answered right change nothing. Goes on from where it is.

        Args:
            inputs: (batch, inputs) float tensor.
            labels: (batch) tensor of 0 and 1.
            lr: η.
            epochs: passes over the samples; fewer if one is without a mistake.

        Returns:
            The mistakes of each epoch. The last is 0 if the samples are learned.

        Raises:
            ValueError: a label is neither 0 nor 1.
        """
        wrong = labels[(labels != 0) & (labels != 1)]
        if len(wrong):
            raise ValueError(f"`labels`: expected 0 and 1, got {wrong[0].item():g}")
        history: list[int] = []
        while len(history) < epochs and (not history or history[-1]):
            history.append(sum(self._learn(x, y, lr) for x, y in zip(inputs, labels, strict=True)))
        return history

    def _learn(self, x: Tensor, y: Tensor, lr: float) -> bool:
        """Learn from one sample, and say whether it was mistaken."""
        error = y.to(x.dtype) - self(x)  # 1 if it should have fired, -1 if it should not
        if mistaken := bool(error):
            # w ← w + η (y - ŷ) x,  b ← b + η (y - ŷ)
            self.weight.add_(lr * error * x)
            self.bias.add_(lr * error)
        return mistaken

    def extra_repr(self) -> str:
        """Size, for `print(model)`."""
        return str(len(self.weight))


class XORNet(nn.Module):
    """Neurons in between bend the plane, so that XOR can be learned, by following gradients.

    Args:
        hidden: how many there are. The book draws 2, with which training often gets stuck.
        nonlinearity: name of the activation, as `reference_models.activations.activation` knows it.
    """

    def __init__(self, hidden: int = 8, nonlinearity: str = "tanh") -> None:
        super().__init__()
        self.hidden = Linear(2, hidden)
        self.activation = activation(nonlinearity)
        self.output = Linear(hidden, 1)

    @shapes("*batch inputs=2 -> *batch")
    def forward(self, x: Tensor) -> Tensor:
        """Say how sure it is that the answer is 1.

        Args:
            x: (..., 2) float tensor.

        Returns:
            (...) logits: positive where the answer is 1.
        """
        scores: Tensor = self.output(self.activation(self.hidden(x)))
        return scores.squeeze(-1)
