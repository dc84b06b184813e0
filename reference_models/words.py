"""Chapter 22: text as numbers, one per word, and what other texts say the words mean.

Glossary
    <PAD>      number 0: no word, only there to make texts equally long
    <UNK>      number 1: a word that the vocabulary does not know
    GloVe      vectors for words, learned elsewhere from which words stand near each other

Source: chapter 22 of the book; Pennington, Socher and Manning, GloVe (2014), for the format.

Does not handle: punctuation (it stays at its word), capitals (they are other words), parts of words (chapter 16).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAD, UNKNOWN = 0, 1


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words and their numbers.

    Attributes:
        words: each in the place of its number; `<PAD>` and `<UNK>` are the first two.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], most: int | None = None) -> Vocabulary:
        """Collect words, the most frequent first, and of equally frequent ones the one that came first.

        Args:
            texts: of words between white space.
            most: how many words to know at most; all by default.
        """
        counts = Counter(word for text in texts for word in text.split())
        return cls(("<PAD>", "<UNK>", *(word for word, _ in counts.most_common(most))))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> Tensor:
        """Number the words of a text.

        Args:
            text: words between white space.

        Returns:
            (seq) int64 tensor.
        """
        numbers = {word: number for number, word in enumerate(self.words)}
        return torch.tensor([numbers.get(word, UNKNOWN) for word in text.split()], dtype=torch.int64)

    @shapes("numbers: seq")
    def decode(self, numbers: Tensor) -> str:
        """Write a text with one space between words, without padding.

        Args:
            numbers: (seq) int64 tensor.
        """
        return " ".join(self.words[number] for number in numbers.tolist() if number != PAD)


def read_texts(path: str | Path) -> list[str]:
    """Read the lines of a file that have words in them.

    Args:
        path: of a file in UTF-8.

    Raises:
        ValueError: it is not in UTF-8.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_glove(
    path: str | Path, words: Sequence[str], dim: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Read the vectors of some words.

    Args:
        path: of a file with a word and its vector per line.
        words: those that are wanted, such as `Vocabulary.words`.
        dim: numbers per vector.
        generator: where vectors of missing words come from; torch's own by default.

    Returns:
        (words, dim) float32 tensor, and a (words) bool tensor that says which were found. What the file does not have
        is drawn uniformly from ±0.05.

    Raises:
        ValueError: a line is no word with its vector.
    """
    places = {word: place for place, word in enumerate(words)}
    vectors = torch.empty(len(words), dim).uniform_(-0.05, 0.05, generator=generator)
    found = torch.zeros(len(words), dtype=torch.bool)
    with open(path, encoding="utf-8", newline="\n") as file:
        for line, text in enumerate(file, 1):
            # From the right, since some words of GloVe's have spaces in them.
            word, *numbers = text.rstrip("\r\n ").rsplit(" ", dim)
            if len(numbers) != dim or not word:
                raise ValueError(f"{path}:{line}: expected a word and {dim} numbers, got {len(numbers) + 1} cells")
            if word in places:
                try:
                    vectors[places[word]] = torch.tensor([float(number) for number in numbers])
                except ValueError as error:
                    raise ValueError(f"{path}:{line}: expected {dim} numbers, got {error}") from None
                found[places[word]] = True
    return vectors, found
