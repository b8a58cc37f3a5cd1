"""Fixtures: a SLURM cluster per test process, and suites that are submitted to it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.conftest import suite_config
from tests.slurm.cluster import Cluster, missing
from tests.slurm.suite import SlurmSuite
from tests.workflow.suite import Suite, made_once, tiny


def longer_config() -> dict[str, Any]:
    """One run of the suite of the crash tests, its training longer than the half minute between two looks of SLURM at the time."""
    config = suite_config()
    experiment = config["experiments"]["first"]
    experiment["base"]["learner"]["steps"] = 6000
    experiment["base"]["evaluate"]["delays"] = [4]
    experiment["sweep"]["network.mixer"] = ["gru"]
    experiment["figures"] = []
    return config


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that starts the tests in the background has them ignore SIGINT, and all that they start, Snakemake too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes with a fake GPU each; skips, or fails where RECURLAB_REQUIRE names slurm, where SLURM is not installed."""
    reason = missing()
    if reason and "slurm" in os.environ.get("RECURLAB_REQUIRE", "").split(","):
        pytest.fail(f"SLURM: {reason}")
    if reason:
        pytest.skip(f"SLURM: {reason}")
    made = Cluster()
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def submitted(cluster: Cluster, tmp_path: Path) -> Callable[..., SlurmSuite]:
    """Makes a suite in a folder of its own whose jobs go to the cluster."""

    def make(config: dict[str, Any] | None = None, name: str = "suite", **site: str) -> SlurmSuite:
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return SlurmSuite(folder, config or tiny(), cluster, **site)

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The tiny suite, run here to its end."""
    return made_once(tmp_path_factory, "finished", tiny())[0]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A training, run here without disturbance."""
    return made_once(tmp_path_factory, "undisturbed-longer", longer_config())[0]


@pytest.fixture
def untrained(cluster: Cluster, undisturbed: Suite, tmp_path: Path) -> SlurmSuite:
    """The same suite with its data and profiles made, and everything from the trainings on to be made on the cluster."""
    return untrained_copy(undisturbed, tmp_path / "suite", longer_config(), cluster)


def untrained_copy(finished: Suite, folder: Path, config: dict[str, Any], cluster: Cluster) -> SlurmSuite:
    """A finished suite in another folder, without what came from its trainings on."""
    shutil.copytree(finished.folder, folder)
    for name in ("checkpoints", "evaluations", "logs"):
        shutil.rmtree(folder / "results" / name)
    for path in [*folder.glob("results/runs/*/*"), *folder.glob("results/experiments/*/*")]:
        if path.name.removeprefix(".").removesuffix(".sha256") not in ("run.yaml", "experiment.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return SlurmSuite(folder, config, cluster)


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Ways to run a job: outside of an image, and in the one that RECURLAB_SIF names, if any."""
    sif = os.environ.get("RECURLAB_SIF")
    return {"": "", **({" in the image": sif} if sif else {})}
