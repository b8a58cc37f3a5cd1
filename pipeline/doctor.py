"""Checks of the installation, the machine and the results folder, for `pipeline doctor`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Check = tuple[str, bool, str]
"""Name, whether it passed, details."""
MIN_FREE_DISK = 1e9
"""Bytes."""
PACKAGES = ("snakemake", "torch", "pyarrow", "pydantic", "safetensors")
OPTIONAL = ("mamba-ssm", "fla-core", "wandb")


def run_checks(results: Path) -> Iterator[Check]:
    """Run all checks."""
    yield "python", (3, 11) <= sys.version_info[:2] < (3, 14), sys.version.split()[0]
    for name in PACKAGES:
        found = _version(name)
        yield name, found is not None, found or "missing; run make setup"
    yield "optional packages", True, ", ".join(f"{name} {_version(name) or 'not installed'}" for name in OPTIONAL)
    yield _device()
    yield _compiler()
    yield from _backends()
    yield from _cluster()
    yield from _folder(results)
    yield from _seals(results)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> Check:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; runs use the CPU"
    return "gpu", True, f"{name} ({os.cpu_count()} CPUs)"


def _compiler() -> Check:
    found = shutil.which("cc")
    prebuilt = os.environ.get("RECURLAB_NATIVE")
    return (
        "compiler",
        True,
        found or (f"none; using the compiled libraries in {prebuilt}" if prebuilt else "none; using the torch backends"),
    )


def _backends() -> Iterator[Check]:
    import torch

    from pipeline.ops.selftest import try_backends

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield from ((f"backend {name}", ok, detail) for name, ok, detail in try_backends(device))


def _cluster() -> Iterator[Check]:
    """The image this runs in, and the programs that profiles/slurm and --sdm apptainer call."""
    yield "image", True, os.environ.get("RECURLAB_IMAGE") or os.environ.get("RECURLAB_COMMIT") or "none; not in a container"
    for name in ("sbatch", "apptainer"):
        yield name, True, shutil.which(name) or "not on PATH"


def _folder(results: Path) -> Iterator[Check]:
    from pipeline.results_lock import owner

    existing = next(path for path in (results, *results.resolve().parents) if path.exists())
    yield "writable", os.access(existing, os.W_OK), str(existing)
    free = shutil.disk_usage(existing).free
    yield "free disk", free > MIN_FREE_DISK, f"{free / 1e9:.1f} GB"
    live = owner(results)
    yield "owner", True, f"pid {live.get('pid')} on {live.get('host')}" if live else "no pipeline is running here"


def _seals(results: Path) -> Iterator[Check]:
    """Verify every file that a number comes from, and list the folders that are not verified."""
    from pipeline.storage.integrity import UNSEALED, count_seals, forget_verified, verify_all

    for folder in (results, *results.glob("try")):
        problems = dict(verify_all(folder))
        if problems:
            forget_verified(folder)
        found = f"; {len(problems)} damaged, missing or not sealed" if problems else ", all intact"
        yield "seals", not problems, f"{count_seals(folder)} sealed files below {folder}{found}"
        yield from (("seals", False, line) for line in problems.values())
    yield "not sealed", True, f"{', '.join(UNSEALED)}: they hold no results"
