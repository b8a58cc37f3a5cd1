"""A trained network back from its run's folder, every byte verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.config.frozen import revive
from pipeline.config.tasks import Task
from pipeline.networks.build import build
from pipeline.storage.errors import ForeignSpecError, UserError
from pipeline.storage.manifest import verify
from pipeline.storage.paths import safe_join
from pipeline.training.stamp import check_weights
from pipeline.training.state import read_tensors, refuse_not_finite


def load_model(
    run: Path, checkpoint: str = "model", allow_changed_code: bool = False, task: Task | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of `results/runs/{run}` with its weights, ready to answer, on the CPU; and what model/config.json says of it.

    checkpoint: `model`, the weights that learner.select named, or the label of another kept checkpoint. Raises MissingFileError or
    CorruptFileError for a run that is not finished or not intact, UserError for a label it did not keep, and ChangedCodeError where the
    network, or the `task` it is measured on, has other code than when it was trained.
    """
    manifest = verify(run)
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    file = safe_join(run, "model", _file(run, config, checkpoint))
    described = revive("network", config["network"])
    check_weights(run, manifest, allow_changed_code, described, task)
    network = build(described, config["sizes"])
    try:
        network.load_state_dict(read_tensors(file))
    except RuntimeError:
        raise ForeignSpecError(f"{file}: tensors of another network than this version builds; run the workflow again") from None
    refuse_not_finite(network, file)
    return network, config


def _file(run: Path, config: dict[str, Any], checkpoint: str) -> str:
    kept = config["checkpoints"]
    if checkpoint == "model":
        return "model.safetensors"
    if checkpoint not in kept:
        raise UserError(f"{run.name}: checkpoint {checkpoint}: not kept; expected model or one of {', '.join(kept)}")
    return kept[checkpoint]["file"]
