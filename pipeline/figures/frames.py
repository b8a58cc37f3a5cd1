"""What figures read: the collected tables of an experiment as data frames, and values over seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation.series import line_labels, trained_sizes
from pipeline.evaluation.statistics import Summary, summarise_scores
from pipeline.figures.style import Look, looks
from pipeline.storage.tables import read_table

LAYOUT = "task.layout"
"""Where it is swept, each layout has its panel, and a label is a line in all of them."""
Frame = Any
"""A pandas.DataFrame; pandas' own annotations cannot tell a column from a frame."""


class Results(NamedTuple):
    """results.parquet: a row per run and point."""

    rows: Frame
    points: list[str]
    """Metadata columns that tell the points of the evaluation apart, for example delay and symbols."""
    size: str
    """The metadata column along which runs are compared: one that they were trained at several values of, where there is one."""
    looks: dict[str, Look]
    """Every label of the experiment, in its order, and how it is drawn."""
    named: dict[str, list[str]]
    """The names of the values of those metadata columns that are not numbers."""

    @property
    def played(self) -> bool:
        """Whether the networks played episodes of an environment."""
        return "return" in self.rows

    @property
    def accuracy_name(self) -> str:
        """What accuracy counts, with its unit: episodes, final answers of free runs, or symbols."""
        if self.played:
            return "episodes solved (%)"
        return "right final answers (%)" if "no_answer" in self.rows else "symbol accuracy (%)"

    @property
    def chance_name(self) -> str:
        """What chance is called, as a form for its value in %."""
        return "no memory {:.3g} %" if self.played else "chance {:.3g} %"

    @property
    def step_name(self) -> str:
        """What a network reads at a time."""
        return "step" if self.played else "token"

    @property
    def rows_name(self) -> str:
        """What training counts."""
        return "environment steps" if self.played else "training rows seen"

    @property
    def runs(self) -> Frame:
        """One row per run: what does not depend on the point."""
        return self.rows.drop_duplicates("run")

    @property
    def hardest(self) -> Frame:
        """The rows at the last point: the largest value of every metadata column, one after the other."""
        return self.hardest_but()

    def hardest_but(self, *kept: str) -> Frame:
        """The rows at the largest value of every metadata column but those `kept`, of which all values stay."""
        rows = self.rows
        for column in self.points:
            if column not in kept:
                rows = rows[rows[column] == rows[column].max()]
        return rows

    @property
    def trained(self) -> Frame:
        """The rows at the point that a run was trained at, where it was measured there."""
        rows = self.rows
        for column in self.points:
            rows = rows[rows[column] == rows[f"{column}_most_trained"]]
        return rows

    @property
    def hardest_name(self) -> str:
        """The last point in words, as far as it says something: `delay 200`."""
        return self.name_but()

    def name_but(self, *kept: str) -> str:
        """The last point in words without the metadata columns `kept`."""
        said = [column for column in self.points if (column == "delay" or column in self.varying) and column not in kept]
        return ", ".join(f"{column} {self.value_name(column, self.hardest_but(*kept)[column].iloc[0])}" for column in said)

    def value_name(self, column: str, value: Any) -> str:
        """A metadata value, or that of a swept key, as text."""
        if column in self.named:
            return self.named[column][int(value)].replace("_", " ")
        return value if isinstance(value, str) else f"{value:,}"

    @property
    def varying(self) -> list[str]:
        """The metadata columns that differ between points."""
        return [column for column in self.points if self.rows[column].nunique() > 1]

    def along(self, key: str, *places: str) -> Results:
        """The same results under labels without the swept `key`: a label is then a line across runs, which differ in the columns `places`.

        Labels stay as they are where the key is not swept, and where different runs of one seed would share a label and all places.
        """
        labels = line_labels(self.runs.to_dict("records"), key, *places)
        return _results(self.rows.assign(label=self.rows["run"].map(labels)), self.points, self.size, self.named)

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


def read_results(experiment: Path) -> Results:
    """The results of an experiment's folder."""
    table = read_table(experiment / "results.parquet")
    note = json.loads(table.schema.metadata[b"recurlab"])
    rows = table.to_pandas()
    for key in note["coordinates"]:  # as they were written: pandas would make 100 and a missing value 100.0 and NaN
        rows[key] = pd.Series(table.column(key).to_pylist(), dtype=object)
    if "return" in rows:  # of environments, chance is zero where nobody knows it
        rows["chance"] = rows["chance"].where(rows["chance"] > 0)
    known = [column for column in note["points"] if rows[f"{column}_most_trained"].notna().any()]
    return _results(rows, note["points"], [*trained_sizes(table), *known, ""][0], note.get("named", {}))


def _results(rows: Frame, points: list[str], size: str, named: dict[str, list[str]]) -> Results:
    labels = list(dict.fromkeys(rows["label"]))
    state = rows.groupby("label")["state_bytes"].max()
    return Results(rows, points, size, looks(labels, [label for label in labels if state[label] == 0]), named)


def read(experiment: Path, name: str) -> Frame:
    """Another table of an experiment's folder: curves, positions or timing."""
    return read_table(experiment / f"{name}.parquet").to_pandas()


def over_seeds(rows: Frame, by: list[str], value: str, scale: float = 1.0) -> Frame:
    """A column's seeds, mean, sd, standard error and 95 % interval for every combination of the columns `by`, in order of first appearance.

    Where there is one seed the interval is over its examples.
    """
    found = [
        dict(zip(by, key, strict=True)) | _scaled(summarise_scores(group.to_dict("records"), value), scale)
        for key, group in rows.groupby(by, sort=False, dropna=False)
    ]
    return pd.DataFrame(found, columns=[*by, "seeds", "mean", "sd", "se", "low", "high"])


def _scaled(found: Summary, scale: float) -> dict[str, float]:
    return {"seeds": found.n, **{key: scale * getattr(found, key) for key in ("mean", "sd", "se", "low", "high")}}


def common(rows: Frame, column: str) -> float | None:
    """The one value that all rows share in a column, None where they differ or have none."""
    values = rows[column].dropna().unique() if column in rows else []
    return float(values[0]) if len(values) == 1 and not rows[column].isna().any() else None
