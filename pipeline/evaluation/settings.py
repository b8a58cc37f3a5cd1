"""The settings of each label of an experiment, as resolved, defaults included; those that differ come first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.evaluation.summary import NOTHING, Section, as_html

Row = dict[str, Any]
COMPONENTS = ("task", "network", "learner")


def settings_page(spec: Row, specs: list[Row]) -> str:
    """Return an HTML page: the settings in which labels differ, a column each; those that all share; the runs.

    spec: the experiment's frozen specification. specs: `run.yaml` of each of its runs, in the same order.
    """
    settings_of: dict[str, dict[str, str]] = {}
    runs: dict[str, list[str]] = {}
    for entry, run in zip(spec["runs"], specs, strict=True):
        block = {**{key: run[key] for key in COMPONENTS if key in run}, "evaluate": entry.get("evaluate", {})}
        settings_of.setdefault(entry["label"], dict(_flat(block)))
        runs.setdefault(entry["label"], []).append(entry["run"])
    return as_html(f"{spec['name']}: settings", [*_sections(settings_of), _runs(runs)])


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting by its dotted key, as written in a config."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else key)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _sections(settings_of: dict[str, dict[str, str]]) -> Iterator[Section]:
    keys = list(dict.fromkeys(key for settings in settings_of.values() for key in settings))
    values = {key: [settings.get(key, NOTHING) for settings in settings_of.values()] for key in keys}
    differing = {key: cells for key, cells in values.items() if len(set(cells)) > 1}
    note = "Every setting that is not the same for all labels; " + NOTHING + ": the component has no such field."
    if differing:
        yield Section("Settings that differ", note, ["setting", *settings_of], [[key, *cells] for key, cells in differing.items()])
    shared = [[key, cells[0]] for key, cells in values.items() if key not in differing]
    yield Section("Shared settings", "All other settings, defaults included.", ["setting", "value"], shared)


def _runs(runs: dict[str, list[str]]) -> Section:
    body = [[label, ", ".join(names)] for label, names in runs.items()]
    return Section("Runs", "The folders below results/runs, one per seed.", ["label", "runs"], body)
