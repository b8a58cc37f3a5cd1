"""Reading a small file that anyone may have written: a config, a specification, a manifest.

Only regular files are opened, and no more than a limit is read: a FIFO would block for ever, a device never end.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from pipeline.storage.errors import UserError

LARGEST_FILE = 100_000_000
"""Bytes of the largest frozen plan or manifest that is read."""
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def check_regular(path: Path) -> None:
    """Refuse what is no regular file. Raises UserError for a FIFO, device or socket, and OSError as `open` would."""
    if "\0" in str(path):
        raise UserError(f"{str(path)!r}: a path cannot contain a NUL byte")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: cannot be read (is {KINDS.get(stat.S_IFMT(mode), 'no file')}); expected a regular file")


def read_bytes(path: Path, most: int = LARGEST_FILE) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises UserError for any other, and OSError as `open` would."""
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path}: more than {most:,} bytes; expected a smaller file")
    return content


def delete(path: Path) -> None:
    """Delete a file or a folder, if it exists; of a symlink only the link."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
