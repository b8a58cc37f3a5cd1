"""Find results made by other code than the current code, and what to delete so that they are recomputed. Never imports torch."""

from __future__ import annotations

import fcntl
import fnmatch
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.code import Code, changed, code_of, some
from pipeline.storage.errors import BusyError, UserError
from pipeline.storage.files import delete
from pipeline.storage.seals import seal_path

if TYPE_CHECKING:
    from pipeline.plan import Plan

Changes = dict[str, dict[str, list[str]]]
"""Run or dataset -> its components whose code changed -> the files that differ."""


def changed_code_report(results: Path, plan: Plan) -> list[str]:
    """Return lines about results that other code made, for `pipeline status` and `check`: one per set of changed files."""
    runs = changed_runs(results, plan)
    lines = [*_grouped("run", "trained", runs), *_grouped("dataset", "generated", changed_datasets(results, plan))]
    if runs:
        lines.append("'pipeline retrain --changed' deletes these results; runtime.changed_code: allow uses them as they are")
    return lines


def _grouped(kind: str, verb: str, changes: Changes) -> Iterator[str]:
    groups: dict[tuple[str, ...], tuple[set[str], set[str]]] = {}
    for name, components in changes.items():
        for component, files in components.items():
            names, parts = groups.setdefault(tuple(files), (set(), set()))
            names.add(name)
            parts.add(component)
    for files, (names, parts) in sorted(groups.items()):
        count = f"1 {kind} was" if len(names) == 1 else f"{len(names)} {kind}s were"
        yield f"code changed since {count} {verb}: {some(sorted(parts))}: {some(files)}"


def changed_runs(results: Path, plan: Plan) -> Changes:
    """Return the runs of a plan whose result, or newest checkpoint, was made by other code."""
    found, known = {}, Code()
    for run in plan.runs.values():
        manifest = _manifest_of_run(results, run.id)
        changes = changed(manifest.get("code"), _present(results, run.spec, known)) if manifest else {}
        if changes:
            found[run.id] = changes
    return found


def changed_datasets(results: Path, plan: Plan) -> Changes:
    """Return the datasets of a plan whose rows were made by other code."""
    found, known = {}, Code()
    for dataset in plan.datasets.values():
        manifest = _read(results / "datasets" / dataset.id / "manifest.json")
        changes = changed(manifest.get("code"), _code(known, task=dataset.spec["task"])) if manifest else {}
        if changes:
            found[dataset.id] = changes
    return found


def _present(results: Path, spec: dict[str, Any], known: Code) -> Code:
    from pipeline.training.stamp import weights_of

    return _code(known, **{kind: spec[kind] for kind in ("task", "network", "learner")}) | weights_of(
        spec["learner"].get("parent"), results
    )


def _code(known: Code, **blocks: dict[str, Any]) -> Code:
    """Return the current code of the components in a frozen spec; empty if a component no longer exists or has another version."""
    from pipeline.config.spec_files import load_component

    try:
        return code_of(*(load_component(kind, block) for kind, block in blocks.items()), known=known)  # pyright: ignore[reportArgumentType]
    except UserError:
        return {}


def _manifest_of_run(results: Path, run: str) -> dict[str, Any]:
    """Read the manifest of a run's result, else of its newest checkpoint."""
    kept = results / "checkpoints" / run
    steps = sorted(kept.glob("step-*"), reverse=True)
    folders = (results / "runs" / run, kept / "finished", *steps)
    return next((manifest for folder in folders if (manifest := _read(folder / "manifest.json"))), {})


def _read(path: Path) -> dict[str, Any]:
    """Read a manifest without verifying it; empty if it is missing or damaged, which the readers of its folder report."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass
class Deletion:
    """What is to be deleted from a results folder, and the experiments whose tables and figures must then be updated."""

    results: Path
    runs: list[str]
    children: list[str] = field(default_factory=list)
    evaluations: list[Path] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    profiles: list[Path] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise BusyError if one of the runs is being trained."""
        from pipeline.training.lease import read_owner
        from pipeline.training.run_status import is_running

        for run in (*self.runs, *self.children):
            folder = self.results / "checkpoints" / run
            if is_running(folder):
                raise BusyError(f"{folder}: being trained by {read_owner(folder) or 'another process'}; stop it first")

    def delete(self) -> None:
        """Delete everything but the runs' specs. Raises BusyError, before anything is deleted, if a run is being trained."""
        self.check()
        for path in (*self.evaluations, *self.profiles):
            delete(path)
            delete(seal_path(path))
        for name in self.datasets:
            shutil.rmtree(self.results / "datasets" / name, ignore_errors=True)
        for run in (*self.children, *self.runs):
            self._delete_run(run)

    def _delete_run(self, run: str) -> None:
        from pipeline.training.lease import lock

        kept, published = self.results / "checkpoints" / run, self.results / "runs" / run
        held = lock(kept, fcntl.LOCK_EX) if kept.is_dir() else None
        shutil.rmtree(kept, ignore_errors=True)
        (published / "manifest.json").unlink(missing_ok=True)
        spec = published / "run.yaml"
        for path in published.glob("*"):
            if path not in (spec, seal_path(spec)):
                delete(path)
        (self.results / "logs" / "train" / f"{run}.log").unlink(missing_ok=True)
        if held:
            held.close()


def plan_deletion(results: Path, plan: Plan, runs: Iterable[str]) -> Deletion:
    """Plan what has to be deleted with these runs. plan: the last plan of this folder."""
    runs = list(dict.fromkeys(runs))
    children = _children(results, runs)
    every = {*runs, *children}
    planned = [run for run in plan.runs.values() if run.id in every]
    measured = {name for item in plan.evaluations.values() if item.run in every for name in item.datasets}
    used = {name for run in planned for name in run.data} | measured
    profiles = {name: results / "profiles" / f"{name}.parquet" for name in sorted({run.network for run in planned})}
    return Deletion(
        results,
        runs,
        children,
        evaluations=[path for run in sorted(every) for path in sorted((results / "evaluations" / run).glob("*.parquet"))],
        datasets=sorted(name for name in changed_datasets(results, plan) if name in used),
        profiles=[path for name, path in profiles.items() if _is_outdated(path, plan.networks[name])],
        experiments=sorted(name for name, found in plan.experiments.items() if every & {item["run"] for item in found.spec["runs"]}),
    )


def _children(results: Path, runs: list[str]) -> list[str]:
    """Return the runs that started from the weights of these, and their descendants."""
    known = {name: _manifest_of_run(results, name).get("code") or {} for name in trained_runs(results)}
    found = set(runs)
    while more := {name for name, code in known.items() if name not in found and any(f"parent {run}" in code for run in found)}:
        found |= more
    return sorted(found - set(runs))


def _is_outdated(profile: Path, network: dict[str, Any]) -> bool:
    """Whether a profile was measured with other code."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        note = (pq.read_schema(profile).metadata or {}).get(b"code", b"{}")
        return bool(changed(json.loads(note), _code({}, network=network["network"])))
    except (OSError, pa.ArrowException, ValueError):
        return False


def trained_runs(results: Path) -> list[str]:
    """Return the runs that have a result or a checkpoint."""
    names = {path.name for folder in ("runs", "checkpoints") for path in (results / folder).glob("*")}
    return sorted(name for name in names if _manifest_of_run(results, name))


def select_runs(results: Path, plan: Plan, words: Iterable[str]) -> list[str]:
    """Return the trained runs that `words` name: identifiers, patterns, experiments. Raises UserError for a word that matches none."""
    from pipeline.config.document import suggestion

    known, found = trained_runs(results), []
    for word in words:
        experiment = plan.experiments.get(word)
        of_it = {item["run"] for item in experiment.spec["runs"]} if experiment else set()
        runs = [name for name in known if name in of_it or fnmatch.fnmatchcase(name, word)]
        if not runs and not experiment:
            raise UserError(f"retrain {word}: no trained run or experiment of {results}{suggestion(word, [*known, *plan.experiments])}")
        found += runs
    return found
