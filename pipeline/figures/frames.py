"""The collected tables of an experiment as data frames for figures, and statistics over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.config.figures import Figure
from pipeline.config.labels import Parts, display_names, label_of
from pipeline.evaluation import schemas
from pipeline.evaluation.candidates import Candidate, Metric, candidates_of
from pipeline.evaluation.measurements.base import Measurement, Score
from pipeline.evaluation.overlap import overlap_sentence
from pipeline.evaluation.schemas import Note, TuningNote
from pipeline.evaluation.series import line_labels, trained_sizes
from pipeline.evaluation.statistics import Summary, summarise_scores
from pipeline.figures.style import LineStyle, line_styles

SECONDS = Score("CPU seconds", unit="s", bounds=(0, None), better="lower")
STEPS = Score("optimizer steps", bounds=(0, None), better="lower")
"""Scores of training, which no evaluation holds."""
LAYOUT = "task.layout"
"""If it is swept, each layout has a panel, and a label is a line in all of them."""
SUPERVISION = "supervision"
"""The coordinate of puzzles: supervision steps after which answers are measured."""
Frame = Any
"""A pandas.DataFrame; pandas' own annotations cannot tell a column from a frame."""


class Results(NamedTuple):
    """results.parquet: a row per run and point."""

    rows: Frame
    note: Note
    """Describes the rows: the measurement, the metadata columns, the parts of each label in the file."""
    labels: dict[str, Parts]
    """The parts of each label."""
    line_styles: dict[str, LineStyle]
    """The line style of every label, in the order of the experiment."""
    figure: Figure
    """The figure's options: names of labels, the point to show."""
    size: str
    """The metadata column in which runs are compared: if possible, one whose trained value differs between runs."""
    overlap: str
    """Describes which rows of the evaluation also occur in training; empty if none."""

    @property
    def notes(self) -> str:
        """The sentences below a figure of test results: what also occurs in training, how the experiment was tuned."""
        return " ".join(filter(None, [self.overlap, self.tuned]))

    @property
    def tuned(self) -> str:
        """The sentence below a figure of other results: how the experiment was tuned; empty if it was not."""
        return self.note.tuned

    @property
    def measurement(self) -> Measurement:
        """How the runs were measured."""
        return self.note.measurement

    @property
    def points(self) -> list[str]:
        """The metadata columns that identify the points of the evaluation, for example delay and symbols."""
        return self.note.points

    @property
    def names(self) -> dict[str, str]:
        """The display name of each label."""
        return display_names({label: self.labels[label] for label in self.line_styles}, self.figure.labels)

    @property
    def metric(self) -> str:
        """The score that the figure shows."""
        return getattr(self.figure, "metric", None) or self.measurement.primary

    @property
    def score(self) -> Score:
        """The description of the score that the figure shows."""
        return self.measurement.scores[self.metric]

    @property
    def reference(self) -> Frame:
        """The scaled reference of the score, which needs no network, one per row; NaN if unknown."""
        known = self.score.reference
        return self.score.scale * self.rows[known] if known else pd.Series(float("nan"), self.rows.index)

    def axis_label(self, column: str) -> str:
        """Return the axis label of a metadata column, with its unit."""
        known = self.note.columns.get(column)
        return known.axis if known else column

    def categories(self, column: str) -> tuple[str, ...]:
        """Return the names of a categorical column's values; empty for numbers."""
        known = self.note.columns.get(column)
        return known.categories if known else ()

    @property
    def runs(self) -> Frame:
        """One row per run, for columns that do not depend on the point."""
        return self.rows.drop_duplicates("run")

    @property
    def recursive(self) -> Results:
        """The results of recursive networks, which puzzles are measured with besides others."""
        return self._with(self.rows[self.rows["halted"].notna()])

    @property
    def halting(self) -> Results:
        """The results of networks that learned to halt, by deep supervision; the q of others means nothing."""
        recursive = self.recursive
        return recursive._with(recursive.rows[recursive.rows[f"{SUPERVISION}_most_trained"].notna()])

    def at(self, *kept: str) -> Frame:
        """Return the rows at the point that the figure shows, with all values of the metadata columns `kept`."""
        rows = self.rows
        for column in self.points:
            if column not in kept:
                rows = rows[rows[column] == self._selected_value(rows, column)]
        return rows

    def _selected_value(self, rows: Frame, column: str) -> Any:
        """Return the value of the option `at`, else the largest that all networks measured at it were trained at.

        If training covered none, it is the smallest measured value; figures beyond training show the largest.
        """
        wanted = getattr(self.figure, "at", {}).get(column)
        if wanted is not None:
            return self.categories(column).index(wanted) if isinstance(wanted, str) else wanted
        if getattr(self.figure, "beyond", False):
            return rows[column].max()
        covered = rows.assign(covered=_covered(rows, column)).groupby(column)["covered"].all()
        return covered[covered].index.max() if covered.any() else covered.index.min()

    def selected(self, *kept: str) -> Results:
        """Return the results at the points selected by the option `at` only."""
        rows, wanted = self.rows, getattr(self.figure, "at", {})
        for column in set(wanted) - set(kept):
            rows = rows[rows[column] == self._selected_value(rows, column)]
        return self._with(rows)

    def _with(self, rows: Frame) -> Results:
        return self._replace(rows=rows, line_styles=_line_styles(rows))

    @property
    def trained(self) -> Frame:
        """The rows at the point that a run was trained at, if it was measured there."""
        rows = self.rows
        for column in self.points:
            rows = rows[rows[column] == rows[f"{column}_most_trained"]]
        return rows

    def point_name(self, *kept: str) -> str:
        """Describe the point that the figure shows, by varying columns that are not in `kept`: `delay 200 (beyond training)`."""
        rows = self.at(*kept)
        named = [column for column in self.points if (column == self.points[0] or column in self.varying) and column not in kept]
        return ", ".join(f"{column} {self.value_name(column, rows[column].iloc[0])}{_outside(rows, column)}" for column in named)

    def score_label(self, *kept: str) -> str:
        """Return the axis label of the score at the point that the figure shows, with its unit."""
        point, unit = self.point_name(*kept), self.score.shown_unit
        return f"{self.score.label}{f' at {point}' if point else ''}" + (f"\u00a0({unit})" if unit else "")

    def value_name(self, column: str, value: Any) -> str:
        """Format the value of a metadata column or of a swept key."""
        if names := self.categories(column):
            return names[int(value)].replace("_", " ")
        return value if isinstance(value, str) else f"{value:,.10g}"

    @property
    def varying(self) -> list[str]:
        """The metadata columns that differ between points."""
        return [column for column in self.points if self.rows[column].nunique() > 1]

    def lines_over(self, key: str, *places: str) -> Results:
        """Remove the swept `key` from the labels: a label is then a line across runs, which differ in the columns `places`.

        Labels are unchanged if the key is not swept, or if different runs of one seed would share a label and all places.
        """
        lines = line_labels(self.runs.to_dict("records"), self.labels, key, *places)
        names = {label: label_of(parts) for label, parts in lines.items()}
        labels = {names[label]: parts for label, parts in lines.items()}
        return self._replace(labels=labels)._with(self.rows.assign(label=self.rows["label"].map(names)))

    def lines_over_size(self) -> Results:
        """Remove the trained size from the labels."""
        return self.lines_over(f"task.{self.size}", f"{self.size}_most_trained")

    def across_runs(self) -> Results:
        """Remove from the labels those trained sizes at which every run was measured at one value only."""
        results = self
        for column in self.points:
            if (self.rows.groupby("run")[column].nunique() == 1).all():
                results = results.lines_over(f"task.{column}", *self.points)
        return results

    def across_layouts(self) -> Results:
        """Remove the layout from the labels if every run has a swept one."""
        if LAYOUT not in self.rows or self.rows[LAYOUT].isna().any():
            return self
        return self.lines_over(LAYOUT, LAYOUT, *self.points)

    def across_sizes(self) -> Results:
        """Remove the swept sizes of the network, such as its width, from the labels."""
        results, keys = self, self.network_sizes
        for key in keys:
            results = results.lines_over(key, *keys, *self.layout_key, *self.points)
        return results

    @property
    def network_sizes(self) -> list[str]:
        """The swept numeric keys of the network."""
        keys = [key for key in self.rows if key.startswith("network.")]
        return [key for key in keys if self.rows[key].map(lambda value: type(value) in (int, float)).all()]

    @property
    def layout_key(self) -> list[str]:
        """The layout's column, if labels run across layouts; else empty."""
        return [LAYOUT] if self.layouts else []

    @property
    def layouts(self) -> list[str]:
        """The layouts that labels run across, ordered by row length; else empty."""
        if LAYOUT not in self.rows or (self.rows.groupby("label")[LAYOUT].nunique() < 2).all():
            return []
        return self.rows.groupby(LAYOUT)["tokens"].mean().sort_values().index.tolist()

    def ordered(self, frame: Frame, *columns: str) -> Frame:
        """Sort a frame by label, in the order of the experiment, then by further columns."""
        order = {label: place for place, label in enumerate(self.line_styles)}
        return frame.sort_values(["label", *columns], key=lambda column: column.map(order) if column.name == "label" else column)


def _covered(rows: Frame, column: str) -> Frame:
    """Return whether each row's value of a metadata column is within its run's training range; true if that is unknown."""
    least, most = (rows[f"{column}_{end}_trained"] for end in ("least", "most"))
    return ~((rows[column] < least) | (rows[column] > most))


def _outside(rows: Frame, column: str) -> str:
    """Describe on which side rows of one value of a metadata column lie outside their runs' training range; empty if inside."""
    above, below = rows[column] > rows[f"{column}_most_trained"], rows[column] < rows[f"{column}_least_trained"]
    if not (above | below).any():
        return ""
    side = "beyond" if above.any() else "below"
    return f" ({side} training)" if (above | below).all() else f" ({side} training for some)"


def read_results(experiment: Path, figure: Figure | None = None) -> Results:
    """Read the results of an experiment's folder; `figure` selects names and the point to show."""
    table, note = schemas.read_results(experiment / "results.parquet")
    rows = table.to_pandas()
    for key in note.coordinates:  # as written: pandas would turn 100 and a missing value into 100.0 and NaN
        rows[key] = pd.Series(table.column(key).to_pylist(), dtype=object)
    known = [column for column in note.points if rows[f"{column}_most_trained"].notna().any()]
    size = [*trained_sizes(table, note.points), *known, ""][0]
    overlap = _overlap(note, table.to_pylist())
    return Results(rows, note, note.labels, _line_styles(rows), figure or Figure(name=""), size, overlap)


def _overlap(note: Note, rows: list[dict[str, Any]]) -> str:
    """Describe the test rows that also occur in training; empty if there are none."""
    clean = note.overlap is None or all(row["in_training"] == 0 for row in rows)
    return "" if clean else overlap_sentence(note, rows)


def _line_styles(rows: Frame) -> dict[str, LineStyle]:
    labels = list(dict.fromkeys(rows["label"]))
    state = rows.groupby("label")["state_bytes"].max()
    return line_styles(labels, [label for label in labels if state[label] == 0])


def read(experiment: Path, name: str) -> Frame:
    """Read another table of an experiment's folder: curves, details, timing or costs."""
    return schemas.read_collected(experiment / f"{name}.parquet").to_pandas()


class Tuning(NamedTuple):
    """tuning.parquet: what a tuned experiment tried."""

    candidates: list[Candidate]
    """In the order of labels, values ascending."""
    note: TuningNote
    """Describes the trials: keys, seeds, objective, choices."""

    def of(self, label: str) -> list[Candidate]:
        """Return the candidates of a label."""
        return [candidate for candidate in self.candidates if candidate.label == label]

    def metric(self, wanted: Metric) -> Metric:
        """Return the column to show: the objective if accuracy is wanted and no trial has any."""
        known = any(trial[wanted] is not None for candidate in self.candidates for trial in candidate.trials)
        return wanted if known else "objective"

    def score(self, metric: Metric, results: Results) -> Score:
        """Describe the validation result that a figure shows."""
        if metric == "accuracy":
            return Score(f"validation {results.measurement.training.accuracy}", bounds=(0, 1), better="higher")
        if self.note.objective.endswith("loss"):
            return Score(self.note.goal, unit=" or ".join(results.rows["unit"].unique()), bounds=(0, None), better="lower")
        return Score(self.note.goal, better="higher" if self.note.better == "higher" else "lower")


def read_tuning(experiment: Path) -> Tuning:
    """Read what a tuned experiment tried from its folder."""
    table, note = schemas.read_tuning(experiment / "tuning.parquet")
    return Tuning(candidates_of(table, note), note)


def over_seeds(rows: Frame, by: list[str], value: str, score: Score) -> Frame:
    """Aggregate a column over seeds for every combination of the columns `by`: seeds, mean, sd, se and 95 % interval.

    Rows are in order of first appearance. Shares are in %. With one seed the interval is over its examples.
    """
    rows_over_seeds = [
        dict(zip(by, key, strict=True)) | _scaled(summarise_scores(group.to_dict("records"), value, score), score.scale)
        for key, group in rows.groupby(by, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows_over_seeds, columns=[*by, "seeds", "mean", "sd", "se", "low", "high"])


def _scaled(summary: Summary, scale: float) -> dict[str, float]:
    return {"seeds": summary.n, **{key: scale * getattr(summary, key) for key in ("mean", "sd", "se", "low", "high")}}


def common(rows: Frame, column: str) -> float | None:
    """Return the value that all rows share in a column; None if they differ or any is missing."""
    values = rows[column].dropna().unique() if column in rows else []
    return float(values[0]) if len(values) == 1 and not rows[column].isna().any() else None
