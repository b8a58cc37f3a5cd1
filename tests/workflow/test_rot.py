"""Corruption in a finished suite: `snakemake` reports damaged files, regenerates them with the same bytes, and then has nothing left to do."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable

import pytest

from tests.workflow.suite import Suite
from tests.workflow.test_errors import damage

pytestmark = pytest.mark.workflow

Make = Callable[..., Suite]
DAMAGED = (
    "datasets/copy-test-*/00000.parquet", "datasets/copy-train-*/dataset.yaml", "runs/copy-gru-*/run.yaml", "profiles/gru-*.yaml",
    "runs/copy-none-*/model/model.safetensors", "evaluations/copy-gru-*/*.parquet", "experiments/first/experiment.yaml",
    "experiments/first/results.parquet", "experiments/first/table.md", "experiments/first/accuracy_by_delay.csv",
)  # fmt: skip


def test_damaged_files_are_reported_and_regenerated(workspace: Make) -> None:
    suite = workspace()
    suite.run()  # so that everything has been verified, and would be trusted by its times
    before = suite.digests()
    paths = [sorted(suite.results.glob(pattern))[0] for pattern in DAMAGED]
    for seed, path in enumerate(paths):
        damage(path, seed)
    log = next((suite.results / "logs").rglob("*.log"))
    log.unlink()
    log.mkdir()
    code, output = suite.call("--dry-run")
    assert code == 0, output
    assert all(f"{path.relative_to(suite.folder)}: SHA-256 " in output for path in paths)
    assert all(path.exists() for path in paths)
    code, output = suite.call()
    assert code == 0, output
    for path in paths:
        assert f"{path.relative_to(suite.folder)}: SHA-256 " in output
        assert path.with_name(f"{path.name}.damaged").exists()
    assert "Traceback" not in output
    assert suite.digests() == before
    assert not suite.planned()


def test_damaged_snakemake_records_do_not_stop_the_next_run(workspace: Make) -> None:
    suite, draw = workspace(), random.Random(0)
    before, state = suite.digests(), suite.folder / ".snakemake"
    records = sorted(path for path in (state / "metadata").rglob("*") if path.is_file())
    for path in records[::3]:
        path.write_bytes(draw.randbytes(50))
    for path in records[1::3]:
        path.unlink()
        path.mkdir()
    (state / "incomplete" / records[0].name).write_bytes(b"\xff")
    shutil.rmtree(state / "log")
    (state / "log").write_bytes(b"\xff")
    os.mkfifo(state / "incomplete" / "pipe")
    assert suite.call("--dry-run")[0] == 2
    code, output = suite.call()
    assert code == 0, output
    assert "Traceback" not in output
    assert suite.digests() == before
    assert not suite.planned()
