"""What figures read: the collected tables of an experiment as data frames, and values over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.config.figures import Figure
from pipeline.config.labels import Parts, display_names, label_of
from pipeline.evaluation import schemas
from pipeline.evaluation.measurements.base import Measurement, Score
from pipeline.evaluation.overlap import overlap_sentence
from pipeline.evaluation.schemas import Note
from pipeline.evaluation.series import line_labels, trained_sizes
from pipeline.evaluation.statistics import Summary, summarise_scores
from pipeline.figures.style import Look, looks

SECONDS = Score("CPU seconds", unit="s", bounds=(0, None), better="lower")
STEPS = Score("optimizer steps", bounds=(0, None), better="lower")
"""What figures show that no evaluation holds."""
LAYOUT = "task.layout"
"""Where it is swept, each layout has its panel, and a label is a line in all of them."""
Frame = Any
"""A pandas.DataFrame; pandas' own annotations cannot tell a column from a frame."""


class Results(NamedTuple):
    """results.parquet: a row per run and point."""

    rows: Frame
    note: Note
    """What the rows are: the kind of measurement, the metadata columns, the parts of each label in the file."""
    labels: dict[str, Parts]
    """What each label is made of."""
    looks: dict[str, Look]
    """Every label of the experiment, in its order, and how it is drawn."""
    figure: Figure
    """What the user asks for: names of labels, the point to show."""
    size: str
    """The metadata column along which runs are compared: one that they were trained at several values of, where there is one."""
    overlap: str
    """Which rows of the evaluation also occur in training, in one sentence; empty where none does."""

    @property
    def measurement(self) -> Measurement:
        """How the runs were measured."""
        return self.note.measurement

    @property
    def points(self) -> list[str]:
        """The metadata columns that tell the points of the evaluation apart, for example delay and symbols."""
        return self.note.points

    @property
    def names(self) -> dict[str, str]:
        """What each label is called in a figure."""
        return display_names({label: self.labels[label] for label in self.looks}, self.figure.labels)

    @property
    def metric(self) -> str:
        """The score that the figure shows."""
        return getattr(self.figure, "metric", None) or self.measurement.primary

    @property
    def score(self) -> Score:
        """What is known of the score that the figure shows."""
        return self.measurement.scores[self.metric]

    @property
    def reference(self) -> Frame:
        """The shown value of the score that needs no network, one per row; missing where it is not known."""
        known = self.score.reference
        return self.score.scale * self.rows[known] if known else pd.Series(float("nan"), self.rows.index)

    def axis_name(self, column: str) -> str:
        """A metadata column as the name of an axis, with its unit."""
        known = self.note.columns.get(column)
        return known.axis if known else column

    def categories(self, column: str) -> tuple[str, ...]:
        """The names of a column's values, where they are not numbers."""
        known = self.note.columns.get(column)
        return known.categories if known else ()

    @property
    def runs(self) -> Frame:
        """One row per run: what does not depend on the point."""
        return self.rows.drop_duplicates("run")

    def at(self, *kept: str) -> Frame:
        """The rows at the point that the figure shows; of the metadata columns `kept` all values stay."""
        rows = self.rows
        for column in self.points:
            if column not in kept:
                rows = rows[rows[column] == self._shown_value(rows, column)]
        return rows

    def _shown_value(self, rows: Frame, column: str) -> Any:
        """The value that the user asks for, else the largest that all networks measured at it were trained at.

        Where training covered none, it is the smallest measured value; figures of what is beyond training show the largest.
        """
        wanted = getattr(self.figure, "at", {}).get(column)
        if wanted is not None:
            return self.categories(column).index(wanted) if isinstance(wanted, str) else wanted
        if getattr(self.figure, "beyond", False):
            return rows[column].max()
        covered = rows.assign(covered=_covered(rows, column)).groupby(column)["covered"].all()
        return covered[covered].index.max() if covered.any() else covered.index.min()

    def selected(self, *kept: str) -> Results:
        """The same results at those points only that the figure asks for by `at`."""
        rows, wanted = self.rows, getattr(self.figure, "at", {})
        for column in set(wanted) - set(kept):
            rows = rows[rows[column] == self._shown_value(rows, column)]
        return self._with(rows)

    def _with(self, rows: Frame) -> Results:
        return self._replace(rows=rows, looks=_looks(rows))

    @property
    def trained(self) -> Frame:
        """The rows at the point that a run was trained at, where it was measured there."""
        rows = self.rows
        for column in self.points:
            rows = rows[rows[column] == rows[f"{column}_most_trained"]]
        return rows

    def point_name(self, *kept: str) -> str:
        """The point that the figure shows, without the metadata columns `kept`, as far as it says something: `delay 200 (beyond training)`."""
        rows = self.at(*kept)
        said = [column for column in self.points if (column == self.points[0] or column in self.varying) and column not in kept]
        return ", ".join(f"{column} {self.value_name(column, rows[column].iloc[0])}{_outside(rows, column)}" for column in said)

    def score_at(self, *kept: str) -> str:
        """What the score is called, at the point that the figure shows, with its unit."""
        point, unit = self.point_name(*kept), self.score.shown_unit
        return f"{self.score.label}{f' at {point}' if point else ''}" + (f"\u00a0({unit})" if unit else "")

    def value_name(self, column: str, value: Any) -> str:
        """A metadata value, or that of a swept key, as text."""
        if names := self.categories(column):
            return names[int(value)].replace("_", " ")
        return value if isinstance(value, str) else f"{value:,.10g}"

    @property
    def varying(self) -> list[str]:
        """The metadata columns that differ between points."""
        return [column for column in self.points if self.rows[column].nunique() > 1]

    def along(self, key: str, *places: str) -> Results:
        """The same results under labels without the swept `key`: a label is then a line across runs, which differ in the columns `places`.

        Labels stay as they are where the key is not swept, and where different runs of one seed would share a label and all places.
        """
        found = line_labels(self.runs.to_dict("records"), self.labels, key, *places)
        names = {label: label_of(parts) for label, parts in found.items()}
        labels = {names[label]: parts for label, parts in found.items()}
        return self._replace(labels=labels)._with(self.rows.assign(label=self.rows["label"].map(names)))

    def along_size(self) -> Results:
        """The same results under labels without the size that runs were trained at."""
        return self.along(f"task.{self.size}", f"{self.size}_most_trained")

    def across_runs(self) -> Results:
        """The same results under labels without the trained sizes, as far as every run was measured at one value of them only."""
        found = self
        for column in self.points:
            if (self.rows.groupby("run")[column].nunique() == 1).all():
                found = found.along(f"task.{column}", *self.points)
        return found

    def across_layouts(self) -> Results:
        """The same results under labels without the layout, where every run has a swept one."""
        if LAYOUT not in self.rows or self.rows[LAYOUT].isna().any():
            return self
        return self.along(LAYOUT, LAYOUT, *self.points)

    def across_sizes(self) -> Results:
        """The same results under labels without the sizes of the network, such as its width, as far as they are swept."""
        found, keys = self, self.network_sizes
        for key in keys:
            found = found.along(key, *keys, *self.layout_key, *self.points)
        return found

    @property
    def network_sizes(self) -> list[str]:
        """The swept keys of the network whose values are numbers."""
        keys = [key for key in self.rows if key.startswith("network.")]
        return [key for key in keys if self.rows[key].map(lambda value: type(value) in (int, float)).all()]

    @property
    def layout_key(self) -> list[str]:
        """The column of the layout, where labels run across layouts."""
        return [LAYOUT] if self.layouts else []

    @property
    def layouts(self) -> list[str]:
        """The layouts that labels run across, by the length of their rows; none where they do not."""
        if LAYOUT not in self.rows or (self.rows.groupby("label")[LAYOUT].nunique() < 2).all():
            return []
        return self.rows.groupby(LAYOUT)["tokens"].mean().sort_values().index.tolist()

    def ordered(self, frame: Frame, *columns: str) -> Frame:
        """The rows of a frame by label, in the order of the experiment, then by further columns."""
        order = {label: place for place, label in enumerate(self.looks)}
        return frame.sort_values(["label", *columns], key=lambda column: column.map(order) if column.name == "label" else column)


def _covered(rows: Frame, column: str) -> Frame:
    """Whether each row's value of a metadata column is one that its run was trained at; true where that is not known."""
    least, most = (rows[f"{column}_{end}_trained"] for end in ("least", "most"))
    return ~((rows[column] < least) | (rows[column] > most))


def _outside(rows: Frame, column: str) -> str:
    """Where rows of one value of a metadata column lie outside what their runs were trained at: on which side."""
    above, below = rows[column] > rows[f"{column}_most_trained"], rows[column] < rows[f"{column}_least_trained"]
    if not (above | below).any():
        return ""
    side = "beyond" if above.any() else "below"
    return f" ({side} training)" if (above | below).all() else f" ({side} training for some)"


def read_results(experiment: Path, figure: Figure | None = None) -> Results:
    """The results of an experiment's folder, as a figure shows them: under the names and at the point that it asks for."""
    table, note = schemas.read_results(experiment / "results.parquet")
    rows = table.to_pandas()
    for key in note.coordinates:  # as they were written: pandas would make 100 and a missing value 100.0 and NaN
        rows[key] = pd.Series(table.column(key).to_pylist(), dtype=object)
    known = [column for column in note.points if rows[f"{column}_most_trained"].notna().any()]
    size = [*trained_sizes(table, note.points), *known, ""][0]
    overlap = _overlap(note, table.to_pylist())
    return Results(rows, note, note.labels, _looks(rows), figure or Figure(name=""), size, overlap)


def _overlap(note: Note, rows: list[dict[str, Any]]) -> str:
    """What figures say of test rows that also occur in training: nothing where none does."""
    clean = note.overlap is None or all(row["in_training"] == 0 for row in rows)
    return "" if clean else overlap_sentence(note, rows)


def _looks(rows: Frame) -> dict[str, Look]:
    labels = list(dict.fromkeys(rows["label"]))
    state = rows.groupby("label")["state_bytes"].max()
    return looks(labels, [label for label in labels if state[label] == 0])


def read(experiment: Path, name: str) -> Frame:
    """Another table of an experiment's folder: curves, details, timing or costs."""
    return schemas.read_collected(experiment / f"{name}.parquet").to_pandas()


def over_seeds(rows: Frame, by: list[str], value: str, score: Score) -> Frame:
    """A column's seeds, mean, sd, standard error and 95 % interval for every combination of the columns `by`, in order of first appearance.

    Shares are in %. Where there is one seed the interval is over its examples.
    """
    found = [
        dict(zip(by, key, strict=True)) | _scaled(summarise_scores(group.to_dict("records"), value, score), score.scale)
        for key, group in rows.groupby(by, sort=False, dropna=False)
    ]
    return pd.DataFrame(found, columns=[*by, "seeds", "mean", "sd", "se", "low", "high"])


def _scaled(found: Summary, scale: float) -> dict[str, float]:
    return {"seeds": found.n, **{key: scale * getattr(found, key) for key in ("mean", "sd", "se", "low", "high")}}


def common(rows: Frame, column: str) -> float | None:
    """The one value that all rows share in a column, None where they differ or have none."""
    values = rows[column].dropna().unique() if column in rows else []
    return float(values[0]) if len(values) == 1 and not rows[column].isna().any() else None
