"""Runs trained at several sizes: the column in which they differ, and labels that join them into one line."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.config.labels import Parts, label_of, without


def trained_sizes(results: pa.Table, points: list[str]) -> list[str]:
    """Return the metadata columns `points` whose largest trained value differs between the runs of results.parquet, for example delay or symbols."""
    return [column for column in points if len(set(results.column(f"{column}_most_trained").to_pylist())) > 1]


def line_labels(runs: list[dict[str, Any]], labels: dict[str, Parts], key: str, *places: str) -> dict[str, Parts]:
    """Remove the part of the swept `key` from every label: a label is then a line across runs, which differ in the columns `places`.

    runs: a row of results.parquet for each. Labels are unchanged if the key is not swept, or if different runs of one seed would then share a
    label and all places.
    """
    if not runs or key not in runs[0]:
        return labels
    less = {label: without(parts, key) for label, parts in labels.items()}
    names = {label: label_of(parts) for label, parts in less.items()}
    spots = {(names[run["label"]], run["seed"], *(run[place] for place in places)) for run in runs}
    variants = {(names[run["label"]], run["variant"]) for run in runs}
    return labels if len(spots) < len(runs) or len(variants) > len(set(names.values())) else less
