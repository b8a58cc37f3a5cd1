"""Read small files of unknown origin (a config, a spec, a manifest); delete files and folders.

Only regular files are read, and only up to a limit: reading a FIFO can block for ever, and a device may never end.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from pipeline.storage.errors import UserError

MAX_BYTES = 100_000_000
"""Largest frozen plan or manifest, in bytes."""
FILE_TYPES = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def check_regular(path: Path) -> int:
    """Return the size of a regular file in bytes. Raises UserError for a FIFO, device or socket, and OSError as `open` would."""
    if "\0" in str(path):
        raise UserError(f"{str(path)!r}: a path cannot contain a NUL byte")
    status = path.stat()
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is {FILE_TYPES.get(stat.S_IFMT(mode), 'not a file')}, expected a regular file")
    return status.st_size


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most `most` bytes. Raises UserError for any other file, and OSError as `open` would.

    A file of size 0 is not opened: kernel files such as /proc/kmsg have size 0 too, and reading them can block for ever.
    """
    if check_regular(path) == 0:
        return b""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path}: larger than {most:,} bytes; expected a smaller file")
    return content


def delete(path: Path) -> None:
    """Delete a file or folder if it exists; of a symlink, only the link itself."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
