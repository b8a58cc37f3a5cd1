"""Results of other code in the workflow: refused in one line, allowed by the config, retrained after `pipeline retrain`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage.digest import file_sha256
from tests.test_retrain import forge
from tests.workflow.suite import Suite, tiny

pytestmark = pytest.mark.workflow

Make = Callable[..., Suite]


def with_other_code(suite: Suite) -> Path:
    """Let the suite's GRU have been trained by another version of its code, times of files unchanged; the folder of its run."""
    run = next(suite.results.glob("runs/copy-gru-*"))
    for folder in (run, suite.results / "checkpoints" / run.name / "finished"):
        times = (folder / "manifest.json").stat()
        forge(folder, "mixer gru")
        os.utime(folder / "manifest.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    return run


def allowing(config: dict[str, Any]) -> dict[str, Any]:
    """The config with other code's results taken as they are."""
    return {**config, "runtime": {"changed_code": "allow"}}


def test_new_code_does_not_evaluate_old_weights_unless_allowed(workspace: Make) -> None:
    config = tiny()
    suite = workspace(config)
    run = with_other_code(suite)
    config["experiments"]["first"]["base"]["evaluate"]["delays"] = [4]
    suite.write(config)
    code, output = suite.call()
    assert code == 1
    assert f"runs/{run.name}: trained by other code, changed since: mixer gru (pipeline/mixers/" in output
    assert f"'pipeline retrain {run.name}' deletes it" in output
    assert len(list(suite.results.glob("evaluations/copy-none-*/*.parquet"))) == 2, "what is not concerned is measured"
    suite.write(allowing(config))
    assert suite.run() == Counter(evaluate=1, collect=1, plot=1)


def test_a_forced_training_does_not_restore_old_weights(workspace: Make) -> None:
    suite = workspace()
    run = with_other_code(suite)
    weights = run / "model" / "model.safetensors"
    before = file_sha256(weights)
    code, output = suite.call("--forcerun", "train")
    assert code == 1
    assert "finished: trained by other code, changed since: mixer gru (pipeline/mixers/" in output
    assert not weights.exists()
    answer = suite.pipeline("retrain", run.name, "--yes")
    assert answer.returncode == 0, answer.stderr
    assert suite.run()["train"] == 1
    assert "code changed" not in suite.pipeline("status").stdout
    assert file_sha256(weights) == before, "it is the same code after all"
