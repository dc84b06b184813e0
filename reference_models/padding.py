"""Chapter 22: sequences of different lengths in one batch.

Glossary
    padding    what fills a short sequence up
    mask       true where a number belongs to a sequence, false where it is padding
    bucket     sequences of about the same length, so that little padding is needed

Source: chapter 22 of the book.

Does not handle: several sequences in one row; batches by their number of tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@shapes("sequences.*: _seq *features -> batch seq *features, bool[batch seq]")
def pad_sequences(
    sequences: Sequence[Tensor], *, value: float = 0, longest: int | None = None, left: bool = False
) -> tuple[Tensor, Tensor]:
    """Make one tensor of sequences of different lengths.

    Args:
        sequences: at least one (seq, ...) tensor; all have the same dtype and the same axes after the first.
        value: of the padding.
        longest: cuts longer ones, at the end that would be padded; without it nothing is cut.
        left: whether padding goes before a sequence, so that all of them end together; else it goes after.

    Returns:
        (batch, seq, ...) tensor, and a (batch, seq) bool tensor that is true where a number belongs to a sequence.

    Raises:
        ValueError: there are no sequences, or they differ in dtype, or `longest` is negative.
    """
    if not sequences or (longest is not None and longest < 0):
        raise ValueError(f"expected `sequences` and a length of them, got {len(sequences)} of length {longest}")
    if len({sequence.dtype for sequence in sequences}) > 1:
        raise ValueError(f"expected `sequences` of one dtype, got {sorted({str(one.dtype) for one in sequences})}")
    kept = [_cut(sequence, longest, left) for sequence in sequences]
    width = max(map(len, kept))
    padded = sequences[0].new_full((len(kept), width, *sequences[0].shape[1:]), value)
    mask = torch.zeros(len(kept), width, dtype=torch.bool, device=padded.device)
    for row, sequence in enumerate(kept):
        place = slice(width - len(sequence), width) if left else slice(0, len(sequence))
        padded[row, place] = sequence
        mask[row, place] = True
    return padded, mask


def _cut(sequence: Tensor, longest: int | None, left: bool) -> Tensor:
    if longest is None or len(sequence) <= longest:
        return sequence
    return sequence[len(sequence) - longest :] if left else sequence[:longest]


def buckets(lengths: Sequence[int], batch: int, *, generator: torch.Generator | None = None) -> Iterator[list[int]]:
    """Group sequences of about the same length, in a random order of the groups and among equal lengths.

    Args:
        lengths: of each sequence.
        batch: sequences in a group; one group may have fewer.
        generator: where randomness comes from; torch's own by default.

    Yields:
        Numbers of the sequences of one group, the shortest first.

    Raises:
        ValueError: the groups are empty.
    """
    if batch < 1:
        raise ValueError(f"expected `batch` of at least 1, got {batch}")
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    ordered = sorted(shuffled, key=lambda row: lengths[row])
    groups = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    for number in torch.randperm(len(groups), generator=generator).tolist():
        yield groups[number]
