"""What each label of an experiment was run with: every setting as resolved, defaults included, those that differ first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.evaluation.summary import NOTHING, Section, as_html

Row = dict[str, Any]
COMPONENTS = ("task", "network", "learner")


def settings_page(spec: Row, specs: list[Row]) -> str:
    """One HTML page: the settings in which labels differ, a column each; those that all share; the runs.

    spec: the experiment's frozen specification. specs: `run.yaml` of each of its runs, in the same order.
    """
    found: dict[str, dict[str, str]] = {}
    runs: dict[str, list[str]] = {}
    for entry, run in zip(spec["runs"], specs, strict=True):
        block = {**{key: run[key] for key in COMPONENTS if key in run}, "evaluate": entry.get("evaluate", {})}
        found.setdefault(entry["label"], dict(_flat(block)))
        runs.setdefault(entry["label"], []).append(entry["run"])
    return as_html(f"{spec['name']}: settings", [*_sections(found), _runs(runs)])


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every setting by its dotted key, as it is written in a config."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else key)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _sections(found: dict[str, dict[str, str]]) -> Iterator[Section]:
    keys = list(dict.fromkeys(key for settings in found.values() for key in settings))
    values = {key: [settings.get(key, NOTHING) for settings in found.values()] for key in keys}
    differing = {key: cells for key, cells in values.items() if len(set(cells)) > 1}
    note = "Every setting that is not the same for all labels; " + NOTHING + ": the component has no such field."
    if differing:
        yield Section("What differs", note, ["setting", *found], [[key, *cells] for key, cells in differing.items()])
    shared = [[key, cells[0]] for key, cells in values.items() if key not in differing]
    yield Section("What all share", "All other settings, defaults included.", ["setting", "value"], shared)


def _runs(runs: dict[str, list[str]]) -> Section:
    body = [[label, ", ".join(names)] for label, names in runs.items()]
    return Section("Runs", "The folders below results/runs, one per seed.", ["label", "runs"], body)
