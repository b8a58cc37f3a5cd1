"""What a tuned experiment chose: `choices.json`, which `pipeline choose` writes and every later stage reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.storage.errors import CorruptFileError, MissingFileError
from pipeline.storage.seals import REMAKE, read_sealed

Row = dict[str, Any]
CHOICES = "choices.json"


def chosen_entries(spec: Row, folder: Path) -> list[Row]:
    """Return the entries of an experiment's runs that its tables show: all, or those with the chosen values.

    folder: where `choose` wrote. Raises MissingFileError or CorruptFileError.
    """
    if "tune" not in spec:
        return spec["runs"]
    choices = read_choices(spec, folder)
    return [entry for entry in spec["runs"] if entry["tuned"] == choices.get(entry["label"], {}).get("values")]


def read_choices(spec: Row, folder: Path) -> dict[str, Row]:
    """Read what a tuned experiment chose, by label.

    Raises CorruptFileError, and MissingFileError if there is no choice, or one among other trials than the experiment has now.
    """
    path = folder / CHOICES
    text = read_sealed(path)
    try:
        choices = json.loads(text)
        assert all(isinstance(choice["values"], dict) for choice in choices.values())
        tried = {label: choice["trials"] for label, choice in choices.items()}
    except (ValueError, AttributeError, KeyError, TypeError, AssertionError):
        raise CorruptFileError(f"{path}: no choices; {REMAKE}") from None
    if tried != trials_of(spec) or any(sorted(choice["values"]) != sorted(spec["tune"]["keys"]) for choice in choices.values()):
        raise MissingFileError(f"{path}: a choice among other trials; expected one among those of the experiment, by `pipeline choose`")
    return choices


def trials_of(spec: Row) -> dict[str, list[str]]:
    """Return the runs among which a tuned experiment chooses, in order, by label."""
    trials: dict[str, list[str]] = {}
    for entry in trial_entries(spec):
        trials.setdefault(entry["label"], []).append(entry["run"])
    return {label: sorted(runs) for label, runs in trials.items()}


def trial_entries(spec: Row) -> list[Row]:
    """Return the entries of the runs among which an experiment chooses: every candidate on the seeds it is tried on; none without tune."""
    seeds = spec["tune"]["seeds"] if "tune" in spec else ()
    return [entry for entry in spec["runs"] if entry["seed"] in seeds]
