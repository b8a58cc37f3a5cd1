"""Names and the paths made from them: what a file says never leads out of the folder that a command was given.

Names come from configs, from the command line and from frozen files that somebody else may have written. All become parts of paths
here and nowhere else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from pipeline.storage.errors import UserError

NAME = r"[a-z0-9_][a-z0-9_-]{0,199}"
"""An identifier, the name of an experiment or a figure, the label of a checkpoint: one part of a path, never hidden, never `..`."""
FILE_PART = re.compile(r"\w[\w.-]{0,199}", re.ASCII)


def is_name(value: object) -> bool:
    """Whether a value can be a name."""
    return isinstance(value, str) and re.fullmatch(NAME, value) is not None


def is_file_name(value: object) -> bool:
    """Whether a value can be the path of a file inside a folder, with / between its parts: `model/model.safetensors`."""
    return isinstance(value, str) and bool(value) and all(FILE_PART.fullmatch(part) for part in value.split("/"))


def safe_join(root: Path, *parts: str) -> Path:
    """The path of these names below `root`. Raises UserError for one that is no name, and for a symlink that leads out of `root`.

    The last part may be the path of a file, `model/config.json`. `root` itself may be a symlink.
    """
    *folders, last = parts
    wrong = next((part for part in folders if not is_name(part)), None if is_file_name(last) else last)
    if wrong is not None:
        raise UserError(f"{root}: got the name {wrong!r:.80}; expected letters, digits, - and _")
    return check_inside(root, root.joinpath(*parts))


def check_inside(root: Path, path: Path) -> Path:
    """`path`, which lies below `root` by its name. Raises UserError where a symlink on the way leads out of `root`."""
    start, end = os.path.realpath(root), os.path.realpath(path)
    if PurePosixPath(start) not in PurePosixPath(end).parents:
        raise UserError(
            f"{path}: leads out of {root}, to {end}; expected no symlink below {root} (link {root} itself to have it elsewhere)"
        )
    return path
