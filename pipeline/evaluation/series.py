"""Runs that were trained at several sizes: along which column they differ, and what those of one line have in common."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipeline.config.labels import label_without


def trained_sizes(results: pa.Table) -> list[str]:
    """The metadata columns whose largest trained value differs between the runs of results.parquet, for example delay or symbols."""
    points = json.loads(results.schema.metadata[b"recurlab"])["points"]
    return [column for column in points if len(set(results.column(f"{column}_most_trained").to_pylist())) > 1]


def line_labels(runs: list[dict[str, Any]], key: str, *places: str) -> dict[str, str]:
    """Every run's label less what the swept `key` added to it: a label is then a line across runs, which differ in the columns `places`.

    runs: a row of results.parquet for each. Labels stay as they are where the key is not swept, and where different runs of one seed would
    share a label and all places.
    """
    whole = {run["run"]: run["label"] for run in runs}
    if not runs or key not in runs[0]:
        return whole
    labels = {run["run"]: label_without(run["label"], key, run[key]) for run in runs}
    spots = {(labels[run["run"]], run["seed"], *(run[place] for place in places)) for run in runs}
    named = {(labels[run["run"]], run["variant"]) for run in runs}
    return whole if len(spots) < len(runs) or len(named) > len(set(labels.values())) else labels
