"""Finding what is damaged in a results folder, and making room for it to be made again.

`find_damaged` verifies the files that a plan declares and remembers what it verified, so that the next look costs a `stat` of each file.
`set_aside` renames a damaged file to `*.damaged`: for Snakemake it is missing then, for a user it is still there. `examine_all` reads
every byte below a results folder, whatever any plan says.
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

KINDS = ("datasets", "runs", "evaluations", "profiles", "experiments")
"""Folders below results/ that numbers come from: every file in them has a seal."""
STATES = ("checkpoints/*/step-*", "checkpoints/*/finished")
"""Folders that are verified as a whole, by their manifests."""
UNSEALED = ("reports/", "*.damaged", "logs/", "benchmarks/", "wandb/", "checkpoints/*/lease.json", "checkpoints/*/progress.json")
"""What nothing verifies, since no number comes from it."""
ASIDE = ".damaged"
PLAN, KNOWN = Path(".pipeline", "plan.json"), Path(".pipeline", "verified.json")
SETTLED = 2.0
"""Seconds after which a file's times tell a later change apart."""

Signature = list[int]
CHANGED = 2
"""Place of the time of the last change in what `_signature` gives for one file."""


def find_damaged(results: Path, files: Iterable[str], remember: bool = False) -> dict[Path, str]:
    """Those of the declared files, relative to `results`, that do not fit their seals, each with its error.

    A missing file is no damage where it is declared; one that only a manifest lists is. A file whose size, times and inode, and those of its
    seal, are as they were when it was last verified is not read again; `remember` writes down what was verified.
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
    if remember:
        _remember(results, known, verified)
    return damaged


def forget_verified(results: Path) -> None:
    """Have the next `find_damaged` read every byte."""
    (results / KNOWN).unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `*.damaged` beside it, in place of an earlier one, and return that path; its seal goes.

    Raises UserError where that is not permitted.
    """
    aside = path.with_name(path.name + ASIDE)
    with explain_write_errors(path):
        delete(aside)
        path.replace(aside)
        delete(seal_path(path))
    return aside


def set_aside_damaged(results: Path, files: Iterable[str]) -> Iterator[str]:
    """Set aside every damaged file among the declared ones; yields one line for each.

    A damaged file that no rule declares, such as a further kept checkpoint, takes its folder's manifest with it: that is declared, and
    whoever makes it makes the file.
    """
    for path in _blocked(results):
        yield f"{path}: a folder stands where a job writes its log; moved to {set_aside(path).name}"
    declared = set(files)
    for path, error in find_damaged(results, declared, remember=True).items():
        moved = f"moved to {set_aside(path).name}, " if os.path.lexists(path) else ""
        yield f"{error.rpartition('; ')[0]}; {moved}made again"
        place = path.relative_to(results)
        if str(place) not in declared:
            (results / Path(*place.parts[:2]) / MANIFEST).unlink(missing_ok=True)


def _blocked(results: Path) -> list[Path]:
    """Folders where jobs write what they say and what they cost."""
    found = [*(results / "logs").rglob("*.log"), *(results / "benchmarks").rglob("*.tsv")]
    return [path for path in found if path.is_dir()]


def verify_all(results: Path) -> Iterator[tuple[str, str]]:
    """The name of every damaged, lost or unsealed file below a results folder, and what is wrong; every byte is read."""
    plan = [path for path in (results / PLAN, seal_path(results / PLAN)) if os.path.lexists(path)]
    for path in (*plan, *(path for kind in KINDS for path in sorted((results / kind).rglob("*")))):
        error = _examine(path)
        if error:
            yield error.partition(": ")[0], error
    finished = [path.parent for kind in ("datasets", "runs") for path in results.glob(f"{kind}/*/{MANIFEST}")]
    for folder in sorted([*finished, *(path for state in STATES for path in results.glob(state))]):
        try:
            check_seal(folder / MANIFEST)
            verify(folder)
        except UserError as error:
            yield str(error).partition(": ")[0], str(error)


def count_seals(results: Path) -> int:
    """How many files below a results folder have a seal."""
    return sum(sealed_file(path) is not None for kind in KINDS for path in (results / kind).rglob(f".*{SUFFIX}"))


def _examine(path: Path) -> str | None:
    """What is wrong with one entry of a folder in which everything has a seal."""
    if path.name.endswith((ASIDE, ".tmp")):
        return None
    owner = sealed_file(path)
    if owner is not None:
        return None if os.path.lexists(owner) else f"{owner}: no such file, but {path.name} seals it; run again to make it"
    if path.is_dir() and not os.path.lexists(seal_path(path)):
        return None
    try:
        check_seal(path)
    except UserError as error:
        return str(error)
    return None


def _extras(results: Path, files: Iterable[str]) -> Iterator[str]:
    """What the manifests among the declared files list: a run keeps further checkpoints that no rule declares."""
    for name in files:
        if name.startswith("runs/") and name.endswith(f"/{MANIFEST}"):
            folder = Path(name).parent
            try:
                yield from (f"{folder}/{inner}" for inner in read_manifest(results / folder)["files"])
            except UserError:
                continue  # the manifest itself is among the files that are looked at


def _signature(path: Path) -> Signature:
    """What changes with every write to a file, and cannot be set back."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _remember(results: Path, known: dict[str, Signature], verified: dict[str, Signature]) -> None:
    """Write down what was verified, but for files so new that a later change might leave the same times."""
    newest = (time.time() - SETTLED) * 1e9
    settled = {name: found for name, found in verified.items() if found[CHANGED] < newest and found[len(found) // 2 + CHANGED] < newest}
    if settled != known:
        write_sealed(results / KNOWN, json.dumps(settled))


def _known(results: Path) -> dict[str, Signature]:
    try:
        known = json.loads(read_sealed(results / KNOWN))
    except (UserError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
