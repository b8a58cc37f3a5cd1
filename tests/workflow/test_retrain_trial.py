"""A trial that diverged does not stop the suite; retrained trials are trained, chosen from and shown again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan import plan_file
from pipeline.training.run_status import run_status
from tests.workflow.suite import Suite

pytestmark = pytest.mark.workflow

BASE: dict[str, Any] = {
    "task": {"name": "copy", "symbols": 2, "delay": 1, "alphabet": 4},
    "network": {"name": "sequence", "mixer": "lru", "width": 8, "context": 64, "residual": True, "norm": "rms"},
    "learner": {"name": "supervised", "steps": 8, "batch_size": 8, "evaluate_every": 4, "validation_rows": 16},
    "evaluate": {"rows": 16, "delays": [1]},
}
CONFIG: dict[str, Any] = {
    "experiments": {"recall": {"base": BASE, "tune": {"learner.learning_rate": [0.01, 100]}, "figures": ["learning_curves"]}}
}
CHOSEN_AGAIN = {"train": 2, "choose": 1, "collect": 1, "plot": 1}


def test_retrained_trials_are_chosen_from_again(tmp_path: Path) -> None:
    suite = Suite(tmp_path, CONFIG)
    code, output = suite.call()
    assert code == 0, output
    trials = plan_file(suite.folder / "config.yaml").trials("recall")
    diverged = [run for run in trials if run_status(suite.results, run).detail == "diverged at step 4"]
    (good,) = set(trials) - set(diverged)
    assert len(diverged) == 1
    assert f"{diverged[0]}  done    diverged at step 4" in suite.pipeline("status").stdout
    before = suite.digests()
    retrained = suite.pipeline("retrain", good, *diverged, "--yes")
    assert f"deleted  {good}\ndeleted  {diverged[0]}\n" in retrained.stdout, retrained.stderr
    assert suite.planned() == Counter(CHOSEN_AGAIN), "what is evaluated is known after the choice"
    code, output = suite.call()
    assert code == 0, output
    assert suite.planned() == Counter()
    assert suite.digests() == before
