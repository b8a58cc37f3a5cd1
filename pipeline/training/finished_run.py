"""The result of a finished training, stored beside its checkpoints and published into the run's folder.

    results/checkpoints/{run}/finished/   model/config.json, {network}.safetensors, {label}/{network}.safetensors, assets; history.parquet;
                                          timing.parquet, environment.json; manifest.json over all of them
    results/runs/{run}/                   copies of them; manifest.json over the digested ones, written last

The workflow deletes a job's declared outputs before it runs the job again. So the result stays beside the checkpoints, where no rule
declares it, and publishing it again costs a copy and no training.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.storage.atomic import explain_write_errors, fsync, temporary_path
from pipeline.storage.console import print0
from pipeline.storage.errors import CorruptFileError, MissingFileError
from pipeline.storage.files import delete
from pipeline.storage.integrity import DAMAGED
from pipeline.storage.manifest import seal, verify
from pipeline.storage.seals import SUFFIX, sealed
from pipeline.training.stamp import Stamp

SIDECARS = ("timing.parquet", "environment.json")
"""Files that differ between two trainings of the same specification: published, but not digested."""


class FinishedRun:
    """The result of one run, with its `stamp`."""

    def __init__(self, checkpoints: Path, stamp: Stamp) -> None:
        self.folder = checkpoints / "finished"
        self.stamp = stamp

    def exists(self) -> bool:
        """Whether the run is finished; a damaged result does not count.

        Raises ForeignSpecError or ChangedCodeError if another specification or other code made the result.
        """
        if not self.folder.exists():
            return False
        try:
            manifest = verify(self.folder)
        except (CorruptFileError, MissingFileError) as error:
            print0(f"{error}; training resumes from the newest checkpoint, or starts again")
            return False
        self.stamp.check(self.folder, manifest)
        return True

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Yield a folder to write the result's files into; at the end of the block they are sealed and moved into place."""
        draft = temporary_path(self.folder)
        with explain_write_errors(self.folder):
            try:
                yield draft
                for single in draft.rglob(f".*{SUFFIX}"):
                    single.unlink()  # the manifest covers them all
                names = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
                seal(draft, names, {"spec": self.stamp.spec, "code": self.stamp.code})
                shutil.rmtree(self.folder, ignore_errors=True)
                draft.rename(self.folder)
                fsync(self.folder.parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    def publish(self, run: Path) -> None:
        """Copy the result into the run's folder, the manifest last; do nothing if it is already there, undamaged."""
        manifest = verify(self.folder)
        names = list(manifest["files"])
        if self._is_published(run, manifest):
            return
        (run / "manifest.json").unlink(missing_ok=True)
        for stale in (run / "model").glob("*"):
            if not stale.name.endswith(DAMAGED):  # damaged files set aside are for the user to inspect
                delete(stale)
        for leftover in run.glob(".*.tmp"):
            leftover.unlink()
        for name in names:
            with sealed(run / name) as temporary:
                shutil.copyfile(self.folder / name, temporary)
        seal(run, [name for name in names if name not in SIDECARS], {"spec": manifest["spec"], "code": manifest.get("code")})

    def _is_published(self, run: Path, finished: dict[str, Any]) -> bool:
        """Whether the run's folder holds this result, not one of an earlier training."""
        try:
            manifest: dict[str, Any] = verify(run)
        except (CorruptFileError, MissingFileError):
            return False
        same = all(manifest.get(key) == finished.get(key) for key in ("spec", "code"))
        digested = {name: entry for name, entry in finished["files"].items() if name not in SIDECARS}
        return same and manifest["files"] == digested and all((run / name).exists() for name in SIDECARS)
