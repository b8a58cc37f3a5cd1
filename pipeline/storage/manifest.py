"""Manifests: the size and SHA-256 of every file of a finished folder.

A manifest also holds a digest of itself. It is written last: a folder without one is not finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.storage.console import ProgressLine
from pipeline.storage.digest import digest, file_sha256
from pipeline.storage.errors import CorruptFileError, MissingFileError
from pipeline.storage.files import read_bytes
from pipeline.storage.paths import is_file_name
from pipeline.storage.seals import REMAKE, explain_read_errors, write_sealed

MANIFEST = "manifest.json"
FORMAT = 1


def seal(folder: Path, names: Iterable[str], extra: dict[str, Any], known: Mapping[str, dict[str, Any]] | None = None) -> None:
    """Write a folder's manifest: the named files (paths relative to it, with /), and `extra` entries.

    known: entries of an earlier manifest, for files that are hard links to its files; these are not read again.
    Raises MissingFileError if a named file does not exist.
    """
    entries = {name: (known or {}).get(name) or _entry(folder, name) for name in sorted(names)}
    manifest = {**extra, "format": FORMAT, "files": entries}
    write_sealed(folder / MANIFEST, _dump({**manifest, "digest": digest(manifest, 64)}))


def _dump(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _entry(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, but {folder} cannot be sealed without it; run again to generate it")
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and verify the manifest of a finished folder. Raises MissingFileError or CorruptFileError naming the file."""
    path = folder / MANIFEST
    try:
        with explain_read_errors(path):
            text = read_bytes(path)
    except MissingFileError:
        raise MissingFileError(f"{path}: no such file, so the folder is not finished; run again to finish it") from None
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        raise CorruptFileError(f"{path}: invalid JSON; {REMAKE}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CorruptFileError(f"{path}: not a manifest; {REMAKE}")
    for name in manifest["files"]:
        if not is_file_name(name):
            raise CorruptFileError(f"{path}: invalid file name {name!r:.80}; {REMAKE}")
    if manifest.get("format") != FORMAT:
        raise CorruptFileError(f"{path}: format {manifest.get('format')!r}, expected {FORMAT}; {REMAKE}")
    if not _intact(manifest, text):
        raise CorruptFileError(f"{path}: modified after it was written; {REMAKE}")
    return manifest


def _intact(manifest: dict[str, Any], text: bytes) -> bool:
    content = {key: value for key, value in manifest.items() if key != "digest"}
    try:
        return _dump(manifest).encode() == text and manifest.get("digest") == digest(content, 64)
    except ValueError:
        return False


def verify(folder: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify the named files, or all listed ones, against the manifest and return it. Reads every byte once.

    Raises MissingFileError or CorruptFileError naming the file and the remedy.
    """
    manifest = read_manifest(folder)
    files = manifest["files"]
    wanted = list(files if names is None else names)
    progress = ProgressLine(str(folder), len(wanted), "files verified")
    for done, name in enumerate(wanted):
        progress(done)
        if name not in files:
            raise MissingFileError(f"{folder / name}: not in {folder / MANIFEST}; expected one of {', '.join(files) or 'none'}")
        _check(folder / name, files[name])
    return manifest


def _check(path: Path, entry: dict[str, Any]) -> None:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, but {MANIFEST} lists it; run again to regenerate it")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise CorruptFileError(f"{path}: {size} bytes, expected {entry['bytes']}; {REMAKE}")
    found = file_sha256(path)
    if found != entry["sha256"]:
        raise CorruptFileError(f"{path}: SHA-256 {found[:12]}…, expected {entry['sha256'][:12]}…; {REMAKE}")
