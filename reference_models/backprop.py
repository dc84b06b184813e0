"""Chapter 9: backpropagation by hand, one formula a line.

Glossary
    x, y       inputs and targets (batch, 1)
    W₁, b₁     `weight1` (hidden, 1) and `bias1` (hidden)
    W₂, b₂     `weight2` (1, hidden) and `bias2` (1)
    z₁, a₁     hidden sums before and after the rectifier (batch, hidden)
    ŷ          output (batch, 1)
    L          loss, the mean of ½(ŷ - y)²
    dθ         ∂L/∂θ
    n          samples in the batch
    η          learning rate, `lr`

Source: chapter 9 of the book; Rumelhart, Hinton and Williams, Learning representations by back-propagating errors
(1986).

Differs from the book: the loss is the one whose gradients these are, ½ of the mean squared error that the book prints
(erratum E-10); biases have one axis (E-11); an epoch goes through a permutation, the short last batch included, instead
of drawing with replacement (E-12); the 1/n is in dŷ already. With the book's 2 hidden neurons most seeds fail: a
rectifier dies, or the line keeps a kink (E-13); 8 are reliable.
Does not handle: more layers, other activations, gradients of the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference_models.activations import ReLU
from reference_models.data import Samples
from reference_models.initialization import uniform
from reference_models.losses import mse
from tensorscope import shapes


def noisy_line(count: int = 1000, generator: torch.Generator | None = None) -> Samples:
    """The book's points: x in [-5, 5) and y = 2x + 1, up to 0.1 too low or too high, (count, 1) each.

    Args:
        count: how many.
        generator: where they come from; torch's own by default.
    """
    x = uniform(count, 1, bound=5.0, generator=generator)
    return Samples(x, 2 * x + 1 + uniform(count, 1, bound=0.1, generator=generator))


@shapes("batch outputs, batch outputs ->")
def half_mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half of the mean squared error.

    Args:
        outputs: (batch, outputs) float tensor.
        targets: (batch, outputs) float tensor.
    """
    # L = 1/n Σᵢ ½(ŷᵢ - yᵢ)²
    return mse(outputs, targets) / 2


class TwoLayerNet(nn.Module):
    """A hidden layer with a rectifier and an output, 1→hidden→1, that find their gradients themselves: 7 parameters.

    Args:
        hidden: hidden neurons.
    """

    def __init__(self, hidden: int = 2) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(uniform(hidden, 1, bound=0.1))
        self.bias1 = nn.Parameter(torch.zeros(hidden))
        self.weight2 = nn.Parameter(uniform(1, hidden, bound=0.1))
        self.bias2 = nn.Parameter(torch.zeros(1))
        self.relu = ReLU()
        self._kept: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @shapes("batch inputs=1 -> batch outputs=1")
    def forward(self, x: Tensor) -> Tensor:
        """Predict, and keep what `backward` needs. Autograd can go through it, too.

        Args:
            x: (batch, 1) float tensor.
        """
        # z₁ = x W₁ᵀ + b₁
        z1 = x @ self.weight1.T + self.bias1
        # a₁ = max(z₁, 0)
        a1: Tensor = self.relu(z1)
        # ŷ = a₁ W₂ᵀ + b₂
        outputs: Tensor = a1 @ self.weight2.T + self.bias2
        self._kept = x.detach(), z1.detach(), a1.detach(), outputs.detach()
        return outputs

    @torch.no_grad()
    @shapes("batch outputs=1 ->")
    def backward(self, targets: Tensor) -> Tensor:
        """Add the gradients of ½·MSE for the last batch to every parameter's `grad`, and forget the batch.

        Args:
            targets: (batch, 1) float tensor.

        Returns:
            0-d loss.

        Raises:
            RuntimeError: nothing has gone forward since the last time.
            ValueError: there are not as many targets as outputs.
        """
        if self._kept is None:
            raise RuntimeError("backward has nothing to go back through: call the model on a batch first")
        x, z1, a1, outputs = self._kept
        if len(targets) != len(outputs):
            raise ValueError(f"`targets`: expected {len(outputs)} as there are outputs, got {len(targets)}")
        # dŷ = ∂L/∂ŷ = (ŷ - y) / n
        d_outputs = (outputs - targets) / max(len(x), 1)
        # dW₂ = dŷᵀ a₁
        _add_gradient(self.weight2, d_outputs.T @ a1)
        # db₂ = Σᵢ dŷᵢ
        _add_gradient(self.bias2, d_outputs.sum(0))
        # da₁ = dŷ W₂
        d_a1 = d_outputs @ self.weight2
        # dz₁ = da₁ ⊙ 1[z₁ > 0]; chosen rather than multiplied, since 0 · ∞ is not a number.
        d_z1 = torch.where(z1 <= 0, 0, d_a1)
        # dW₁ = dz₁ᵀ x
        _add_gradient(self.weight1, d_z1.T @ x)
        # db₁ = Σᵢ dz₁ᵢ
        _add_gradient(self.bias1, d_z1.sum(0))
        self._kept = None
        return half_mse(outputs, targets)

    def gradient_norms(self) -> dict[str, Tensor]:
        """Length of each parameter's gradient, by the parameter's name: 0-d tensors.

        Raises:
            RuntimeError: a parameter has no gradient.
        """
        norms: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            if parameter.grad is None:
                raise RuntimeError(f"`{name}` has no gradient: call `backward` first")
            # ‖dθ‖ = √Σ dθ²
            norms[name] = parameter.grad.square().sum().sqrt()
        return norms

    @torch.no_grad()
    def step(self, lr: float = 0.01) -> None:
        """Move every parameter that has a gradient down it.

        Args:
            lr: η.
        """
        for parameter in self.parameters():
            if parameter.grad is not None:
                # θ ← θ - η dθ
                parameter.sub_(lr * parameter.grad)

    @torch.no_grad()
    def train_epoch(
        self, samples: Samples, *, lr: float = 0.01, batch: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """See each sample once, one step per batch.

        Args:
            samples: inputs and targets, (sample, 1) each.
            lr: η.
            batch: samples per step, fewer in the last if they do not divide; all at once by default.
            generator: shuffles them; in order without one.

        Returns:
            0-d mean of the samples' losses, each before its step; NaN if there are none.
        """
        if batch is not None and batch < 1:
            raise ValueError(f"`batch`: expected at least 1, got {batch}")
        total = torch.zeros_like(self.bias2[0])
        for part in samples.batches(batch or max(len(samples), 1), generator):
            self.zero_grad()
            self(part.inputs)
            total += self.backward(part.labels) * len(part)
            self.step(lr)
        return total / len(samples)


def _add_gradient(parameter: nn.Parameter, gradient: Tensor) -> None:
    """As autograd does: gradients add up until somebody sets them to None."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
