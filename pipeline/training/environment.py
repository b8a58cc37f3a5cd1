"""Where and with what a run was trained: what may differ between two machines that are given the same specification."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pipeline.learners import parallel
from pipeline.learners.base import Learner
from pipeline.mixers.backends import used

PACKAGES = ("recurlab", "torch", "numpy", "pyarrow", "safetensors", "pydantic", "snakemake", "fla-core", "triton")


def describe_environment(learner: Learner, device: torch.device) -> dict[str, Any]:
    """Versions, commit, host, device, threads, processes, backends, and whether the same specification gives the same bits again."""
    budget = next(key for key in ("rows", "steps", "seconds") if getattr(learner.config, key) is not None)
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": parallel.size(),
        "nodes": parallel.size() // parallel.on_this_node(),
        "backends": used(),
        "budget": budget,
        "reproducible": learner.reproducible,
        "job": os.environ.get("SLURM_JOB_ID"),
        "container": os.environ.get("APPTAINER_CONTAINER"),
        "image": os.environ.get("RECURLAB_IMAGE"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code, `+` behind it where files differ; in an image the one it was built from; None outside of both."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("RECURLAB_COMMIT")
    return found.stdout.strip()
