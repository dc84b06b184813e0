"""Chapter 16: cells with gates, which decide what is remembered and what forgotten.

Glossary
    x          what is read at one step (batch, inputs)
    h          the state that is seen (batch, hidden)
    c          the state that is kept, changed by gates alone (batch, hidden)
    [h, x]     both next to each other (batch, hidden + inputs)
    f, i, o    gates between 0 and 1: how much is kept, taken in, and shown
    g          candidate: what could be taken in
    r, z       the gates of the GRU: how much of h the candidate sees, and how much of h stays
    σ          the sigmoid, 1 / (1 + exp(-x))

Source: chapter 16 of the book; Hochreiter and Schmidhuber, Long short-term memory (1997), with the forget gate of Gers,
Schmidhuber and Cummins (2000); Cho et al., Learning phrase representations using RNN encoder-decoder (2014), whose gate
r torch applies after the weights; for the bias of the forget gate Jozefowicz, Zaremba and Sutskever (2015).

Differs from the book: the state goes on where the book's second variant starts afresh with every number, which makes it
no recurrent network at all (E-25); the losses it prints are not those of its own code, a first epoch sums up to about
160 and the hundredth to about 0.08 (E-24); whole batches of sequences are read, of unequal lengths too.
Does not handle: peepholes, projections, the GRU as first published (r before the weights), sequences without a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reference_models.initialization import uniform
from reference_models.mlp import Linear
from reference_models.rnn import blank, require_fit, require_sizes, unroll
from tensorscope import shapes


class LSTMCell(nn.Module):
    """One step of a long short-term memory: four layers of weighted sums over [h, x], with one bias each.

    torch keeps the same numbers in two weights and two biases; `from_torch` reads them.

    Args:
        inputs: numbers read at each step.
        hidden: numbers remembered.
        forget_bias: the forget gate's bias to begin with; 1 lets a fresh cell remember. Random by default.

    Raises:
        ValueError: there are none of either.
    """

    def __init__(self, inputs: int, hidden: int, *, forget_bias: float | None = None) -> None:
        super().__init__()
        require_sizes(inputs=inputs, hidden=hidden)
        self.inputs, self.hidden = inputs, hidden
        self.forget_gate = Linear(hidden + inputs, hidden)
        self.input_gate = Linear(hidden + inputs, hidden)
        self.candidate = Linear(hidden + inputs, hidden)
        self.output_gate = Linear(hidden + inputs, hidden)
        if forget_bias is not None:
            with torch.no_grad():
                self.forget_gate.bias.fill_(forget_bias)

    @classmethod
    def from_torch(
        cls, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None = None, bias_hh: Tensor | None = None
    ) -> LSTMCell:
        """The cell that computes what torch's does, as `LSTMCell.from_torch(*lstm.all_weights[0])`.

        Args:
            weight_ih: (4 hidden, inputs) float tensor: input gate, forget gate, candidate, output gate.
            weight_hh: (4 hidden, hidden) float tensor, in the same order.
            bias_ih: (4 hidden) float tensor; zeros by default.
            bias_hh: (4 hidden) float tensor, which is added to the other; zeros by default.

        Raises:
            ValueError: the sizes do not go together.
        """
        hidden, inputs = weight_hh.shape[1], weight_ih.shape[1]
        if {len(weight_ih), len(weight_hh)} != {4 * hidden}:
            raise ValueError(
                f"expected `weight_ih` and `weight_hh` of {4 * hidden} rows, got {len(weight_ih)} and {len(weight_hh)}"
            )
        cell = cls(inputs, hidden).to(weight_ih)
        weight = torch.cat([weight_hh, weight_ih], 1)
        bias = sum((each for each in (bias_ih, bias_hh) if each is not None), weight.new_zeros(4 * hidden))
        gates = (cell.input_gate, cell.forget_gate, cell.candidate, cell.output_gate)
        with torch.no_grad():
            for gate, rows, numbers in zip(gates, weight.chunk(4), bias.chunk(4), strict=True):
                gate.weight.copy_(rows)
                gate.bias.copy_(numbers)
        return cell

    @shapes("batch inputs, (batch hidden, batch hidden) -> batch hidden, batch hidden")
    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Read one step.

        Args:
            x: (batch, inputs) float tensor.
            state: h and c of the step before, both (batch, hidden).

        Returns:
            The new h and c.

        Raises:
            ValueError: the sizes are not those of the cell.
        """
        h, c = state
        require_fit(x, h, self.inputs, self.hidden)
        both = torch.cat([h, x], 1)
        # f = σ(W_f [h, x] + b_f),  i = σ(W_i [h, x] + b_i),  o = σ(W_o [h, x] + b_o)
        f = torch.sigmoid(self.forget_gate(both))
        i = torch.sigmoid(self.input_gate(both))
        o = torch.sigmoid(self.output_gate(both))
        # g = tanh(W_g [h, x] + b_g), the candidate
        g = torch.tanh(self.candidate(both))
        # c ← f ⊙ c + i ⊙ g
        c = f * c + i * g
        # h ← o ⊙ tanh c
        return o * torch.tanh(c), c

    @shapes("batch inputs -> batch hidden, batch hidden")
    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The state before anything was read.

        Args:
            x: (batch, inputs) float tensor, for its batch, dtype and device.
        """
        return x.new_zeros(len(x), self.hidden), x.new_zeros(len(x), self.hidden)


class LSTM(nn.Module):
    """The book's network: an LSTM cell and a weighted sum of its h; with the defaults 1 781 parameters.

    Args:
        inputs: numbers read at each step.
        hidden: numbers remembered.
        outputs: numbers said at each step.
        forget_bias: the forget gate's bias to begin with; random by default.
    """

    def __init__(
        self, inputs: int = 1, hidden: int = 20, outputs: int = 1, *, forget_bias: float | None = None
    ) -> None:
        super().__init__()
        self.cell = LSTMCell(inputs, hidden, forget_bias=forget_bias)
        self.output = Linear(hidden, outputs)

    @shapes(
        "batch seq inputs, (batch hidden, batch hidden), bool[batch seq]"
        " -> batch seq outputs, (batch hidden, batch hidden)"
    )
    def forward(
        self, sequence: Tensor, state: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read sequences.

        Args:
            sequence: (batch, seq, inputs) float tensor.
            state: h and c from what was read before, both (batch, hidden); zeros by default.
            mask: (batch, seq) bool tensor, false where nothing is to be read; all is by default.

        Returns:
            (batch, seq, outputs) what is said, 0 where nothing is read, and the last h and c.

        Raises:
            ValueError: the sequences have no steps, or sizes that are not the network's.
        """
        hidden, state = unroll(self.cell, sequence, state, mask)
        return blank(self.output(hidden), mask), state


class GRUCell(nn.Module):
    """One step of a gated recurrent unit, with torch's names and sizes for its parameters.

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
        # Three of each on top of each other: for r, for z, for the candidate.
        self.weight_ih = nn.Parameter(uniform(3 * hidden, inputs, bound=bound))
        self.weight_hh = nn.Parameter(uniform(3 * hidden, hidden, bound=bound))
        self.bias_ih = nn.Parameter(uniform(3 * hidden, bound=bound))
        self.bias_hh = nn.Parameter(uniform(3 * hidden, bound=bound))

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
        x_r, x_z, x_g = (x @ self.weight_ih.T + self.bias_ih).chunk(3, 1)
        h_r, h_z, h_g = (state @ self.weight_hh.T + self.bias_hh).chunk(3, 1)
        # r = σ(W_r x + U_r h + b_r),  z = σ(W_z x + U_z h + b_z)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        # g = tanh(W_g x + b_g + r ⊙ (U_g h + d_g))
        g = torch.tanh(x_g + r * h_g)
        # h ← (1 - z) ⊙ g + z ⊙ h
        return (1 - z) * g + z * state

    @shapes("batch inputs -> batch hidden")
    def start(self, x: Tensor) -> Tensor:
        """The state before anything was read.

        Args:
            x: (batch, inputs) float tensor, for its batch, dtype and device.
        """
        return x.new_zeros(len(x), self.weight_hh.shape[1])


class GRU(nn.Module):
    """A GRU cell and a weighted sum of its state.

    Args:
        inputs: numbers read at each step.
        hidden: numbers remembered.
        outputs: numbers said at each step.
    """

    def __init__(self, inputs: int = 1, hidden: int = 20, outputs: int = 1) -> None:
        super().__init__()
        self.cell = GRUCell(inputs, hidden)
        self.output = Linear(hidden, outputs)

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
