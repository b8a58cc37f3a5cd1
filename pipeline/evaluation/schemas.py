"""The tables that one stage writes and another reads: their columns, and a reader for each.

Every reader raises MissingFileError or CorruptFileError, one line naming the file, the column, what was found and what was expected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.base import filled
from pipeline.config.labels import Parts, as_parts
from pipeline.config.tasks.base import Column as Metadata
from pipeline.config.tasks.base import Glyph
from pipeline.evaluation.measurements import measurement_of
from pipeline.evaluation.measurements.base import COUNT, NUMBER, SHARE, Measurement
from pipeline.storage.errors import CorruptFileError
from pipeline.storage.seals import REMAKE
from pipeline.storage.table_schema import Column, Schema, check_table
from pipeline.storage.tables import read_table

SECONDS = Column("number", least=0)
TEXT = Column("text")
IDENTITY = {"experiment": TEXT, "run": TEXT, "label": TEXT, "variant": Column("text", null=True), "seed": COUNT}
KNOWN = {"step": COUNT, "rows": COUNT, "level": Column("whole", null=True, optional=True), "validation_accuracy": SHARE}
EXAMPLE = {"dataset": TEXT, "row": COUNT, "state_bytes": COUNT, "memory_bits": NUMBER}

HISTORY = Schema({**KNOWN, "validation_accuracy": SHARE._replace(optional=False)}, ("step",), NUMBER)
TIMING = Schema({"step": COUNT, "cpu_seconds": SECONDS, "wall_seconds": SECONDS}, ("step",))
PROFILE = Schema(
    {
        "context": COUNT,
        "parameters": COUNT,
        **dict.fromkeys(
            ("state_bytes", "training_batch", "training_length", "step_macs", "peak_bytes", "threads"), COUNT._replace(optional=True)
        ),
        **dict.fromkeys(("step_seconds", "training_tokens_per_second"), SECONDS._replace(optional=True)),
    },
    ("context",),
)
SIZE = Column("whole", null=True, least=0)
RESULTS = {**IDENTITY, "unit": TEXT, "solved": Column("flag", null=True), "parameters": SIZE, "state_bytes": SIZE, "memory_bits": NUMBER}
"""The columns of results.parquet other than the scores of its measurement."""
TABLES = {
    "curves": Schema({**IDENTITY, **KNOWN}, ("run", "label", "step")),
    "details": Schema(IDENTITY),
    "timing": Schema({**IDENTITY, **dict.fromkeys(("cpu_seconds", "wall_seconds"), NUMBER._replace(optional=False))}, ("run", "label")),
    "costs": Schema({**PROFILE.columns, "label": TEXT}),
}
"""The tables of an experiment's folder other than results.parquet."""
TUNING = Schema(
    {
        **{name: column for name, column in IDENTITY.items() if name != "variant"},
        "objective": NUMBER._replace(optional=False),
        "accuracy": SHARE._replace(optional=False),
        "rows": SIZE,
        "diverged_at": SIZE,
        "chosen": Column("flag"),
    },
    ("run", "label"),
)


def with_kind(table: pa.Table, measurement: Measurement, notes: dict[str, str] | None = None) -> pa.Table:
    """Record the measurement in the metadata of the table's schema."""
    return table.replace_schema_metadata({"measurement": json.dumps(filled(measurement)), **(notes or {})})


def evaluation_schema(measurement: Measurement) -> Schema:
    """Return the columns of an evaluation by this measurement; the task's metadata are integers."""
    return Schema({**EXAMPLE, **measurement.columns}, ("dataset", "row", *measurement.coordinates), Column("whole"))


def read_evaluation(path: Path, rows: dict[str, int] | None = None) -> tuple[pa.Table, Measurement]:
    """Read an evaluation, a row per example, and its measurement; `rows`: the expected number of rows per dataset."""
    table = read_table(path)
    try:
        measurement = measurement_of(json.loads((table.schema.metadata or {})[b"measurement"]))
    except (KeyError, ValueError, TypeError):
        raise CorruptFileError(f"{path}: no note of its kind of measurement; expected what 'pipeline evaluate' writes; {REMAKE}") from None
    check_table(path, table, evaluation_schema(measurement))
    measurement.check(path, table)
    counted = {item["values"]: item["counts"] for item in table.column("dataset").value_counts().to_pylist()}
    expected = None if rows is None else {name: count * measurement.per_example for name, count in rows.items()}
    if expected is not None and counted != expected:
        raise CorruptFileError(f"{path}: rows of {_counts(counted)}; expected {_counts(expected)}; {REMAKE}")
    return table, measurement


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in sorted(rows.items())) or "no dataset"


def read_history(path: Path) -> pa.Table:
    """Read a run's learning curve: a row per validation, steps ascending."""
    table = check_table(path, read_table(path), HISTORY)
    step = table.column("step").to_numpy()
    if (np.diff(step) <= 0).any():
        raise CorruptFileError(f"{path}: column step: not ascending; expected later validations after earlier ones; {REMAKE}")
    return table


def read_timing(path: Path, history: pa.Table) -> pa.Table:
    """Read a run's seconds: a row for each row of its history."""
    table = check_table(path, read_table(path), TIMING)
    if table.column("step").to_pylist() != history.column("step").to_pylist():
        raise CorruptFileError(f"{path}: column step: {len(table)} rows; expected the {len(history)} steps of history.parquet; {REMAKE}")
    return table


def read_profile(path: Path) -> pa.Table:
    """Read a network's profile: a row per context."""
    table = check_table(path, read_table(path), PROFILE)
    if not len(table):
        raise CorruptFileError(f"{path}: no rows; expected one per context; {REMAKE}")
    return table


class Note(NamedTuple):
    """Describes the columns of results.parquet, in its schema's metadata."""

    measurement: Measurement
    coordinates: list[str]
    """The swept keys."""
    points: list[str]
    """The metadata columns, which identify the points of an evaluation."""
    labels: dict[str, Parts]
    """The parts of every label."""
    columns: dict[str, Metadata]
    """The tasks' descriptions of each metadata column."""
    overlap: list[str] | None
    """Sentences on test rows that occur in training; None if nothing is known."""
    tuned: str = ""
    """A sentence on how the experiment was tuned; empty if it was not."""
    glyphs: tuple[Glyph, ...] = ()
    """How the task's cells are drawn, by token."""
    boxes: Mapping[int, tuple[int, int]] = {}
    """Rows and columns of the boxes of the task's grids, by side."""

    @classmethod
    def of(cls, metadata: dict[bytes, bytes] | None) -> Note:
        """Parse a schema's metadata. Raises KeyError, ValueError or TypeError if it holds no valid note."""
        block = json.loads((metadata or {})[b"recurlab"])
        labels = {label: as_parts(parts) for label, parts in block["labels"].items()}
        coordinates, points = list(block["coordinates"]), list(block["points"])
        columns = {name: Metadata(**{**column, "categories": tuple(column["categories"])}) for name, column in block["columns"].items()}
        glyphs = tuple(Glyph(*glyph) for glyph in block.get("glyphs", []))
        boxes = {side: (rows, columns) for side, rows, columns in block.get("boxes", [])}
        rest = block.get("overlap"), block.get("tuned", ""), glyphs, boxes
        return cls(measurement_of(block["measurement"]), coordinates, points, labels, columns, *rest)


def read_results(path: Path) -> tuple[pa.Table, Note]:
    """Read an experiment's results and the note on their columns."""
    table = read_table(path)
    try:
        note = Note.of(table.schema.metadata)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise CorruptFileError(
            f"{path}: no note of its coordinates and points; expected what 'pipeline collect' writes; {REMAKE}"
        ) from None
    check_table(path, table, Schema({**RESULTS, **note.measurement.score_columns()}))
    missing = [name for name in [*note.coordinates, *note.points] if name not in table.column_names]
    if missing:
        raise CorruptFileError(
            f"{path}: column {missing[0]}: missing, found {', '.join(table.column_names)}; expected a column per key; {REMAKE}"
        )
    points = {name: Column("whole", null=True) for name in note.points}
    return check_table(path, table, Schema(points, ("run", "label", *points))), note


def read_collected(path: Path) -> pa.Table:
    """Read another table of an experiment's folder: curves, details, timing or costs."""
    return check_table(path, read_table(path), TABLES[path.stem])


class TuningNote(NamedTuple):
    """Describes tuning.parquet, in its schema's metadata."""

    keys: list[str]
    """The tuned keys, a column each."""
    seeds: list[int]
    """The seeds that every candidate was tried on."""
    objective: str
    """The history column by which values were chosen."""
    better: str
    """Which of two objectives is better: lower or higher."""
    labels: dict[str, Parts]
    """The parts of every label."""
    choices: dict[str, dict[str, Any]]
    """Label -> `values` chosen, number of `candidates`, and `edge`: the keys whose value is the smallest or largest tried."""

    @property
    def goal(self) -> str:
        """The objective in words: validation loss."""
        return self.objective.replace("_", " ")

    @classmethod
    def of(cls, metadata: dict[bytes, bytes] | None) -> TuningNote:
        """Parse a schema's metadata. Raises KeyError, ValueError or TypeError if it holds no valid note."""
        block = json.loads((metadata or {})[b"recurlab"])
        (objective, better), labels = block["objective"], {label: as_parts(parts) for label, parts in block["labels"].items()}
        choices = {label: {key: choice[key] for key in ("values", "candidates", "edge")} for label, choice in block["choices"].items()}
        return cls(list(block["keys"]), list(block["seeds"]), objective, better, labels, choices)


def read_tuning(path: Path) -> tuple[pa.Table, TuningNote]:
    """Read what a tuned experiment tried, a row per trial, and the note on its columns."""
    table = read_table(path)
    try:
        note = TuningNote.of(table.schema.metadata)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise CorruptFileError(f"{path}: no note of its tuned keys; expected what 'pipeline choose' writes; {REMAKE}") from None
    check_table(path, table, TUNING)
    for name in note.keys:
        if name not in table.column_names:
            raise CorruptFileError(
                f"{path}: column {name}: missing, found {', '.join(table.column_names)}; expected a column per key; {REMAKE}"
            )
    unknown = sorted(set(table.column("label").to_pylist()) ^ set(note.choices))
    if unknown:
        raise CorruptFileError(f"{path}: column label: {unknown[0]!r} has trials or a choice only; expected both; {REMAKE}")
    return table, note
