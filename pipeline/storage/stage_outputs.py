"""The files that each stage writes below the results folder: one table for the plan, the workflow's rules and the writers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

TABLES = ("results", "curves", "details", "timing", "costs")
"""Parquet tables of an experiment: `collect` writes them, figures read them."""
TRAINED = "model/config.json model/model.safetensors history.parquet timing.parquet environment.json curve.svg curve.png manifest.json"
OUTPUTS: dict[str, tuple[str, Sequence[str]]] = {
    "generate": ("datasets/{dataset}", ["{shard}.parquet"]),
    "seal": ("datasets/{dataset}", ["manifest.json", "card.md"]),
    "train": ("runs/{run}", TRAINED.split()),
    "evaluate": ("evaluations/{run}", ["{evaluation}.parquet"]),
    "profile": ("profiles", ["{network}.parquet"]),
    "choose": ("experiments/{experiment}", ["tuning.parquet", "choices.json"]),
    "collect": ("experiments/{experiment}", [*(f"{table}.parquet" for table in TABLES), "table.md", "table.html", "settings.html"]),
    "plot": ("experiments/{experiment}", [f"{{figure}}.{suffix}" for suffix in ("svg", "pdf", "png", "csv")]),
}
"""Stage -> the folder and files that one job writes; a run may write further files."""


def patterns(stage: str, further: Iterable[str] = ()) -> list[str]:
    """Return the paths of one job's files, with wildcards; `further`: more files in the same folder."""
    folder, files = OUTPUTS[stage]
    return [f"{folder}/{file}" for file in (*files, *further)]


def written(stage: str, jobs: Iterable[str | tuple[str, ...]], further: Iterable[str] = ()) -> list[str]:
    """Return every file of these jobs of a stage; a job is given by the values of its wildcards."""
    empty = [re.sub(r"{\w+}", "{}", pattern) for pattern in patterns(stage, further)]
    return [pattern.format(*([job] if isinstance(job, str) else job)) for job in jobs for pattern in empty]
