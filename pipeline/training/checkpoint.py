"""Checkpoints of a training: all of its state in one folder per step, sealed with digests.

    results/checkpoints/{run}/step-000000001200/state.safetensors, state.json   everything that changes while a run trains
                                                best.safetensors, ...           weights kept under a label so far
                                                manifest.json                   SHA-256 of each file, and of specification and code

A folder is written under a temporary name, flushed to the disk and renamed; the two newest are kept. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pipeline.storage.atomic import explain_write_errors, fsync, temporary_path, write_text
from pipeline.storage.console import print0
from pipeline.storage.errors import CorruptFileError, MissingFileError
from pipeline.storage.manifest import seal, verify
from pipeline.storage.paths import safe_join
from pipeline.training.lease import Lease
from pipeline.training.stamp import Stamp
from pipeline.training.state import pack, read_tensors, unpack, write_tensors

KEPT = 2
"""Newest checkpoints kept: a damaged one leaves another to go on from."""

Labelled = dict[str, dict[str, Tensor] | Path]
"""Weights kept under a label: still in memory, or in the newest checkpoint's folder."""


class Saved(NamedTuple):
    """A checkpoint as it is read back."""

    state: dict[str, Any]
    weights: Labelled


class Checkpoints:
    """The checkpoints of one run, each with its `stamp`."""

    def __init__(self, folder: Path, stamp: Stamp, lease: Lease) -> None:
        self.folder = folder
        self.stamp = stamp
        self.lease = lease

    def save(self, step: int, state: dict[str, Any], weights: Labelled) -> Labelled:
        """Keep the state of one step; returns where its labelled weights lie now.

        Raises UserError when the disk is full or cannot be written: earlier checkpoints stay as they were. Raises BusyError when another
        trainer has the run.
        """
        self.lease.check()
        target = self._path(step)
        temporary = temporary_path(target)
        with explain_write_errors(target):
            try:
                self._write(temporary, step, state, weights)
                shutil.rmtree(target, ignore_errors=True)  # only a damaged one can be in the way
                temporary.rename(target)
                fsync(self.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._forget_others(step)
        return {label: target / f"{label}.safetensors" for label in weights}

    def load(self) -> Saved | None:
        """The newest undamaged checkpoint; None where there is none.

        A damaged one is reported in one line and passed over. Raises ForeignSpecError or ChangedCodeError for one with another stamp.
        """
        folders = self._all()
        for folder in reversed(folders):
            try:
                return self._read(folder)
            except (CorruptFileError, MissingFileError) as error:
                print0(f"{error}; trying the checkpoint before it")
        if folders:
            print0(f"{self.folder}: no undamaged checkpoint is left; starting from the beginning")
        return None

    def remove(self) -> None:
        """Delete all checkpoints: the run is finished, and its result kept."""
        for folder in self._all():
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, folder: Path, step: int, state: dict[str, Any], weights: Labelled) -> None:
        folder.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        tree = pack(state, tensors)
        write_tensors(folder / "state.safetensors", tensors)
        write_text(folder / "state.json", json.dumps(tree))
        for label, kept in weights.items():
            if isinstance(kept, Path):
                _link(kept, folder / f"{label}.safetensors")
            else:
                write_tensors(folder / f"{label}.safetensors", kept)
        names = ["state.safetensors", "state.json", *(f"{label}.safetensors" for label in weights)]
        seal(folder, names, {"step": step, "spec": self.stamp.spec, "code": self.stamp.code, "labels": sorted(weights)})

    def _read(self, folder: Path) -> Saved:
        manifest = verify(folder)
        self.stamp.check(folder, manifest)
        tree = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        weights: Labelled = {label: safe_join(folder, f"{label}.safetensors") for label in manifest["labels"]}
        return Saved(unpack(tree, read_tensors(folder / "state.safetensors")), weights)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:012d}"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _forget_others(self, step: int) -> None:
        """Keep the newest few up to this step; later ones can only be damaged ones that were passed over."""
        folders = self._all()
        useful = [folder for folder in folders if folder <= self._path(step)][-KEPT:]
        for folder in folders:
            if folder not in useful:
                shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file that never changes; a copy on file systems without hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        fsync(target)
