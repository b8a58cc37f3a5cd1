"""What a tuned experiment chose: `choices.json`, which `pipeline choose` writes and every later stage reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.storage.errors import CorruptFileError
from pipeline.storage.seals import REMAKE, read_sealed

Row = dict[str, Any]
CHOICES = "choices.json"


def chosen_entries(spec: Row, folder: Path) -> list[Row]:
    """Return the entries of an experiment's runs that its tables show: all, or those with the chosen values.

    folder: where `choose` wrote. Raises MissingFileError or CorruptFileError.
    """
    if "tune" not in spec:
        return spec["runs"]
    choices = read_choices(folder)
    return [entry for entry in spec["runs"] if entry["tuned"] == choices.get(entry["label"], {}).get("values")]


def read_choices(folder: Path) -> dict[str, Row]:
    """Read the chosen values by label."""
    path = folder / CHOICES
    text = read_sealed(path)
    try:
        choices = json.loads(text)
        assert all(isinstance(choice["values"], dict) for choice in choices.values())
    except (ValueError, AttributeError, KeyError, TypeError, AssertionError):
        raise CorruptFileError(f"{path}: no choices; {REMAKE}") from None
    return choices
