"""Safe paths: a name from a config, the command line or a file never leads out of the folder that a command was given."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from pipeline.storage.errors import UserError

NAME = r"[a-z0-9_][a-z0-9_-]{0,199}"
"""An identifier, or the name of an experiment, figure or checkpoint: one path component, never hidden, never `..`."""
FILE_PART = re.compile(r"\w[\w.-]{0,199}", re.ASCII)


def is_name(value: object) -> bool:
    """Whether a value is a valid name."""
    return isinstance(value, str) and re.fullmatch(NAME, value) is not None


def is_file_name(value: object) -> bool:
    """Whether a value is a valid relative file path, with / between its components: `model/model.safetensors`."""
    return isinstance(value, str) and bool(value) and all(FILE_PART.fullmatch(part) for part in value.split("/"))


def safe_join(root: Path, *parts: str) -> Path:
    """Join names to `root`. Raises UserError for an invalid name, and for a symlink that leads out of `root`.

    The last part may be a relative file path, `model/config.json`. `root` itself may be a symlink.
    """
    *folders, last = parts
    wrong = next((part for part in folders if not is_name(part)), None if is_file_name(last) else last)
    if wrong is not None:
        raise UserError(f"{root}: invalid name {wrong!r:.80}; expected lower-case letters, digits, - and _")
    return check_inside(root, root.joinpath(*parts))


def check_inside(root: Path, path: Path) -> Path:
    """Return `path`, which must be below `root`. Raises UserError if a symlink on the way leads out of `root`."""
    start, end = os.path.realpath(root), os.path.realpath(path)
    if PurePosixPath(start) not in PurePosixPath(end).parents:
        raise UserError(f"{path}: leads out of {root}, to {end}; replace the symlink by a folder, or make {root} itself a symlink")
    return path
