"""Train one run, from its frozen specification to a published model. Torch is imported only if there is something to train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.catalogue import implementation
from pipeline.config.config_file import Runtime, Tracking
from pipeline.config.spec_files import load_component
from pipeline.frozen_plan import is_candidate
from pipeline.learners import parallel
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError
from pipeline.storage.manifest import verify
from pipeline.storage.paths import safe_join
from pipeline.training.diverged import diverged_at, refuse_diverged
from pipeline.training.finished_run import FinishedRun
from pipeline.training.lease import Lease
from pipeline.training.processes import barrier, check_division, from_rank_0, process_group
from pipeline.training.run_spec import RunSpec, read_run
from pipeline.training.signals import RESUMABLE, Stopped, StopRequest
from pipeline.training.stamp import Stamp, check_data, check_weights, code_now

if TYPE_CHECKING:
    import torch

    from pipeline.learners.base import Learner
    from pipeline.training.fit import Fit


def train(spec_path: Path, results: Path, runtime: Runtime, tracking: Tracking) -> int:
    """Train the run of `results/runs/{run}/run.yaml`, from its newest checkpoint if there is one, and publish it beside that file.

    Returns 0 if the run is finished, now or before, and 75 if a signal stopped it with its state saved: the same call resumes.
    Waits while another process trains the run. Raises UserError, one line, for invalid input.

    Every rank of a distributed training calls this; only rank 0 has the lease and writes.
    """
    try:
        with StopRequest() as stop, process_group(stop):
            return _attempt(read_run(spec_path), spec_path, results, runtime, tracking, stop)
    except Stopped as signal:
        print0(f"{signal}: stopped; the same command resumes from the newest checkpoint")
        return RESUMABLE


def _attempt(run: RunSpec, spec_path: Path, results: Path, runtime: Runtime, tracking: Tracking, stop: StopRequest) -> int:
    check_division(run, spec_path, parallel.world_size())
    stamp = Stamp(run.digest, code_now(run, results), runtime.changed_code == "allow")
    result = FinishedRun(safe_join(results, "checkpoints", run.id), stamp)
    with Lease(result.folder.parent) as lease:
        action = from_rank_0(lambda: _next_action(run, result, lease, stop))
        if action == "stopped" or (action == "train" and not _train(run, results, runtime, tracking, result, lease, stop)):
            return RESUMABLE
        if parallel.rank() == 0:
            lease.check()
            result.publish(safe_join(results, "runs", run.id))
        barrier()
    return 0


def _next_action(run: RunSpec, result: FinishedRun, lease: Lease, stop: StopRequest) -> str:
    """Wait for the lease, then return `train`, `finished` (the run was finished before) or `stopped` (a signal came first)."""
    if not lease.acquire(give_up=lambda: stop.received is not None):
        return "stopped"
    if result.exists():
        print0(f"{run.id}: already finished; 'pipeline retrain {run.id}' deletes the result")
        return "finished"
    return "train"


def _train(run: RunSpec, results: Path, runtime: Runtime, tracking: Tracking, result: FinishedRun, lease: Lease, stop: StopRequest) -> bool:
    """Train to the end and store the result; False if stopped by a signal."""
    from pipeline.training.checkpoint import Checkpoints
    from pipeline.training.device import prepare
    from pipeline.training.fit import Fit
    from pipeline.training.reporter import Reporter
    from pipeline.training.run_files import write_result
    from pipeline.training.tracking import Tracker

    device = prepare(max(runtime.threads // parallel.local_world_size(), 1), runtime.device)

    def start() -> Learner:
        with stop.immediate():
            return _make_learner(run, results, device, result.stamp.allow)

    learner = start()
    checkpoints = Checkpoints(lease.folder, result.stamp, lease)
    first = parallel.rank() == 0
    reporter = Reporter(run.id, lease.folder / "progress.json", terminal=None if first else False)
    tracker = Tracker(tracking if first else Tracking(), run.id, run.block, results)
    finished = False
    try:
        fit = Fit(learner, checkpoints, reporter, tracker, stop, device, runtime.checkpoint_seconds)
        finished = _fit(fit, run, results, start)
    finally:
        reporter.close()
        tracker.close(finished)
    if finished and first:
        lease.check()
        with result.draft() as draft:
            write_result(draft, run.id, fit, device)
        checkpoints.remove()
    return finished


def _fit(fit: Fit, run: RunSpec, results: Path, start: Callable[[], Learner]) -> bool:
    """Train to the end; False if stopped by a signal. A candidate of a tuned experiment that diverges ends with its initial weights."""
    from pipeline.learners.base import DivergedError

    try:
        return fit.run()
    except DivergedError as error:
        if not from_rank_0(lambda: is_candidate(results, run.id)):
            raise
        print0(f"{error}; kept as a trial of tune, worse than all others")
        fit.end_diverged(error.step, start())
        return True


def _make_learner(run: RunSpec, results: Path, device: torch.device, allow: bool) -> Learner:
    """Build the learner, before its first update, and seed the global generators."""
    from pipeline.learners.base import Problem
    from pipeline.networks.build import build
    from pipeline.storage.loader import open_episodes, open_rows
    from pipeline.training.device import seed_everything

    seed_everything(run.seed)
    for dataset in (run.train, run.validation):
        if dataset:
            check_data(results / "datasets" / dataset, run.task, allow)
    mode: Any = getattr(run.learner, "loader", "auto")
    train_rows = open_rows(safe_join(results, "datasets", run.train), mode) if run.train else None
    held_out = safe_join(results, "datasets", run.validation)
    validation = open_episodes(held_out) if run.task.kind == "environment" else open_rows(held_out, mode)
    network = build(run.network, run.task.sizes, run.seed).to(device)
    learner: Learner = implementation(run.learner)(run.learner, network, Problem(run.task, train_rows, validation), run.seed, device)
    if run.learner.parent:
        _adopt(learner, safe_join(results, "runs", run.learner.parent), allow)
    return learner


def _adopt(learner: Learner, parent: Path, allow: bool) -> None:
    """Start from the weights of another run. Raises UserError if they do not fit or diverged, ChangedCodeError if other code trained them."""
    from pipeline.learners.base import MismatchError
    from pipeline.training.serialization import check_finite, read_tensors

    manifest = verify(parent)
    if (step := diverged_at(parent)) is not None:
        refuse_diverged(parent, step)
    networks = json.loads((parent / "model" / "config.json").read_text(encoding="utf-8"))["networks"]
    check_weights(parent, manifest, allow, *(load_component("network", item["network"]) for item in networks.values()))
    try:
        learner.adopt({name: read_tensors(safe_join(parent, f"model/{name}.safetensors")) for name in networks})
    except MismatchError as error:
        raise UserError(f"{parent / 'model'}/{error}") from None
    for name, network in learner.networks.items():
        check_finite(network, parent / "model" / f"{name}.safetensors")
