"""Chapter 22: tables in files, all at once, in chunks, or mapped into memory.

Glossary
    chunk      some rows of a file that is too large to be held
    missing    an empty cell, or one of NA, NaN, N/A, null and ?, in capitals or not; it is read as NaN
    mapped     the operating system reads what is touched, when it is touched

Source: chapter 22 of the book; Shafranovich, RFC 4180 (2005), for what CSV is.

Differs from the book: a missing number is NaN, for `reference_models.transforms.impute`; a row that cannot be read is
an error that names file and line.
Does not handle: features that are text; other encodings than UTF-8, whose bytes an error shows as numbers.
"""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from reference_models.data import Samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MISSING = {"", "na", "nan", "n/a", "null", "?"}


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A table of numbers whose last column is the label.

    Attributes:
        path: of the file.
        header: whether its first row names the columns.
        classes: what stands in the last column for class 0, 1, …; without it labels are numbers.
        delimiter: between cells.
    """

    path: str | Path
    header: bool = True
    classes: tuple[str, ...] | None = None
    delimiter: str = ","

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, that of the label last; empty without a header.

        Raises:
            ValueError: the file is empty, or its first row cannot be read.
        """
        return tuple(next(self._rows(), (0, []))[1]) if self.header else ()

    def read(self) -> Samples:
        """Read everything.

        Returns:
            (row, feature) float32 inputs, and labels, int64 if they are classes and otherwise float32.

        Raises:
            ValueError: the file is empty, or a row cannot be read; the message has its line.
        """
        parts = list(self.chunks(1024))
        return Samples(torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts]))

    def chunks(self, rows: int) -> Iterator[Samples]:
        """Read some rows at a time, never holding more.

        Args:
            rows: how many; the last chunk may have fewer.

        Raises:
            ValueError: the file is empty, or a row cannot be read; the message has its line.
        """
        if rows < 1:
            raise ValueError(f"expected `rows` of at least 1, got {rows}")
        table = self._rows()
        if self.header:
            next(table, None)
        first = next(table, None)
        if first is None:
            raise ValueError(
                f"{self.path}: expected rows, got {'a header at most' if self.header else 'an empty file'}"
            )
        table = itertools.chain([first], table)
        while chunk := list(itertools.islice(table, rows)):
            inputs = [[self._number(cell, line) for cell in cells[:-1]] for line, cells in chunk]
            labels = [self._label(cells[-1], line) for line, cells in chunk]
            kind = torch.float32 if self.classes is None else torch.int64
            yield Samples(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels, dtype=kind))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Every row that is not blank, with the line that it ends at."""
        width = 0
        # A byte order mark, as spreadsheets write it, is no part of the first name.
        with open(self.path, encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            try:
                for cells in reader:
                    if not cells:
                        continue
                    width = width or len(cells)
                    if width < 2 or len(cells) != width:
                        expected = width if width > 1 else "a feature and a label, at least 2"
                        raise ValueError(f"{self.path}:{reader.line_num}: expected {expected} cells, got {len(cells)}")
                    yield reader.line_num, [cell.strip() for cell in cells]
            except csv.Error as error:
                raise ValueError(f"{self.path}:{reader.line_num}: expected CSV, got {error}") from error

    def _number(self, cell: str, line: int) -> float:
        if cell.lower() in _MISSING:
            return float("nan")
        try:
            return float(cell if "_" not in cell else "")
        except ValueError:
            raise ValueError(f"{self.path}:{line}: expected a number, got {cell!r}") from None

    def _label(self, cell: str, line: int) -> float:
        if self.classes is not None:
            if cell not in self.classes:
                raise ValueError(f"{self.path}:{line}: expected one of {', '.join(self.classes)}, got {cell!r}")
            return self.classes.index(cell)
        label = self._number(cell, line)
        if math.isnan(label):
            raise ValueError(f"{self.path}:{line}: expected a label, got {cell!r}")
        return label


class MappedDataset:
    """Rows of an .npy file that is mapped into memory, and their labels.

    Args:
        inputs: path of an .npy file, (row, ...).
        labels: (row) tensor; it is held.

    Raises:
        ValueError: it is no such file, or has not as many rows as there are labels.
    """

    def __init__(self, inputs: str | Path, labels: Tensor) -> None:
        try:
            self.inputs = np.load(inputs, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{inputs}: expected an array of numbers, got {error}") from error
        if self.inputs.shape[:1] != labels.shape[:1]:
            raise ValueError(f"{inputs}: expected {len(labels)} rows, one per label, got shape {self.inputs.shape}")
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        # A copy, since what is mapped cannot be written to.
        return torch.from_numpy(np.array(self.inputs[row])), self.labels[row]
