"""Find damaged files in a results folder and set them aside, so that they are regenerated.

`find_damaged` verifies the files that a plan declares and records what it verified, so that the next call costs one `stat` per file.
`set_aside` renames a damaged file to `*.damaged`: Snakemake then regenerates it, and a user can still inspect it. `verify_all` reads
every byte of a results folder, whether planned or not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.storage.atomic import explain_write_errors
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.files import delete
from pipeline.storage.manifest import MANIFEST, read_manifest, verify
from pipeline.storage.seals import SUFFIX, check_seal, read_sealed, seal_path, sealed_file, write_sealed

SEALED_FOLDERS = ("datasets", "runs", "evaluations", "profiles", "experiments")
"""Folders of results/ that numbers come from: every file in them has a seal."""
CHECKPOINTS = ("checkpoints/*/step-*", "checkpoints/*/finished")
"""Folders that are verified as a whole, by their manifests."""
UNSEALED = ("reports/", "*.damaged", "logs/", "benchmarks/", "wandb/", "checkpoints/*/lease.json", "checkpoints/*/progress.json")
"""Files that are not verified, because they hold no results."""
DAMAGED = ".damaged"
PLAN, VERIFIED = Path(".pipeline", "plan.json"), Path(".pipeline", "verified.json")
TIMESTAMP_GRACE = 2.0
"""Seconds after a write from which another write is sure to change the file's times."""

Signature = list[int]
CTIME = 2
"""Index of the ctime in a file's signature."""


def find_damaged(results: Path, files: Iterable[str], record: bool = False) -> dict[Path, str]:
    """Return the declared files (paths relative to `results`) that do not match their seals, each with its error.

    A missing declared file is not damage; a missing file that a manifest lists is. A file is not read again if its size, times and inode,
    and those of its seal, are unchanged since it was last verified; `record` saves what was verified.
    """
    known, verified, damaged = _known(results), {}, {}
    declared = set(files)
    for name in [*sorted(declared), *sorted(set(_extras(results, declared)) - declared)]:
        path = results / name
        if name in declared and not os.path.lexists(path):
            continue
        signature = [*_signature(path), *_signature(seal_path(path))]
        try:
            if known.get(name) != signature:
                check_seal(path)
            verified[name] = signature
        except (CorruptFileError, MissingFileError) as error:
            damaged[path] = str(error)
    if record:
        _record(results, known, verified)
    return damaged


def forget_verified(results: Path) -> None:
    """Make the next `find_damaged` read every byte."""
    (results / VERIFIED).unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `*.damaged`, replacing an earlier one, delete its seal, and return the new path.

    Raises UserError if permission is denied.
    """
    target = path.with_name(path.name + DAMAGED)
    with explain_write_errors(path):
        delete(target)
        path.replace(target)
        delete(seal_path(path))
    return target


def set_aside_damaged(results: Path, files: Iterable[str]) -> Iterator[str]:
    """Set aside every damaged file among the declared ones; yield one line for each.

    For a damaged file that no rule declares, such as a labelled checkpoint, the folder's manifest is deleted too: the rule that writes the
    manifest writes the file as well.
    """
    for path in _blocked(results):
        yield f"{path}: is a folder, expected a log file; moved to {set_aside(path).name}"
    declared = set(files)
    for path, error in find_damaged(results, declared, record=True).items():
        moved = f"moved to {set_aside(path).name}, " if os.path.lexists(path) else ""
        yield f"{error.rpartition('; ')[0]}; {moved}it is regenerated"
        place = path.relative_to(results)
        if str(place) not in declared:
            (results / Path(*place.parts[:2]) / MANIFEST).unlink(missing_ok=True)


def _blocked(results: Path) -> list[Path]:
    """Return the folders at the paths of log and benchmark files."""
    found = [*(results / "logs").rglob("*.log"), *(results / "benchmarks").rglob("*.tsv")]
    return [path for path in found if path.is_dir()]


def verify_all(results: Path) -> Iterator[tuple[str, str]]:
    """Yield every damaged, missing or unsealed file of a results folder, with its error. Reads every byte."""
    plan = [path for path in (results / PLAN, seal_path(results / PLAN)) if os.path.lexists(path)]
    for path in (*plan, *(path for kind in SEALED_FOLDERS for path in sorted((results / kind).rglob("*")))):
        error = _check_file(path)
        if error:
            yield error.partition(": ")[0], error
    finished = [path.parent for kind in ("datasets", "runs") for path in results.glob(f"{kind}/*/{MANIFEST}")]
    for folder in sorted([*finished, *(path for state in CHECKPOINTS for path in results.glob(state))]):
        try:
            check_seal(folder / MANIFEST)
            verify(folder)
        except UserError as error:
            yield str(error).partition(": ")[0], str(error)


def count_seals(results: Path) -> int:
    """Count the sealed files in a results folder."""
    return sum(sealed_file(path) is not None for kind in SEALED_FOLDERS for path in (results / kind).rglob(f".*{SUFFIX}"))


def _check_file(path: Path) -> str | None:
    """Return the error of one file of a folder in which every file has a seal, or None if it is intact."""
    if path.name.endswith((DAMAGED, ".tmp")):
        return None
    owner = sealed_file(path)
    if owner is not None:
        return None if os.path.lexists(owner) else f"{owner}: no such file, but its seal {path.name} exists; run again to regenerate it"
    if path.is_dir() and not os.path.lexists(seal_path(path)):
        return None
    try:
        check_seal(path)
    except UserError as error:
        return str(error)
    return None


def _extras(results: Path, files: Iterable[str]) -> Iterator[str]:
    """Yield the files listed by the runs' manifests: a run may have labelled checkpoints that no rule declares."""
    for name in files:
        if name.startswith("runs/") and name.endswith(f"/{MANIFEST}"):
            folder = Path(name).parent
            try:
                yield from (f"{folder}/{inner}" for inner in read_manifest(results / folder)["files"])
            except UserError:
                continue  # find_damaged reports the manifest itself


def _signature(path: Path) -> Signature:
    """Return size, mtime, ctime and inode; empty if there is no file. Every write changes them."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _record(results: Path, known: dict[str, Signature], verified: dict[str, Signature]) -> None:
    """Save what was verified, except files so new that a later change might leave the same times."""
    newest = (time.time() - TIMESTAMP_GRACE) * 1e9
    settled = {name: found for name, found in verified.items() if found[CTIME] < newest and found[len(found) // 2 + CTIME] < newest}
    if settled != known:
        write_sealed(results / VERIFIED, json.dumps(settled))


def _known(results: Path) -> dict[str, Signature]:
    try:
        known = json.loads(read_sealed(results / VERIFIED))
    except (UserError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
