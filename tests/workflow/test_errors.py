"""Errors and accidents in the workflow, as a user sees them: one line that names the place, and no partial results."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.workflow.suite import BINARIES, Suite, jobs, tiny, wait_until

pytestmark = pytest.mark.workflow

Make = Callable[..., Suite]


def ours(output: str) -> list[str]:
    """The lines that are not Snakemake's greeting."""
    return [line for line in output.splitlines() if line and not line.startswith("Using workflow specific profile")]


def test_an_invalid_config_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    config = tiny()
    config["experiments"]["first"]["base"]["task"]["dealy"] = 3
    suite = Suite(tmp_path, config)
    code, output = suite.call()
    assert code == 2
    assert len(ours(output)) == 1
    assert "experiments.first.base.task.dealy: unknown key; did you mean 'delay'?" in output
    assert not suite.results.exists()


def test_another_suite_replaces_the_config(tmp_path: Path) -> None:
    suite = Suite(tmp_path, tiny())
    config = tiny()
    config["experiments"]["other"] = config["experiments"].pop("first")
    (tmp_path / "suites").mkdir()
    other = Suite(tmp_path / "suites", config)
    for words in (("--config", f"suite={other.folder / 'config.yaml'}"), ("--configfile", str(other.folder / "config.yaml"))):
        code, output = suite.call("--dry-run", *words)
        assert code == 0, output
        assert "Collect other" in output
        assert "Collect first" not in output


def damage(path: Path, seed: int) -> None:
    """Flip one bit at a random place, keeping size and times."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(content))
    content[place] ^= 1 << (seed % 8)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_damaged_shard_is_reported_and_not_trained_on(workspace: Make) -> None:
    suite = workspace()
    run = sorted(suite.results.glob("runs/copy-gru-*"))[0]
    shard = sorted(suite.results.glob("datasets/copy-train-*/*.parquet"))[0]
    damage(shard, 3)
    for checkpoint in (suite.results / "checkpoints").glob("*"):
        subprocess.run(["rm", "-r", str(checkpoint)], check=True)
    answer = suite.pipeline("train", str(run / "run.yaml"))
    assert answer.returncode == 2
    assert shard.name in answer.stderr.strip().splitlines()[-1]
    assert "Traceback" not in answer.stderr


def test_damaged_weights_are_reported_and_not_evaluated(workspace: Make) -> None:
    suite = workspace()
    run = sorted(suite.results.glob("runs/copy-gru-*"))[0]
    damage(run / "model" / "model.safetensors", 5)
    data = sorted(suite.results.glob("datasets/copy-test-*"))[0]
    answer = suite.pipeline("evaluate", str(run / "run.yaml"), "--data", str(data), "--out", "table.parquet")
    assert answer.returncode == 2
    assert "model.safetensors" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (suite.folder / "table.parquet").exists()


def test_a_missing_shard_is_reported(workspace: Make) -> None:
    suite = workspace()
    data = sorted(suite.results.glob("datasets/copy-test-*"))[0]
    (data / "00000.parquet").unlink()
    run = sorted(suite.results.glob("runs/copy-gru-*"))[0]
    answer = suite.pipeline("evaluate", str(run / "run.yaml"), "--data", str(data), "--out", "table.parquet")
    assert answer.returncode == 2
    assert "00000.parquet" in answer.stderr


def test_an_unwritable_results_folder_is_one_line(tmp_path: Path) -> None:
    suite = Suite(tmp_path, tiny())
    suite.results.write_text("a file in place of the folder")
    code, output = suite.call()
    assert code == 2
    assert len(ours(output)) == 1
    assert "results" in ours(output)[0]


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small file system needs root on Linux")
def test_a_full_disk_is_one_line_and_resumes(finished: Suite, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", str(results)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        shutil.copytree(finished.results, results, dirs_exist_ok=True)
        shutil.copytree(finished.folder / ".snakemake", tmp_path / ".snakemake")
        used = shutil.disk_usage(results).used
        subprocess.run(["mount", "-o", f"remount,size={used // 1024 + 32}k", str(results)], check=True)
        suite = Suite(tmp_path, edited(tiny()))
        code, output = suite.call()
        assert code == 1
        assert "the disk is full" in output
        assert "Traceback" not in output
        assert not [path for path in suite.results.rglob("*.tmp")]
        subprocess.run(["mount", "-o", "remount,size=100m", str(results)], check=True)
        assert suite.call()[0] == 0
        assert not suite.planned()
    finally:
        subprocess.run(["umount", "-l", str(results)], check=False)


def edited(config: dict[str, Any]) -> dict[str, Any]:
    """The config with another learning rate."""
    config["experiments"]["first"]["base"]["learner"]["learning_rate"] = 0.02
    return config


def test_an_edit_during_a_run_does_not_affect_it(workspace: Make) -> None:
    suite = workspace(edited(tiny()))
    frozen = suite.results / ".pipeline" / "plan.json"
    before = frozen.read_bytes()
    process = suite.start()
    wait_until(lambda: frozen.read_bytes() != before, 30, "the plan to be frozen")
    other = tiny()
    other["experiments"]["first"]["base"]["learner"]["learning_rate"] = 0.5
    other["experiments"]["first"]["base"]["evaluate"]["rows"] = 50
    suite.write(other)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert jobs(output)["train"] == 2
    assert {len(pq.read_table(path)) for path in suite.results.glob("evaluations/*/*.parquet")} == {64}
    suite.write(edited(tiny()))
    assert not suite.planned()


def test_the_report_is_written(workspace: Make) -> None:
    suite = workspace()
    code, output = suite.call("--report", "asked.html")
    assert code == 0, output
    assert "accuracy_by_delay" in (suite.folder / "asked.html").read_text()
    text = (suite.results / "reports" / "config.html").read_text()
    assert "accuracy_by_delay" in text
    assert "Does it run?" in text


def test_lint_is_clean(tmp_path: Path) -> None:
    suite = Suite(tmp_path, tiny())
    code, output = suite.call("--lint")
    assert code == 0, output
    assert "Congratulations" in output


def test_commands_on_a_finished_suite(workspace: Make) -> None:
    suite = workspace()
    status = suite.pipeline("status")
    assert status.returncode == 0, status.stderr
    assert status.stdout.count("done") == 2
    gru = sorted(suite.results.glob("runs/copy-gru-*"))[0].name
    assert suite.pipeline("prune").stdout == "nothing to delete\n"
    config = tiny()
    config["experiments"]["first"]["sweep"]["network.mixer"] = ["none"]
    suite.write(config)
    listed = suite.pipeline("prune")
    assert gru in listed.stdout
    assert (suite.results / "runs" / gru).exists()
    assert suite.pipeline("prune", "--yes").returncode == 0
    assert not (suite.results / "runs" / gru).exists()
    assert suite.pipeline("doctor").returncode == 0
    code = "from pipeline import load_run; import sys; run = load_run(sys.argv[1]); print(len(run.history), run.network().training)"
    none = sorted(suite.results.glob("runs/copy-none-*"))[0].name
    answer = subprocess.run(
        [str(BINARIES / "python"), "-c", code, none], cwd=suite.folder, env=suite.environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["4", "False"]
