"""What can be wrong with a machine or a results folder, looked at one by one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Finding = tuple[str, bool, str]
LOW_DISK = 1e9
PACKAGES = ("snakemake", "torch", "pyarrow", "pydantic", "safetensors")
OPTIONAL = ("mamba-ssm", "fla-core", "wandb")


def examine(results: Path) -> Iterator[Finding]:
    """Yield (what was looked at, whether it is well, what was found)."""
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
    yield from _sealed(results)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> Finding:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; runs use the CPU"
    return "gpu", True, f"{name} ({os.cpu_count()} CPUs)"


def _compiler() -> Finding:
    found = shutil.which("cc")
    prebuilt = os.environ.get("RECURLAB_NATIVE")
    return "compiler", True, found or (f"none; libraries of {prebuilt} are used" if prebuilt else "none; the torch backends are used")


def _backends() -> Iterator[Finding]:
    import torch

    from pipeline.ops.selftest import try_backends

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield from ((f"backend {name}", well, found) for name, well, found in try_backends(device))


def _cluster() -> Iterator[Finding]:
    """What lies outside Python: the image this runs in, and the programs that profiles/slurm and --sdm apptainer call."""
    yield "image", True, os.environ.get("RECURLAB_IMAGE") or os.environ.get("RECURLAB_COMMIT") or "none; this is no container"
    for name in ("sbatch", "apptainer"):
        yield name, True, shutil.which(name) or "not on the path"


def _folder(results: Path) -> Iterator[Finding]:
    from pipeline.workspace import owner

    existing = next(path for path in (results, *results.resolve().parents) if path.exists())
    yield "writable", os.access(existing, os.W_OK), str(existing)
    free = shutil.disk_usage(existing).free
    yield "free disk", free > LOW_DISK, f"{free / 1e9:.1f} GB"
    live = owner(results)
    yield "owner", True, f"pid {live.get('pid')} on {live.get('host')}" if live else "no pipeline is running here"


def _sealed(results: Path) -> Iterator[Finding]:
    """Every file that numbers come from, verified; what is damaged or has no seal; and what nothing looks at."""
    from pipeline.storage.damage import UNSEALED, count_seals, examine_all, forget_verified

    for folder in (results, *results.glob("try")):
        problems = dict(examine_all(folder))
        if problems:
            forget_verified(folder)
        found = f"; {len(problems)} damaged, lost or without a seal" if problems else ", all intact"
        yield "seals", not problems, f"{count_seals(folder)} sealed files below {folder}{found}"
        yield from (("seals", False, line) for line in problems.values())
    yield "without seals", True, f"{', '.join(UNSEALED)}: no number comes from them"
