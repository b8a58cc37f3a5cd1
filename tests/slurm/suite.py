"""A tiny suite whose jobs are submitted to a test cluster, by the profile that a site would use."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import psutil

from pipeline.training.lease import read_owner
from tests.slurm.cluster import Cluster
from tests.workflow.suite import BINARIES, REPOSITORY, Suite, wait_until

PROFILE = REPOSITORY / "profiles" / "slurm" / "config.yaml"
SITE = {"jobs": "20", "latency-wait": "10", "slurm_partition": "main"}
"""Values of this cluster for the numbered lines of the profile. It keeps no accounts: that line is taken out."""
FAST = (
    "--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1",
    "--seconds-between-status-checks", "1",
)  # fmt: skip
"""A cluster without accounting, whose jobs last seconds."""

PATIENCE = 300
"""Seconds to wait for what takes some: machines are busy at times."""


def site_profile(text: str, **values: str) -> str:
    """The profile with the values of a site in its numbered lines."""
    text = re.sub(r"^  slurm_account:.*\n", "", text, count=1, flags=re.MULTILINE)
    for key, value in {**SITE, **values}.items():
        text, found = re.subn(rf"^( *{key}: ).*", rf"\g<1>{value}", text, count=1, flags=re.MULTILINE)
        assert found, f"{key}: no such line in {PROFILE}"
    return text


class SlurmSuite(Suite):
    """A suite with a profile of its own beside its config."""

    def __init__(self, folder: Path, config: dict[str, Any], cluster: Cluster, **site: str) -> None:
        super().__init__(folder, config)
        self.config = config
        self.cluster = cluster
        self.environment |= {**cluster.environment, "PATH": f"{BINARIES}:{cluster.environment['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        self.profile = folder / "profile"
        self.profile.mkdir(exist_ok=True)
        (self.profile / "config.yaml").write_text(site_profile(PROFILE.read_text(), **site))

        self.on_cluster = True
        self.image = ""

    def run_by(self, on_cluster: bool, image: str) -> None:
        """Run jobs on the cluster or here, in an image or, where that is empty, outside of one."""
        self.on_cluster, self.image = on_cluster, image
        if image:
            self.write({**self.config, "runtime": {**self.config.get("runtime", {}), "container": image}})

    def command(self, *words: str) -> list[str]:
        """Snakemake with the site's profile, or plain."""
        words = (*words, "--sdm", "apptainer") if self.image else words
        if not self.on_cluster:
            return super().command(*words)
        start = [sys.executable, "-m", "tests.slurm", "--snakefile", str(REPOSITORY / "Snakefile"), "--workflow-profile", str(self.profile)]
        return [*start, *FAST, *words]

    def training(self) -> Training:
        """The one run, once it trains and has a checkpoint."""
        found = Training(self)
        wait_until(found.under_way, PATIENCE, "a training")
        return found


class Training:
    """A suite's one run while it trains: which job it is, how far it is."""

    def __init__(self, suite: SlurmSuite) -> None:
        self.suite = suite

    @property
    def folder(self) -> Path:
        """Where its checkpoints lie."""
        return next(self.suite.results.glob("checkpoints/copy-*"))

    @property
    def log(self) -> str:
        """What the trainer of the last attempt said."""
        return (self.suite.results / "logs" / "train" / f"{self.folder.name}.log").read_text()

    def under_way(self) -> bool:
        """Whether somebody trains it now, with a checkpoint to go on from. One that was killed leaves its lease behind."""
        try:
            owner = read_owner(self.folder)
            return owner is not None and psutil.pid_exists(owner.pid) and self.saved() > 0
        except (StopIteration, ValueError):
            return False

    def job(self) -> str:
        """The SLURM job that trains it; empty where it trains here."""
        owner = read_owner(self.folder)
        return (owner and owner.job) or ""

    def pid(self) -> int:
        """The trainer's process."""
        owner = read_owner(self.folder)
        assert owner
        return owner.pid

    def saved(self) -> int:
        """Step of the newest checkpoint."""
        return max(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def shown(self) -> int:
        """Step that the trainer has reported last."""
        return int(json.loads((self.folder / "progress.json").read_text())["step"])

    def resumed(self) -> int:
        """Step from which the last attempt resumed."""
        return int(re.findall(r"resuming from step (\d+)", self.log)[-1])
