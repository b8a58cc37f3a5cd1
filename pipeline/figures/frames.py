"""What figures read: the collected tables of an experiment as data frames, and values over seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation.statistics import summarise
from pipeline.figures.style import Look, looks
from pipeline.storage.tables import read_table

Frame = Any
"""A pandas.DataFrame; pandas' own annotations cannot tell a column from a frame."""


class Results(NamedTuple):
    """results.parquet: a row per run and point."""

    rows: Frame
    points: list[str]
    """Metadata columns that tell the points of the evaluation apart, for example delay and symbols."""
    looks: dict[str, Look]
    """Every label of the experiment, in its order, and how it is drawn."""

    @property
    def hardest(self) -> Frame:
        """The rows at the last point: the largest value of every metadata column, one after the other."""
        rows = self.rows
        for column in self.points:
            rows = rows[rows[column] == rows[column].max()]
        return rows

    @property
    def varying(self) -> list[str]:
        """The metadata columns that differ between points."""
        return [column for column in self.points if self.rows[column].nunique() > 1]


def read_results(experiment: Path) -> Results:
    """The results of an experiment's folder."""
    table = read_table(experiment / "results.parquet")
    points = json.loads(table.schema.metadata[b"recurlab"])["points"]
    rows = table.to_pandas()
    labels = list(dict.fromkeys(rows["label"]))
    state = rows.groupby("label")["state_bytes"].max()
    return Results(rows, points, looks(labels, [label for label in labels if state[label] == 0]))


def read(experiment: Path, name: str) -> Frame:
    """Another table of an experiment's folder: curves, positions or timing."""
    return read_table(experiment / f"{name}.parquet").to_pandas()


def over_seeds(rows: Frame, by: list[str], value: str, scale: float = 1.0) -> Frame:
    """A column's seeds, mean, sd, standard error and 95 % interval for every combination of the columns `by`, in order of first appearance."""
    found = [
        dict(zip(by, key, strict=True)) | _scaled(group[value].tolist(), scale) for key, group in rows.groupby(by, sort=False, dropna=False)
    ]
    return pd.DataFrame(found, columns=[*by, "seeds", "mean", "sd", "se", "low", "high"])


def _scaled(values: list[float], scale: float) -> dict[str, float]:
    found = summarise(values)
    return {"seeds": found.n, **{key: scale * getattr(found, key) for key in ("mean", "sd", "se", "low", "high")}}


def common(rows: Frame, column: str) -> float | None:
    """The one value that all rows share in a column, None where they differ or have none."""
    values = rows[column].dropna().unique() if column in rows else []
    return float(values[0]) if len(values) == 1 and not rows[column].isna().any() else None
