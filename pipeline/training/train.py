"""One training, from a frozen specification to a published model. Torch is imported only when there is something to train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.catalogue import implementation
from pipeline.config.experiment import Runtime, Tracking
from pipeline.learners import parallel
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError
from pipeline.storage.paths import safe_join
from pipeline.training.lease import Lease
from pipeline.training.outcome import Outcome
from pipeline.training.processes import agreed, check_division, together, wait_for_all
from pipeline.training.signals import RESUMABLE, Stopped, StopRequest
from pipeline.training.spec import RunSpec, read_run
from pipeline.training.stamp import WEIGHTS, Stamp, check_data, check_weights, code_now

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipeline.config.networks import Network
    from pipeline.learners.base import Learner


def train(spec_path: Path, results: Path, runtime: Runtime, tracking: Tracking) -> int:
    """Train the run of `results/runs/{run}/run.yaml`, from its newest checkpoint if there is one, and publish it beside that file.

    Returns 0 when the run is finished, now or before, and 75 when a signal stopped it with its state saved: the same call goes on.
    Waits while another process trains the run. Raises UserError, one line, for everything a user can mend.

    Processes that share the training all call this. Process 0 alone has the lease, and writes.
    """
    try:
        with StopRequest() as stop, together(stop):
            return _attempt(read_run(spec_path), spec_path, results, runtime, tracking, stop)
    except Stopped as signal:
        print0(f"{signal}: stopped; the same command goes on from the newest checkpoint")
        return RESUMABLE


def _attempt(run: RunSpec, spec_path: Path, results: Path, runtime: Runtime, tracking: Tracking, stop: StopRequest) -> int:
    check_division(run, spec_path, parallel.size())
    stamp = Stamp(run.digest, code_now(run, results), runtime.changed_code == "allow")
    outcome = Outcome(safe_join(results, "checkpoints", run.id), stamp)
    with Lease(outcome.folder.parent) as lease:
        course = agreed(lambda: _course(run, outcome, lease, stop))
        if course == "stopped" or (course == "train" and not _train(run, results, runtime, tracking, outcome, lease, stop)):
            return RESUMABLE
        if parallel.rank() == 0:
            lease.check()
            outcome.publish(safe_join(results, "runs", run.id))
        wait_for_all()
    return 0


def _course(run: RunSpec, outcome: Outcome, lease: Lease, stop: StopRequest) -> str:
    """Wait for the lease; then whether to train, or the run was finished before, or a signal came first."""
    if not lease.acquire(give_up=lambda: stop.received is not None):
        return "stopped"
    if outcome.exists():
        print0(f"{run.id}: finished before; 'pipeline retrain {run.id}' throws the result away")
        return "finished"
    return "train"


def _train(run: RunSpec, results: Path, runtime: Runtime, tracking: Tracking, outcome: Outcome, lease: Lease, stop: StopRequest) -> bool:
    """Train to the end and keep the outcome; False when a signal came first."""
    from pipeline.training.checkpoint import Checkpoints
    from pipeline.training.device import prepare, seed_everything
    from pipeline.training.export import write_result
    from pipeline.training.fit import Fit
    from pipeline.training.progress import Reporter
    from pipeline.training.tracking import Tracker

    device = prepare(max(runtime.threads // parallel.on_this_node(), 1), runtime.device)
    seed_everything(run.seed)
    with stop.at_once():
        learner, network = _make_learner(run, results, device, outcome.stamp.allow)
    checkpoints = Checkpoints(lease.folder, outcome.stamp, lease)
    first = parallel.rank() == 0
    reporter = Reporter(run.id, lease.folder / "progress.json", terminal=None if first else False)
    tracker = Tracker(tracking if first else Tracking(), run.id, run.block, results)
    finished = False
    try:
        fit = Fit(learner, checkpoints, reporter, tracker, stop, device, runtime.checkpoint_seconds)
        finished = fit.run()
    finally:
        reporter.close()
        tracker.close(finished)
    if finished and first:
        lease.check()
        with outcome.draft() as draft:
            write_result(draft, run, network, fit, device)
        checkpoints.remove()
    return finished


def _make_learner(run: RunSpec, results: Path, device: torch.device, allow: bool) -> tuple[Learner, Network]:
    """The learner at its start, and the config of the network it trains, its width known."""
    from pipeline.learners.base import Problem
    from pipeline.networks.build import build, resolve_width
    from pipeline.storage.loader import open_episodes, open_rows

    for dataset in (run.train, run.validation):
        if dataset:
            check_data(results / "datasets" / dataset, run.task, allow)
    mode: Any = getattr(run.learner, "loader", "auto")
    train_rows = open_rows(safe_join(results, "datasets", run.train), mode) if run.train else None
    held_out = safe_join(results, "datasets", run.validation)
    played = run.task.kind == "environment"
    problem = Problem(run.task, train_rows, open_episodes(held_out) if played else open_rows(held_out, mode))
    config = resolve_width(run.network, run.task.sizes)
    network = build(config, run.task.sizes, run.seed).to(device)
    if run.learner.parent:
        _start_from(network, safe_join(results, "runs", run.learner.parent), run.network, allow)
    return implementation(run.learner)(run.learner, network, problem, run.seed, device), config


def _start_from(network: nn.Module, parent: Path, config: Network, allow: bool) -> None:
    """Load another run's weights. Raises UserError naming the first tensor that does not fit, ChangedCodeError for other code's weights."""
    from pipeline.storage.manifest import verify
    from pipeline.training.state import read_tensors, refuse_not_finite

    check_weights(parent, verify(parent), allow, config)
    file = parent / WEIGHTS
    weights = read_tensors(file)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            here, there = (shapes.get(name, "no such tensor") for shapes in (found, expected))
            raise UserError(f"{file}: {name}: got {here}, expected {there}: a parent must have the network of its child")
    network.load_state_dict(weights)
    refuse_not_finite(network, file)
