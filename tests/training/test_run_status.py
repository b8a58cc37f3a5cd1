"""What `pipeline status` can say of a run from its files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pipeline.training.lease import Lease
from pipeline.training.run_status import RunStatus, run_status
from tests.training.test_lease import foreign_lease


def test_states_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "r"
    assert run_status(tmp_path, "r") == RunStatus("to do", "")
    with Lease(folder) as lease:
        assert lease.acquire()
        assert run_status(tmp_path, "r").state == "running"
        written = {"budget_spent": 0.254, "step": 50, "rows_per_second": 399.6, "metrics": {"validation_accuracy": 0.5}}
        (folder / "progress.json").write_text(json.dumps(written))
        assert run_status(tmp_path, "r").detail.endswith(", 25%, step 50, 400 rows/s, validation accuracy 0.500")
    (folder / "step-000000000050").mkdir()
    assert run_status(tmp_path, "r") == RunStatus("to do", "stopped; resumes from step 50")
    (folder / "finished").mkdir()
    assert run_status(tmp_path, "r") == RunStatus("to do", "trained; its files are restored without training again")
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "manifest.json").write_text("{}")
    assert run_status(tmp_path, "r") == RunStatus("done", "")


def test_a_clock_that_is_ahead_is_named(tmp_path: Path) -> None:
    foreign_lease(tmp_path / "checkpoints" / "r", age=-7200)
    assert run_status(tmp_path, "r").state == "running"
    assert run_status(tmp_path, "r").detail.startswith("pid 4711 on node7, job 99 (its clock is 7200 s ahead)")


def test_damaged_files_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "r"
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text('{"budget_spent": ')
    assert run_status(tmp_path, "r") == RunStatus("to do", "")


def test_torch_is_not_needed() -> None:
    code = "import sys; import pipeline.training.run_status, pipeline.training.train; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
