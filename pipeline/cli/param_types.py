"""Parameter types of the command line. An invalid path is refused before anything is computed or written."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from pipeline.storage.errors import UserError

MAX_THREADS = 1024
MAX_PATH_BYTES, MAX_NAME_BYTES = 4000, 255
"""Longest path, and longest name in it, on Linux."""
THREADS = click.IntRange(1, MAX_THREADS)
ROWS = click.IntRange(1, 10**9)
SHARD = click.IntRange(0, 10**5)


class _Path(click.ParamType[Path]):
    """A valid path: no NUL byte, and within the system's length limits."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path as given."""
        if "\0" in str(value):
            self.fail(f"{str(value)!r:.80} contains a NUL byte", param, ctx)
        if len(os.fsencode(value)) > MAX_PATH_BYTES or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in Path(value).parts):
            self.fail(f"{str(value)!r:.80} is too long", param, ctx)
        return Path(value)


class Finite(click.FloatRange):
    """A real number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; nan is in no range."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number", param, ctx)
        return number


class OutFile(_Path):
    """A file to write, with a given suffix, so that an existing file of another type is never overwritten."""

    name = "file"

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, which does not exist yet or is a regular file."""
        path = super().convert(value, param, ctx)
        if path.suffix != self.suffix:
            self.fail(f"{str(path)!r:.200} expected a file name ending in {self.suffix}", param, ctx)
        if path.exists() and not path.is_file():
            self.fail(f"{str(path)!r:.200} is not a regular file", param, ctx)
        return path


class OutFolder(_Path):
    """A folder to write: new, empty, or written by this command before, as shown by the file `marker` in it."""

    name = "folder"

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, which holds no unrelated files."""
        path = super().convert(value, param, ctx)
        if path.exists() and not path.is_dir():
            self.fail(f"{str(path)!r:.200} is not a folder", param, ctx)
        if path.is_dir() and not (path / self.marker).is_file() and any(path.iterdir()):
            self.fail(f"{str(path)!r:.200} holds other files; expected a new folder, or one with {self.marker}", param, ctx)
        return path


FILE = _Path()


def results_folder(spec: Path, kind: str, name: str) -> Path:
    """Return the results folder that a spec file is in. Raises UserError if the file is not in {kind}/{name}/: outputs are written there too."""
    path = spec.absolute()
    if path.parent.name != name or path.parent.parent.name != kind:
        raise UserError(f"{spec}: in the wrong folder; expected {kind}/{name}/{spec.name} of a results folder")
    return path.parents[2]
