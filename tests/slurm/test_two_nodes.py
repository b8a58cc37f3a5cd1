"""Data-parallel training on two nodes: the numbers of one process, and the same bytes after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage.tables import read_table
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import untrained_copy
from tests.slurm.suite import SlurmSuite
from tests.slurm.test_interruptions import ended_attempt, left_alone
from tests.workflow.suite import Suite, made_once, tiny

pytestmark = [pytest.mark.slurm, pytest.mark.crash]


def config(nodes: int) -> dict[str, Any]:
    """One run without dropout, whose random numbers differ between processes. It asks for the cluster's fake GPUs and leaves them alone."""
    config = tiny()
    experiment = config["experiments"]["first"]
    experiment["base"]["learner"] |= {"steps": 400, "ema_decay": 0.9, "evaluate_every": 100}
    experiment["base"]["learner"]["curriculum"] = {"column": "delay", "start": 2, "threshold": 0.3}
    experiment["sweep"]["network.mixer"] = ["gru"]
    config["runtime"] = {"checkpoint_seconds": 0.2, "nodes": nodes, "gpus": 1, "device": "cpu"}
    return config


def history(suite: Suite) -> list[dict[str, Any]]:
    """The rows of its one run's history, without what there is nothing of."""
    rows = read_table(next(suite.results.glob("runs/*/history.parquet"))).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The training in one process, here."""
    return made_once(tmp_path_factory, "alone", config(1))[0]


@pytest.fixture(scope="module")
def shared(cluster: Cluster, alone: Suite, tmp_path_factory: pytest.TempPathFactory) -> SlurmSuite:
    """The same training on two nodes, undisturbed."""
    suite = untrained_copy(alone, tmp_path_factory.mktemp("shared") / "suite", config(2), cluster)
    code, output = suite.call()
    assert code == 0, output
    return suite


def test_two_nodes_give_the_numbers_of_one_process(shared: SlurmSuite, alone: Suite) -> None:
    environment = json.loads(next(shared.results.glob("runs/*/environment.json")).read_text())
    assert (environment["nodes"], environment["processes"]) == (2, 2)
    for ours, theirs in zip(history(shared), history(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    left_alone(shared)


@pytest.mark.parametrize("words", [("scancel",), ("scancel", "--signal=USR1")], ids=" ".join)
def test_an_interruption_on_two_nodes_ends_in_the_same_bytes(
    shared: SlurmSuite, alone: Suite, tmp_path: Path, words: tuple[str, ...]
) -> None:
    suite = untrained_copy(alone, tmp_path / "suite", config(2), shared.cluster)
    process = suite.start()
    training = suite.training()
    job, shown = training.job(), training.shown()
    suite.cluster.call(*words, job)
    ended_attempt(training, job)
    output, _ = process.communicate(timeout=suite.PATIENCE)
    assert process.returncode == 0, output
    assert training.resumed() >= shown
    left_alone(suite)
    assert suite.digests() == shared.digests()
