"""Find the test rows that also occur in training: row by row if training rows are stored, else from what the task states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.config.spec_files import load_component, read_spec
from pipeline.evaluation.measurements.base import Measurement
from pipeline.evaluation.points import metadata_columns
from pipeline.storage.arrow import to_numpy
from pipeline.storage.manifest import verify
from pipeline.storage.tables import open_parquet
from pipeline.tasks.base import canonical_hash, mix

if TYPE_CHECKING:
    from pipeline.evaluation.schemas import Note

Row = dict[str, Any]
Place = tuple[Any, ...]
CONTENT = ("tokens", "values")
"""The columns of a dataset that a network reads."""
BATCH = 16_384
MOST = 4
"""Most points that a sentence lists one by one."""


class Overlaps:
    """Compares datasets of a results folder: each is read once and each pair compared once, however many runs and seeds share them."""

    def __init__(self, results: Path) -> None:
        self.datasets = results / "datasets"
        self.sentences: list[str] = []
        """What tasks state about rows that cannot be compared, in the sentences of their datasets' cards."""
        self._hashes: dict[str, np.ndarray] = {}
        self._pairs: dict[tuple[str, str], np.ndarray] = {}

    def shares(self, run: Row, evaluation: pa.Table, measurement: Measurement) -> dict[Place, float | None]:
        """Return, for every point of an evaluation, the share of its rows that also occur in the run's training; None if unknown.

        Raises MissingFileError or CorruptFileError, naming the file, if a dataset is missing or not intact.
        """
        train = run["data"]["train"]
        in_training = np.full(len(evaluation), np.nan)
        owner, row = (np.array(evaluation.column(name).to_pylist()) for name in ("dataset", "row"))
        for dataset in dict.fromkeys(owner.tolist()):
            in_training[owner == dataset] = self._in_training(dataset, train)[row[owner == dataset]]
        names = metadata_columns(evaluation, measurement)
        columns = [evaluation.column(name).to_pylist() for name in names]
        places: dict[Place, list[float]] = {}
        for place, value in zip(zip(*columns, strict=True) if names else [()] * len(evaluation), in_training.tolist(), strict=True):
            places.setdefault(place, []).append(value)
        return {place: None if np.isnan(values).any() else float(np.mean(values)) for place, values in places.items()}

    def _in_training(self, test: str, train: str | None) -> np.ndarray:
        """Return 1 for every row of the test dataset that is also in the training dataset, 0 if not, NaN if unknown."""
        if train is not None:
            if (test, train) not in self._pairs:
                self._pairs[test, train] = np.isin(self._hash(test), self._hash(train)).astype(float)
            return self._pairs[test, train]
        spec = read_spec(self.datasets / test / "dataset.yaml", "dataset")
        sentence = load_component("task", spec["task"]).overlap
        self.sentences += [sentence] if sentence and sentence not in self.sentences else []
        return np.full(spec["rows"], np.nan if sentence else 0.0)

    def _hash(self, dataset: str) -> np.ndarray:
        """Return a 64-bit hash of what a network reads, for every row of a dataset."""
        if dataset not in self._hashes:
            folder = self.datasets / dataset
            inputs = load_component("task", read_spec(folder / "dataset.yaml", "dataset")["task"]).inputs
            self._hashes[dataset] = np.concatenate([_hash_file(folder / name, inputs) for name in verify(folder)["files"]])
        return self._hashes[dataset]


def _hash_file(path: Path, inputs: Sequence[str]) -> np.ndarray:
    """inputs: metadata columns that networks read too, such as the puzzle that an ARC grid belongs to."""
    parts = [np.empty(0, np.uint64)]
    with open_parquet(path, page_checksum_verification=True) as file:
        columns = [name for name in CONTENT if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH, columns=[*columns, *inputs], use_threads=False):
            first, *others = [_hash_lists(batch.column(name)) for name in columns]
            others += [to_numpy(batch.column(name)).astype(np.uint64) for name in inputs]
            parts.append(sum(map(mix, others), first))
    return np.concatenate(parts)


def _hash_lists(lists: Any) -> np.ndarray:
    """Hash every list; floats by their bits."""
    values, lengths = to_numpy(lists.flatten()), to_numpy(lists.value_lengths()).astype(np.int64)
    bits = values.view(np.uint32) if values.dtype.kind == "f" else values
    return canonical_hash(bits.astype(np.uint64), lengths, lengths)


def overlap_sentence(note: Note, rows: list[Row]) -> str:
    """Describe which test rows also occur in training, in a sentence or two; empty if nothing is known.

    note, rows: those of results.parquet, with names instead of indices for categories.
    """
    if note.overlap is None or not rows:
        return ""
    example = note.measurement.example
    places: dict[Place, list[float | None]] = {}
    for row in rows:
        places.setdefault(tuple(row[name] for name in note.points), []).append(row["in_training"])
    shares = {place: max(found) for place, values in places.items() if (found := [value for value in values if value is not None])}
    unknown = [f"Training draws its {example}s as a stream. {' '.join(note.overlap)}"] if note.overlap else []
    return " ".join([*_known(note.points, shares, example), *unknown])


def _known(points: list[str], shares: dict[Place, float], example: str) -> list[str]:
    """Describe the points whose share is known, in a sentence."""
    some = {place: share for place, share in shares.items() if share > 0}
    if not shares:
        return []
    if not some:
        return [f"No test {example} occurs in training."]
    if all(share == 1 for share in shares.values()):
        return [f"All test {example}s also occur in training."]
    if len(some) > MOST:
        low, high = (100 * end(shares.values()) for end in (min, max))
        return [f"Between {low:.3g} and {high:.3g} % of the test {example}s of a point also occur in training."]
    varying = [index for index in range(len(points)) if len({place[index] for place in shares}) > 1]
    names = {place: " ".join(f"{points[index]} {place[index]}" for index in varying) for place in some}
    listed = [": ".join(filter(None, [names[place], f"{100 * share:.3g} %"])) for place, share in some.items()]
    return [
        f"Share of test {example}s that also occur in training: {'; '.join(listed)}{'; elsewhere none' if len(some) < len(shares) else ''}."
    ]
