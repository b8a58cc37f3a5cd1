"""Types of the command line's parameters. A path that cannot be meant is refused before anything is computed or written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pipeline.storage.errors import UserError

MOST_THREADS = 1024
LONGEST_PATH, LONGEST_NAME = 4000, 255
"""Bytes of a path, and of one name in it, that Linux can have."""
THREADS = click.IntRange(1, MOST_THREADS)
ROWS = click.IntRange(1, 10**9)
SHARD = click.IntRange(0, 10**5)


class _Path(click.ParamType[Path]):
    """A path that there can be: no NUL byte in it, and no longer than the system allows."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path as it was given."""
        if "\0" in str(value):
            self.fail(f"{str(value)!r:.80} contains a NUL byte", param, ctx)
        if len(os.fsencode(value)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(value).parts):
            self.fail(f"{str(value)!r:.80} is too long", param, ctx)
        return Path(value)


class OutFile(_Path):
    """A file to write, with the suffix of what is written: an existing file of another kind is never replaced."""

    name = "file"

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, which names a regular file or nothing yet, in a folder that can be there."""
        path = super().convert(value, param, ctx)
        if path.suffix != self.suffix:
            self.fail(f"{str(path)!r:.200} expected a name that ends in {self.suffix}", param, ctx)
        if path.exists() and not path.is_file():
            self.fail(f"{str(path)!r:.200} is no regular file", param, ctx)
        return path


class OutFolder(_Path):
    """A folder to write: a new or an empty one, or one that this command made, which holds `marker`."""

    name = "folder"

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, with nothing of anybody else's in it."""
        path = super().convert(value, param, ctx)
        if path.exists() and not path.is_dir():
            self.fail(f"{str(path)!r:.200} is no folder", param, ctx)
        if path.is_dir() and not (path / self.marker).is_file() and any(path.iterdir()):
            self.fail(f"{str(path)!r:.200} holds other files; expected a new folder, or one with {self.marker}", param, ctx)
        return path


FILE = _Path()


def results_of(spec: Path, kind: str, name: str) -> Path:
    """The results folder that a specification lies in. Raises UserError where it does not lie at its place, {kind}/{name}/, since what is
    made from it is written there too.
    """
    path = spec.absolute()
    if path.parent.name != name or path.parent.parent.name != kind:
        raise UserError(f"{spec}: not at its place; expected {kind}/{name}/{spec.name} of a results folder")
    return path.parents[2]
