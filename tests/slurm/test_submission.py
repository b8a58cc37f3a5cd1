"""The tiny suite on a cluster: the same bytes as locally, an edit during a run, and one-line errors for wrong settings."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.suite import PATIENCE, PROFILE, SlurmSuite
from tests.workflow.suite import Suite, jobs, tiny, wait_until

pytestmark = pytest.mark.slurm

Submitted = Callable[..., SlurmSuite]


def ours(output: str) -> list[str]:
    """The lines that are not Snakemake's greeting."""
    return [line for line in output.splitlines() if line and not line.startswith("Using workflow specific profile")]


def test_a_cluster_is_up_in_seconds_and_leaves_nothing(cluster: Cluster) -> None:
    other = Cluster(nodes=2)
    begin = time.monotonic()
    other.up()
    up = time.monotonic() - begin
    print(f"up in {up:.1f} s")
    assert other.call("srun", "--gpus=1", "printenv", "CUDA_VISIBLE_DEVICES") == "0\n"
    other.down()
    assert not other.folder.exists()
    assert set(cluster.states()) == {"idle"}


def test_the_tiny_suite_gives_the_same_bytes_as_locally(submitted: Submitted, finished: Suite) -> None:
    suite = submitted()
    code, output = suite.call()
    assert code == 0, output
    assert suite.digests() == finished.digests()
    wait_until(lambda: not suite.cluster.queue(), PATIENCE, "the queue to be empty")
    assert not suite.planned()
    assert len(set(re.findall(r"SLURM jobid (\d+)", output))) <= 9, "a job per dataset, network, run and report"


def edited(rate: float) -> dict[str, Any]:
    """The tiny suite with another learning rate of one run."""
    config = tiny()
    config["experiments"]["first"]["variants"] = {"slow": {"learner.learning_rate": rate}}
    return config


def test_an_edit_while_jobs_are_queued_re_runs_exactly_its_chain(submitted: Submitted) -> None:
    suite = submitted(edited(0.001))
    process = suite.start()
    wait_until(lambda: suite.cluster.queue(), PATIENCE, "jobs in the queue")
    suite.write(edited(0.002))
    output, _ = process.communicate(timeout=suite.PATIENCE)
    assert process.returncode == 0, output
    chain = {"describe_run": 1, "describe_experiment": 1, "train": 1, "evaluate": 1, "collect": 1, "plot": 1}
    assert jobs(suite.call("--dry-run")[1]) == chain
    code, output = suite.call()
    assert code == 0, output
    assert jobs(output) == chain
    assert not suite.planned()


@pytest.mark.parametrize("line", ["slurm_partition", "train"])
def test_a_wrong_partition_is_one_line(submitted: Submitted, line: str) -> None:
    suite = submitted(slurm_partition="nowhere") if line == "slurm_partition" else submitted(train="{slurm_partition: nowhere}")
    if line == "train":
        text = (suite.profile / "config.yaml").read_text().replace("*training", "{slurm_partition: gpu}")
        (suite.profile / "config.yaml").write_text(text)
    code, output = suite.call()
    assert code == 2
    assert len(ours(output)) == 1
    assert "slurm_partition: got nowhere, expected one of gpu, main, urgent" in output
    assert not (suite.results / ".pipeline").exists()


def test_a_controller_that_does_not_answer_is_one_line(submitted: Submitted, tmp_path: Path) -> None:
    suite = submitted()
    conf = Path(suite.cluster.environment["SLURM_CONF"]).read_text()
    dead = tmp_path / "dead.conf"
    dead.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", conf) + "MessageTimeout=2\n")
    wrapper = tmp_path / "bin" / "sinfo"
    wrapper.parent.mkdir()
    real = re.findall(r"exec (\S+)", (suite.cluster.folder / "bin" / "sinfo").read_text())[0]
    wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={dead} exec {real} "$@"\n')
    wrapper.chmod(0o755)
    code, output = suite.call(PATH=f"{wrapper.parent}:{suite.environment['PATH']}")
    assert code == 2
    assert len(ours(output)) == 1
    assert ours(output)[0].startswith("slurm: the controller does not answer (")


def test_jobs_of_a_pipeline_on_another_host_are_left_alone(submitted: Submitted) -> None:
    suite = submitted()
    (suite.results / "logs" / "slurm").mkdir(parents=True)
    owner = suite.results / ".pipeline" / "owner"
    owner.parent.mkdir()
    owner.write_text('{"pid": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}')
    job = suite.cluster.call(
        "sbatch", "--parsable", "-J", "recurlab_x", "-D", str(suite.folder), "-o", "/dev/null", "--wrap", "sleep 300"
    ).strip()
    other = suite.cluster.call("sbatch", "--parsable", "-J", "mine", "-D", str(suite.folder), "-o", "/dev/null", "--wrap", "sleep 300")
    code, output = suite.call()
    queue = suite.cluster.queue()
    subprocess.run([str(suite.cluster.folder / "bin" / "scancel"), job, other.strip()], check=True)
    assert code == 2
    assert ours(output) == [
        "results: 1 jobs of a pipeline on elsewhere are in SLURM's queue; wait for it, stop it there, or if it is dead run: scancel " + job
    ]
    assert job in queue


def test_the_profile_has_six_lines_for_a_site() -> None:
    numbers = re.findall(r"# (\d) ", PROFILE.read_text())
    assert numbers == list("123456")
