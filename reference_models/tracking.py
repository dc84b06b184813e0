"""Chapter 28: what was tried, written down so that it can be compared, and repeated.

    tracker = Tracker(Path("runs"))
    if tracker.find(config, seed) is None:
        tracker.save(train(config, seed))
    for record in tracker.top(5): ...

Each training is a JSON file of its own, named after config and seed, so that a search that was interrupted goes on
where it stopped, and several processes may write into one folder.

Glossary
    record       one training: what went in, the curves that came out
    curve        a number after each epoch, by name
    score        the best value of the validation curve

Source: chapter 28 of the book.

Differs from the book: runs are sorted by their best *validation* score, which the test set has no part in, and a
perplexity's best is its smallest (erratum E-56).
Does not handle: statistics of weights and activations, memory, time of inference (a traced run has them).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reference_models.search import rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reference_models.search import Mode
    from reference_models.spaces import Config


def environment() -> dict[str, str]:
    """What else the numbers of a training depend on: versions and hardware."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }


@dataclass(frozen=True, slots=True)
class Record:
    """A training that was done.

    Attributes:
        config: what was chosen for it.
        seed: of weights and order.
        curves: a number per epoch, by name.
        watched: name of the curve whose best value is the score.
        seconds: that it took.
        environment: versions, hardware, the data.
    """

    config: Config
    seed: int
    curves: Mapping[str, list[float]]
    watched: str = "validation_accuracy"
    seconds: float = math.nan
    environment: Mapping[str, str] = field(default_factory=environment)

    def best_epoch(self, mode: Mode = "max") -> int:
        """The epoch of the best score, the first of several.

        Raises:
            ValueError: there was no epoch.
        """
        curve = self.curves[self.watched]
        if not curve:
            raise ValueError(f"expected at least one epoch of `{self.watched}`, got none")
        return min(range(len(curve)), key=lambda epoch: rank(curve[epoch], mode))

    def score(self, mode: Mode = "max") -> float:
        """The best score; NaN if no epoch had one."""
        return self.curves[self.watched][self.best_epoch(mode)] if self.curves[self.watched] else math.nan


def ordered(records: Iterable[Record], mode: Mode = "max") -> list[Record]:
    """The best record first; equal ones stay in their order."""
    return sorted(records, key=lambda record: rank(record.score(mode), mode))


def table(records: Sequence[Record], mode: Mode = "max") -> list[list[str]]:
    """Records as rows of text below a row of headings; what all of them have in common is left out.

    Args:
        records: the rows, in their order.
        mode: whether small or large scores are good.
    """
    names = dict.fromkeys(name for record in records for name in record.config)
    differing = [name for name in names if len({str(record.config.get(name)) for record in records}) > 1]
    rows = [["rank", *differing, "seed", "score", "epoch", "seconds"]]
    for place, record in enumerate(records, 1):
        chosen = [_text(record.config.get(name, "")) for name in differing]
        epoch = str(record.best_epoch(mode)) if record.curves[record.watched] else ""
        rows.append([str(place), *chosen, str(record.seed), _text(record.score(mode)), epoch, f"{record.seconds:.1f}"])
    return rows


class Tracker:
    """The records in a folder.

    Args:
        folder: where they are; made if it is not there.
        mode: whether small or large scores are good.
    """

    def __init__(self, folder: Path | str, mode: Mode = "max") -> None:
        rank(0.0, mode)  # says what is wrong with the mode, before a training has been wasted on it
        self.folder, self.mode = Path(folder), mode
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, record: Record) -> Path:
        """Write a record, in place of one with the same config and seed.

        Raises:
            ValueError: config or environment hold what JSON does not know.
        """
        path = self._path(record.config, record.seed)
        fields = asdict(record)
        fields["curves"] = {name: [_plain(x) for x in curve] for name, curve in record.curves.items()}
        fields["seconds"] = _plain(record.seconds)
        # A file appears under its name only when it is whole, whatever happens meanwhile.
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".part", delete=False, encoding="utf-8") as file:
            try:
                json.dump(fields, file, indent=1, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:  # Ctrl-C too leaves no half file behind, and goes on
                Path(file.name).unlink()
                raise
        os.replace(file.name, path)
        return path

    def find(self, config: Config, seed: int) -> Record | None:
        """The record with this config and seed, if there is one."""
        path = self._path(config, seed)
        return _read(path) if path.exists() else None

    def records(self) -> list[Record]:
        """All records, in the order of their files' names."""
        return [_read(path) for path in sorted(self.folder.glob("*.json"))]

    def top(self, count: int = 5) -> list[Record]:
        """The best records, the best first.

        Args:
            count: at most how many.
        """
        return ordered(self.records(), self.mode)[:count]

    def _path(self, config: Config, seed: int) -> Path:
        content = json.dumps([config, seed], sort_keys=True, allow_nan=False)
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Record:
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        fields["config"] = {name: tuple(x) if isinstance(x, list) else x for name, x in fields["config"].items()}
        fields["curves"] = {name: [float(x) for x in curve] for name, curve in fields["curves"].items()}
        fields["seconds"] = float(fields["seconds"])
        return Record(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"expected a record of a training in {path}, got something else: {error}") from error


def _plain(x: float) -> float | str:
    """A number as JSON knows it; the others by name, which `float` reads back."""
    return x if math.isfinite(x) else str(x)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
