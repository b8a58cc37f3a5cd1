"""The container image that jobs run in: check it, record its digest, keep it open."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from pipeline.storage.atomic import write_json
from pipeline.storage.errors import UserError

PROGRAMS = ("apptainer", "singularity")
"""Programs that run an image; the first one on PATH is used."""


def check_image(image: str) -> None:
    """Raise UserError if Apptainer is not installed or a local image file does not exist."""
    if not any(shutil.which(name) for name in PROGRAMS):
        raise UserError("apptainer: not on PATH; install it, or run without --sdm apptainer")
    if _is_local(image) and not Path(image).exists():
        raise UserError(f"runtime.container: {image}: no such image; 'make sif' builds containers/recurlab.sif")


def export_image_digest(image: str, results: Path) -> None:
    """Pass the image's digest to all jobs in an environment variable: an image cannot contain its own digest, and each run records it."""
    if _is_local(image):
        os.environ["APPTAINERENV_RECURLAB_IMAGE"] = image_digest(Path(image), results / ".pipeline" / "image.json")


def keep_image_open(image: str) -> subprocess.Popen[bytes] | None:
    """Start a process that holds a local image open until this process exits; None for an image that is not a file.

    Where Apptainer shares loop devices, jobs then find the blocks that others have decompressed in the page cache; elsewhere it has no effect.
    """
    if not Path(image).is_file():
        return None
    program = next(name for name in PROGRAMS if shutil.which(name))
    command, null = [program, "--quiet", "exec", image, "cat"], subprocess.DEVNULL
    # cat exits when the other end of its pipe closes; no other process inherits that end.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True)


def image_digest(image: Path, cache: Path) -> str:
    """Return the SHA-256 of an image file, cached in the file `cache` until the image's size or mtime changes: computing it is slow."""
    status = image.stat()
    stamp = [str(image.resolve()), status.st_size, status.st_mtime_ns]
    with contextlib.suppress(OSError, ValueError, KeyError):
        cached = json.loads(cache.read_text(encoding="utf-8"))
        if cached["stamp"] == stamp:
            return str(cached["digest"])
    if image.is_dir():
        return "sandbox"
    with image.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    write_json(cache, {"stamp": stamp, "digest": digest})
    return digest


def _is_local(image: str) -> bool:
    return "://" not in image
