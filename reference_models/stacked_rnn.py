"""Chapters 15 and 16, named only: recurrent cells on top of each other, and in both directions.

Glossary
    cell       one step of a recurrent network: `ElmanCell`, `LSTMCell` or `GRUCell`
    ahead      from the first step to the last
    back       from the last step to the first
    mask       which steps of a sequence are real (batch, seq); the others only fill up a batch of unequal lengths

Source: Schuster and Paliwal, Bidirectional recurrent neural networks (1997); Graves, Mohamed and Hinton, Speech
recognition with deep recurrent neural networks (2013).

Does not handle: states from what was read before, dropout between layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reference_models.rnn import blank, require_sizes, unroll
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from reference_models.rnn import Cell


class Directions(nn.Module):
    """One cell that reads ahead, and perhaps another that reads back.

    Args:
        ahead: reads from the first step on.
        back: reads from the last step on, None for one direction alone.
    """

    def __init__(self, ahead: Cell, back: Cell | None = None) -> None:
        super().__init__()
        self.ahead, self.back = ahead, back

    @shapes("batch seq inputs, bool[batch seq] -> batch seq features")
    def forward(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read sequences.

        Args:
            sequence: (batch, seq, inputs) float tensor.
            mask: (batch, seq) bool tensor, false where nothing is to be read; all is by default.

        Returns:
            (batch, seq, hidden) states, 0 where nothing is read; of both cells next to each other if there are two.
        """
        seen, _ = unroll(self.ahead, sequence, None, mask)
        if self.back is not None:
            turned, _ = unroll(self.back, sequence.flip(1), None, None if mask is None else mask.flip(1))
            seen = torch.cat([seen, turned.flip(1)], 2)
        return blank(seen, mask)


class StackedRNN(nn.Module):
    """Layers of cells, each of which reads the states of the one below.

    Args:
        cell: makes a cell from how many numbers it reads and remembers, such as `LSTMCell`.
        inputs: numbers read at each step.
        hidden: numbers remembered by each cell.
        layers: how many.
        bidirectional: whether each reads in both directions.

    Raises:
        ValueError: there are no layers.
    """

    def __init__(
        self,
        cell: Callable[[int, int], Cell],
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        require_sizes(layers=layers)
        widths = [inputs] + [(1 + bidirectional) * hidden] * (layers - 1)
        self.layers = nn.ModuleList(
            Directions(cell(width, hidden), cell(width, hidden) if bidirectional else None) for width in widths
        )

    @shapes("batch seq inputs, bool[batch seq] -> batch seq features")
    def forward(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read sequences.

        Args:
            sequence: (batch, seq, inputs) float tensor.
            mask: (batch, seq) bool tensor, false where nothing is to be read; all is by default.

        Returns:
            (batch, seq, hidden) states of the last layer, of both directions next to each other if there are two.
        """
        for layer in self.layers:
            sequence = layer(sequence, mask)
        return sequence
