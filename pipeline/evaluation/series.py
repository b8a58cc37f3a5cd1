"""Runs that were trained at several sizes: along which column they differ, and what those of one line have in common."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipeline.plan import part_of_label


def trained_sizes(results: pa.Table) -> list[str]:
    """The metadata columns whose largest trained value differs between the runs of results.parquet, for example delay or symbols."""
    points = json.loads(results.schema.metadata[b"recurlab"])["points"]
    return [column for column in points if len(set(results.column(f"{column}_most_trained").to_pylist())) > 1]


def label_without(label: str, key: str, value: Any) -> str:
    """A run's label less what the swept `key` added to it: `lstm, delay 100` without task.delay is `lstm`. `base` where nothing is left."""
    part = f", {part_of_label(key, value)}, "
    return f", {label}, ".replace(part, ", ", 1)[2:-2] or "base"
