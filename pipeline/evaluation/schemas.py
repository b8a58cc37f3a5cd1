"""The tables that one stage writes and another reads: their columns, and the one way to read each.

Every reader raises MissingFileError or CorruptFileError, one line naming the file, the column, what was found and what was expected.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.storage.errors import CorruptFileError
from pipeline.storage.seals import REMAKE
from pipeline.storage.table_schema import Column, Schema, check_table
from pipeline.storage.tables import read_table

COUNT = Column("whole", least=0)
SHARE = Column("number", null=True, optional=True, least=0, most=1)
NUMBER = Column("number", null=True, optional=True)
SECONDS = Column("number", least=0)
TEXT = Column("text")
IDENTITY = {"experiment": TEXT, "run": TEXT, "label": TEXT, "variant": Column("text", null=True), "seed": COUNT}
KNOWN = {"step": COUNT, "rows": COUNT, "level": Column("whole", null=True, optional=True), "validation_accuracy": SHARE}

TOKENS = {name: COUNT for name in ("tokens", "scored", "correct")} | {"loss": Column("number", null=True), "hits": Column("list")}
FREE = {"outcome": TEXT, "exact": Column("flag"), "first_error": Column("whole", null=True, least=0)}
FREE |= {name: COUNT for name in ("continuation", "queries", "valid_queries")}
PLAYED = {"success": Column("whole", least=0, most=1), "return": Column("number"), "episode_length": COUNT}
PLAYED |= {"best": NUMBER, "frames": Column("bytes", null=True, optional=True), "frames_shape": Column("list", null=True, optional=True)}
EXAMPLE = {"dataset": TEXT, "row": COUNT, "state_bytes": COUNT, "memory_bits": Column("number", optional=True)}

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
RETURNS = ("return", "return_low", "return_high", "return_lowest", "return_highest", "best_return")
SCORES = {
    **dict.fromkeys(("accuracy", "sequence_accuracy", "chance"), SHARE._replace(optional=False)),
    **{f"{name}_{end}": SHARE for name in ("accuracy", "forced_accuracy") for end in ("low", "high")},
    **dict.fromkeys(("forced_accuracy", "no_answer", "exact", "valid_queries"), SHARE),
    **dict.fromkeys(("loss", "baseline", "loss_over_baseline", "bits", "tokens"), NUMBER._replace(optional=False)),
    **dict.fromkeys((*RETURNS, "episode_length", "memory_bits", "first_error"), NUMBER),
    **dict.fromkeys(("scored", "parameters", "state_bytes"), Column("whole", null=True, least=0)),
    "episode_limit": Column("whole", null=True, optional=True, least=0),
}
RESULTS = Schema({**IDENTITY, "rows": COUNT, "unit": TEXT, "solved": Column("flag", null=True), **SCORES})
TABLES = {
    "curves": Schema({**IDENTITY, **KNOWN}, ("run", "label", "step")),
    "positions": Schema({**IDENTITY, "position": COUNT._replace(optional=True), "accuracy": SHARE}),
    "episodes": Schema({**IDENTITY, "frames": Column("bytes", optional=True)}),
    "timing": Schema({**IDENTITY, **dict.fromkeys(("cpu_seconds", "wall_seconds"), NUMBER._replace(optional=False))}, ("run", "label")),
    "costs": Schema({**PROFILE.columns, "label": TEXT}),
}
"""The tables of an experiment's folder beside results.parquet."""


def read_evaluation(path: Path, rows: dict[str, int] | None = None) -> pa.Table:
    """An evaluation: a row per example; `rows` says how many of each dataset there must be."""
    table = read_table(path)
    played = "success" in table.column_names
    columns = {**EXAMPLE, **(PLAYED if played else TOKENS), **(FREE if "outcome" in table.column_names else {})}
    check_table(path, table, Schema(columns, ("dataset", "row"), Column("whole")))
    if not played:
        _check_hits(path, table)
    counted = {item["values"]: item["counts"] for item in table.column("dataset").value_counts().to_pylist()}
    if rows is not None and counted != rows:
        raise CorruptFileError(f"{path}: rows of {_counts(counted)}; expected {_counts(rows)}; {REMAKE}")
    return table


def _check_hits(path: Path, table: pa.Table) -> None:
    """What is said of each row's scored positions agrees."""
    lists = table.column("hits").combine_chunks()
    scored, correct = (table.column(name).to_numpy() for name in ("scored", "correct"))
    hits = lists.flatten().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(hits, dtype=np.int64)])[np.cumsum([0, *lists.value_lengths().to_pylist()])]
    for name, found, said in (("scored", lists.value_lengths().to_numpy(), scored), ("correct", np.diff(ends), correct)):
        wrong = np.flatnonzero(found != said)
        if len(wrong):
            row = wrong[0]
            raise CorruptFileError(f"{path}: column {name}: {said[row]} in row {row}; expected {found[row]}, as hits say; {REMAKE}")


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in sorted(rows.items())) or "no dataset"


def read_history(path: Path) -> pa.Table:
    """A run's learning curve: a row per validation, steps ascending."""
    table = check_table(path, read_table(path), HISTORY)
    step = table.column("step").to_numpy()
    if (np.diff(step) <= 0).any():
        raise CorruptFileError(f"{path}: column step: not ascending; expected later validations after earlier ones; {REMAKE}")
    return table


def read_timing(path: Path, history: pa.Table) -> pa.Table:
    """A run's seconds: a row for each of its history's."""
    table = check_table(path, read_table(path), TIMING)
    if table.column("step").to_pylist() != history.column("step").to_pylist():
        raise CorruptFileError(f"{path}: column step: {len(table)} rows; expected the {len(history)} steps of history.parquet; {REMAKE}")
    return table


def read_profile(path: Path) -> pa.Table:
    """What a network costs: a row per context."""
    table = check_table(path, read_table(path), PROFILE)
    if not len(table):
        raise CorruptFileError(f"{path}: no rows; expected one per context; {REMAKE}")
    return table


def read_results(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """An experiment's results, and the note that tells which columns are coordinates and points."""
    table = check_table(path, read_table(path), RESULTS)
    try:
        note = json.loads((table.schema.metadata or {})[b"recurlab"])
        needed = [*note["coordinates"], *note["points"]]
    except (KeyError, ValueError, TypeError):
        raise CorruptFileError(
            f"{path}: no note of its coordinates and points; expected what 'pipeline collect' writes; {REMAKE}"
        ) from None
    points = {name: Column("whole", null=True) for name in note["points"]}
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise CorruptFileError(
            f"{path}: column {missing[0]}: missing, found {', '.join(table.column_names)}; expected a column per key; {REMAKE}"
        )
    return check_table(path, table, Schema(points, ("run", "label", *points))), note


def read_collected(path: Path) -> pa.Table:
    """Another table of an experiment's folder: curves, positions, episodes, timing or costs."""
    return check_table(path, read_table(path), TABLES[path.stem])
