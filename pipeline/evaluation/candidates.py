"""The candidates of a tuned experiment, each with its trials: a row of tuning.parquet per seed."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from pipeline.evaluation.schemas import TuningNote
from pipeline.storage.digest import canonical_json

Row = dict[str, Any]
Metric = Literal["objective", "accuracy"]


class Candidate(NamedTuple):
    """One set of values, tried on every seed for one label."""

    label: str
    values: Row
    """Tuned key -> value."""
    trials: list[Row]
    better: str
    """Which of two objectives is better: lower or higher."""

    @property
    def chosen(self) -> bool:
        """Whether tables and figures show the runs of this candidate."""
        return self.trials[0]["chosen"]

    @property
    def diverged(self) -> int:
        """How many of its trainings diverged."""
        return sum(trial["diverged_at"] is not None for trial in self.trials)

    def mean(self, metric: Metric) -> float | None:
        """Return the mean of a column over the seeds; None if a training diverged or has no value."""
        found = [trial[metric] for trial in self.trials]
        return None if self.diverged or any(value is None or math.isnan(value) for value in found) else sum(found) / len(found)

    @property
    def merit(self) -> float:
        """By how much it is better than others, as `choose` ranks them; diverged ones are worst."""
        mean = self.mean("objective")
        return -math.inf if mean is None else mean if self.better == "higher" else -mean


def group_trials(trials: list[Row], keys: list[str], better: str) -> list[Candidate]:
    """Group rows, one per trial with a column for each tuned key, by label and values, in order of first appearance."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in trials:
        found.setdefault((row["label"], *(canonical_json(row[key]) for key in keys)), []).append(row)
    return [Candidate(rows[0]["label"], {key: rows[0][key] for key in keys}, rows, better) for rows in found.values()]


def candidates_of(table: pa.Table, note: TuningNote) -> list[Candidate]:
    """Group the trials in tuning.parquet by label and values: labels in order, values ascending."""
    groups = group_trials(table.to_pylist(), note.keys, note.better)
    place = {label: index for index, label in enumerate(note.choices)}
    return sorted(groups, key=lambda group: (place[group.label], [ascending(value) for value in group.values.values()]))


def ranked(candidates: list[Candidate]) -> list[Candidate]:
    """Sort candidates, the best first; of equal ones the chosen first, then the smaller."""
    return sorted(candidates, key=lambda group: (-group.merit, not group.chosen, [ascending(value) for value in group.values.values()]))


def ascending(value: Any) -> tuple[bool, float, str]:
    """Return the sort key of a tuned value: numbers by size, before other values by their text."""
    return (False, value, "") if isinstance(value, int | float) else (True, 0.0, value_text(value))


def is_number(value: Any) -> bool:
    """Return whether a tuned value is a number, no flag."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_text(value: Any) -> str:
    """Format a tuned value as it is written in a config."""
    if is_number(value):
        return f"{value:.10g}"
    return value if isinstance(value, str) else canonical_json(value)


def tuned_sentence(note: TuningNote) -> str:
    """Say which keys were tuned, among how many candidates and by what: a sentence for notes of tables and figures."""
    return f"Tuned: {', '.join(note.keys)}, {count_text(note)}, by {note.goal}."


def count_text(note: TuningNote) -> str:
    """Say how many candidates a label had: 4 values."""
    counts = sorted({choice["candidates"] for choice in note.choices.values()})
    noun = "value" if len(note.keys) == 1 else "candidate"
    return f"{'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} {noun}{'' if counts[-1] == 1 else 's'}"
