"""Load a trained network from its run's folder, every byte verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.config.spec_files import load_component
from pipeline.config.tasks import Task
from pipeline.networks.build import build
from pipeline.storage.errors import ForeignSpecError, UserError
from pipeline.storage.manifest import verify
from pipeline.storage.paths import safe_join
from pipeline.training.serialization import check_finite, read_tensors
from pipeline.training.stamp import check_weights


def load_model(
    run: Path, checkpoint: str = "model", allow_changed_code: bool = False, task: Task | None = None, name: str = "model"
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a network of `results/runs/{run}`, in evaluation mode on the CPU; return it and its description: run, network, sizes.

    checkpoint: `model`, the weights that learner.select named, or the label of another kept checkpoint. name: which of the learner's
    networks. Raises MissingFileError or CorruptFileError if the run is not finished or not intact, UserError if it has no such label or
    name, and ChangedCodeError if the code of the network, or of the `task` it is measured on, has changed since it was trained.
    """
    manifest = verify(run)
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    if name not in config["networks"]:
        raise UserError(f"{run.name}: network {name}: not trained; expected one of {', '.join(sorted(config['networks']))}")
    file = safe_join(run, f"model/{_file(run, config, checkpoint, name)}")
    described = config["networks"][name]
    kind = load_component("network", described["network"])
    check_weights(run, manifest, allow_changed_code, kind, task=task)
    network = build(kind, described["sizes"])
    try:
        network.load_state_dict(read_tensors(file))
    except RuntimeError:
        raise ForeignSpecError(f"{file}: tensors of another network than this version builds; run the workflow again") from None
    check_finite(network, file)
    return network, {"run": config["run"], **described}


def _file(run: Path, config: dict[str, Any], checkpoint: str, name: str) -> str:
    kept = config["checkpoints"]
    if checkpoint == "model":
        return f"{name}.safetensors"
    if checkpoint not in kept:
        raise UserError(f"{run.name}: checkpoint {checkpoint}: not kept; expected model or one of {', '.join(kept)}")
    return kept[checkpoint]["files"][name]
