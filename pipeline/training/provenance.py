"""Provenance of a run: the code, machine and settings that trained it, which may differ between runs of the same specification."""

from __future__ import annotations

import os
import platform
import socket
from datetime import UTC, datetime
from typing import Any

import torch

from pipeline.environment_variables import recorded
from pipeline.learners import parallel
from pipeline.learners.base import Learner
from pipeline.ops.backends import used
from pipeline.training.packages import own_package, plugins, version_of

PACKAGES = ("torch", "numpy", "pyarrow", "safetensors", "pydantic", "snakemake", "fla-core", "triton")


def describe_provenance(learner: Learner, device: torch.device) -> dict[str, Any]:
    """Return code, versions, host, device, threads, processes, backends, and whether the same specification gives the same bits again."""
    return {
        "python": platform.python_version(),
        "recurlab": own_package(),
        "plugins": plugins(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": parallel.world_size(),
        "nodes": parallel.world_size() // parallel.local_world_size(),
        "backends": used(),
        "variables": recorded(),
        "budget": learner.config.budget,
        "reproducible": learner.reproducible,
        "job": os.environ.get("SLURM_JOB_ID"),
        "container": os.environ.get("APPTAINER_CONTAINER"),
        "image": os.environ.get("RECURLAB_IMAGE"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
