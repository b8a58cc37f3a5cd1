"""Jobs run the package beside the Snakefile, with the Python that runs Snakemake, whatever else is named `pipeline`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.workflow.suite import BINARIES, REPOSITORY, Suite, tiny

pytestmark = pytest.mark.workflow


class Checkout(Suite):
    """A suite run with the Snakefile of another checkout."""

    def command(self, *words: str) -> list[str]:
        """Plain `snakemake` with that checkout's Snakefile."""
        return [
            word.replace(str(REPOSITORY / "Snakefile"), str(self.folder.parent / "checkout/Snakefile")) for word in super().command(*words)
        ]


def decoys(folder: Path) -> dict[str, str]:
    """An environment in which another `pipeline` comes first everywhere: on the path, among Python's packages and in the working folder."""
    program = folder / "bin" / "pipeline"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho decoy on the path >&2\nexit 9\n")
    program.chmod(0o755)
    for place in (folder / "site", folder / "suite"):
        (place / "pipeline").mkdir(parents=True, exist_ok=True)
        for name in ("__init__.py", "__main__.py"):
            (place / "pipeline" / name).write_text(f"raise SystemExit('decoy package in {place.name}')\n")
    return {"PATH": f"{program.parent}:{BINARIES}:{os.environ['PATH']}", "PYTHONPATH": str(folder / "site")}


def small() -> dict[str, object]:
    """One short run, shared by two processes, which a launcher starts."""
    config = tiny()
    first = config["experiments"]["first"]
    first["sweep"] = {}
    first["figures"] = []
    first["base"]["learner"]["steps"] = 4
    return {**config, "runtime": {"processes": 2}}


def where(suite: Suite) -> str:
    """The package that trained the suite's one run."""
    files = list(suite.results.glob("runs/*/environment.json"))
    assert len(files) == 1
    return json.loads(files[0].read_text())["recurlab"]["path"]


def test_jobs_ignore_another_pipeline_command_on_the_path(tmp_path: Path) -> None:
    environment = decoys(tmp_path)
    suite = Suite(tmp_path / "suite", small())
    suite.run(**environment)
    assert where(suite) == str(REPOSITORY / "pipeline")


def test_jobs_run_the_checkout_of_the_snakefile(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pipeline", "workflow", "profiles"):
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", checkout)
    (tmp_path / "suite").mkdir()
    suite = Checkout(tmp_path / "suite", small())
    suite.run(PYTHONPATH=str(REPOSITORY))
    assert where(suite) == str(checkout / "pipeline")
