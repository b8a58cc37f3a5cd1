"""The code a process runs: this package and installed plug-ins, each with version, commit and folder."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.config.catalogue import plug_ins
from pipeline.config.code import GROUPS, find_module

GIT_TIMEOUT = 10
"""Seconds."""


def own_package() -> dict[str, Any]:
    """Describe this package: version, commit (in an image, the one it was built from), and the folder its modules are loaded from."""
    file = Path(__file__).parents[1] / "__init__.py"
    return {"version": version_of("recurlab"), "commit": commit_of(file) or os.environ.get("RECURLAB_COMMIT"), "path": str(file.parent)}


def plugins() -> list[dict[str, Any]]:
    """Describe every package that adds components to the catalogue, in order of name."""
    entries = [entry for group in GROUPS for entry in plug_ins(group) if entry.dist]
    found = {entry.dist.name: (entry.dist, entry.module) for entry in entries if entry.dist}
    return [_plugin(distribution, module) for _, (distribution, module) in sorted(found.items())]


def _plugin(distribution: Distribution, module: str) -> dict[str, Any]:
    found = find_module(module)
    commit = _commit_installed(distribution) or (commit_of(found.file) if found else None)
    return {
        "package": distribution.name,
        "version": distribution.version,
        "commit": commit,
        "path": str(found.file.parent) if found else None,
    }


def _commit_installed(distribution: Distribution) -> str | None:
    """Return the commit that pip installed a package from; None if that was no repository."""
    try:
        return json.loads(distribution.read_text("direct_url.json") or "{}")["vcs_info"]["commit_id"]
    except (KeyError, TypeError, ValueError):
        return None


def commit_of(file: Path) -> str | None:
    """Return the commit of a file's repository, followed by `+` if the work tree differs; None if no repository tracks the file."""
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file.parent, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    """Return the output of git in a folder, ignoring GIT_* variables; None if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT, check=True, env=environment).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def version_of(name: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
