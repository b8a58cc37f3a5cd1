"""Checkpoints of a training: all of its state in one folder per step, sealed with digests.

    results/checkpoints/{run}/step-000000001200/state.safetensors, state.json    everything that changes while a run trains
                                                best/model.safetensors, ...      each network's weights under each label
                                                state/learner/replay/{first}-{end}.safetensors    rows of a replay buffer
                                                manifest.json                    SHA-256 of each file, and of specification and code

A folder is written under a temporary name, flushed to disk and renamed; the two newest are kept. Nothing is pickled.

Data that never changes is written once: labelled weights and the rows of replay buffers are hard links to files of the previous checkpoint, with
the digests recorded there. Each checkpoint adds one file with the rows appended since, and drops files whose rows have all left the buffer.
Damage to a linked file damages every checkpoint that links it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pipeline.learners.replay import Replay
from pipeline.storage.atomic import explain_write_errors, fsync, temporary_path, write_text
from pipeline.storage.console import print0
from pipeline.storage.errors import CorruptFileError, MissingFileError
from pipeline.storage.manifest import MANIFEST, read_manifest, seal, verify
from pipeline.storage.paths import safe_join
from pipeline.training.lease import Lease
from pipeline.training.serialization import pack, read_tensors, unpack, write_tensors
from pipeline.training.stamp import Stamp

KEPT = 2
"""Newest checkpoints kept: if one is damaged, training resumes from the other."""

Kept = dict[str, dict[str, dict[str, Tensor] | Path]]
"""Label -> name of the network -> its weights: in memory, or a file in the newest checkpoint."""
Segments = dict[str, list[tuple[int, int]]]
"""Name of a replay buffer in the state -> the rows (first, end) of each of its files, in order."""


class Saved(NamedTuple):
    """A checkpoint read from disk."""

    state: dict[str, Any]
    kept: Kept


class Checkpoints:
    """The checkpoints of one run, each with its `stamp`. `bytes_written`: by the last `save`, without hard links."""

    def __init__(self, folder: Path, stamp: Stamp, lease: Lease) -> None:
        self.folder = folder
        self.stamp = stamp
        self.lease = lease
        self.bytes_written = 0
        self._newest: Path | None = None
        self._segments: Segments = {}

    def save(self, step: int, state: dict[str, Any], kept: Kept) -> Kept:
        """Save the state of one step; return where its labelled weights are now.

        Raises UserError if the disk is full or cannot be written: earlier checkpoints stay as they were. Raises BusyError if another
        trainer has the run.
        """
        self.lease.check()
        target = self._path(step)
        temporary = temporary_path(target)
        with explain_write_errors(target):
            try:
                segments, written = self._write(temporary, step, state, kept)
                shutil.rmtree(target, ignore_errors=True)  # only a damaged checkpoint can be there
                temporary.rename(target)
                fsync(self.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._newest, self._segments, self.bytes_written = target, segments, written
        self._delete_others(step)
        return _files(target, {label: list(models) for label, models in kept.items()})

    def load(self) -> Saved | None:
        """Load the newest undamaged checkpoint; None if there is none.

        A damaged one is reported in one line and skipped. Raises ForeignSpecError or ChangedCodeError if its stamp differs.
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
        """Delete all checkpoints, once the result of the run is stored."""
        for folder in self._all():
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, folder: Path, step: int, state: dict[str, Any], kept: Kept) -> tuple[Segments, int]:
        """Write all files; return the segments of replay buffers and the bytes written."""
        folder.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        replays: dict[str, Replay] = {}
        tree = pack(state, tensors, replays)
        write_tensors(folder / "state.safetensors", tensors)
        write_text(folder / "state.json", json.dumps(tree))
        names, linked = ["state.safetensors", "state.json"], dict[str, Path]()
        for label, models in kept.items():
            for model, weights in models.items():
                names.append(name := f"{label}/{model}.safetensors")
                if isinstance(weights, Path):
                    linked[name] = weights
                else:
                    write_tensors(folder / name, weights)
        segments = {name: self._write_replay(folder, name, replay, linked) for name, replay in replays.items()}
        names += [_segment(name, *rows) for name, parts in segments.items() for rows in parts]
        _link(folder, linked)
        facts = {"step": step, "spec": self.stamp.spec, "code": self.stamp.code, "segments": segments}
        known = read_manifest(self._newest)["files"] if linked and self._newest else {}
        labels = {label: sorted(models) for label, models in kept.items()}
        seal(folder, names, {**facts, "labels": labels}, {name: known[name] for name in linked})
        written = [name for name in (*names, MANIFEST) if name not in linked]
        return segments, sum((folder / name).stat().st_size for name in written)

    def _write_replay(self, folder: Path, name: str, replay: Replay, linked: dict[str, Path]) -> list[tuple[int, int]]:
        """Write the rows that are in no file yet, and add the files of the others to `linked`; return the rows of all files."""
        before = [(first, end) for first, end in self._segments.get(name, []) if replay.first < end <= replay.count]
        assert self._newest or not before
        linked |= {_segment(name, *rows): safe_join(self._newest or folder, _segment(name, *rows)) for rows in before}
        start = before[-1][1] if before else replay.first
        if start == replay.count:
            return before
        write_tensors(folder / _segment(name, start, replay.count), replay.rows(np.arange(start, replay.count)))
        return [*before, (start, replay.count)]

    def _read(self, folder: Path) -> Saved:
        manifest = verify(folder)
        self.stamp.check(folder, manifest)
        tree = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        segments = {name: [(first, end) for first, end in parts] for name, parts in manifest["segments"].items()}

        def fill(name: str, replay: Replay, count: int) -> None:
            for index, (first, end) in enumerate(segments.get(name, [])):
                if index == 0:
                    replay.skip(first)
                replay.append(read_tensors(safe_join(folder, _segment(name, first, end))))
            assert replay.count == count, f"{name}: rows are missing"

        state = unpack(tree, read_tensors(folder / "state.safetensors"), fill)
        self._newest, self._segments = folder, segments
        return Saved(state, _files(folder, manifest["labels"]))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:012d}"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _delete_others(self, step: int) -> None:
        """Keep the newest `KEPT` up to this step; later ones can only be damaged ones that were skipped."""
        folders = self._all()
        useful = [folder for folder in folders if folder <= self._path(step)][-KEPT:]
        for folder in folders:
            if folder not in useful:
                shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path, labels: dict[str, list[str]]) -> Kept:
    """Return the files of the labelled weights in a checkpoint."""
    return {label: {model: safe_join(folder, f"{label}/{model}.safetensors") for model in models} for label, models in labels.items()}


def _segment(name: str, first: int, end: int) -> str:
    return f"{name}/{first:012d}-{end:012d}.safetensors"


def _link(folder: Path, sources: dict[str, Path]) -> None:
    """Hard-link files that never change into a checkpoint; copy them on file systems without hard links."""
    for name, source in sources.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
            fsync(target)
    for parent in {(folder / name).parent for name in sources}:
        fsync(parent)
