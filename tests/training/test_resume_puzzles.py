"""A training by deep supervision that is killed anywhere ends in the same bytes as one that is not: rows at work, latents, who has halted.

Identifiers with their own rule, averages, noise, random starts and exploration included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.expand import expand
from pipeline.plan import make_plan
from pipeline.training.serialization import read_tensors
from tests.training.deaths import assert_deaths_change_nothing, train_and_die
from tests.training.tiny import block, describe

NETWORK = {
    "name": "recursive",
    "width": 8,
    "mixer": {"name": "full_attention", "heads": 2},
    "depth": 1,
    "outer": 2,
    "inner": 1,
    "registers": 1,
}
LEARNER = {
    "name": "deep_supervision", "batch_size": 4, "supervision": 3, "halting": "continue", "exploration": 0.5, "noise": 0.1, "ema_decay": 0.9,
    "learning_rate": 0.003, "lr_schedule": "cosine", "warmup_steps": 2, "keep": ["last", "best", 3], "select": "best", "validation_rows": 8,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "arc": {
        "task": {
            "name": "arc", "training_sets": ["arc1_training"], "test_set": "concept_minimal", "side": 9, "augmentations": 1,
        },
        "network": {"start": "random"},
        "learner": {"attempts": 2, "optimizer": "adam_atan2", "distinct_rows": 30},
    },
    "sudoku": {"task": {"name": "sudoku", "side": 4}, "learner": {"data": "stream", "loss": "stablemax"}, "network": {"separate": True}},
}  # fmt: skip
POINTS = 4
"""File operations, spread over a whole training, at which it is killed."""


def described(results: Path, case: str, steps: int = 8) -> str:
    """The case's run with its data; returns its identifier."""
    changed = CASES[case]
    learner = {**LEARNER, **changed["learner"], "steps": steps, "evaluate_every": steps // 2}
    base = {"task": changed["task"], "network": {**NETWORK, **changed["network"]}, "learner": learner}
    return describe(make_plan(expand(block({"experiments": {"puzzles": {"base": base}}}))), results)


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_file_operation(case: str, tmp_path: Path) -> None:
    assert_deaths_change_nothing(tmp_path, described(tmp_path / "undisturbed", case), POINTS)


def test_a_checkpoint_holds_the_identifiers_once(tmp_path: Path) -> None:
    run = described(tmp_path, "arc")
    assert train_and_die(tmp_path, run, at=150) != 0
    saved = read_tensors(max((tmp_path / "checkpoints" / run).glob("step-*")) / "state.safetensors")
    tables = [
        name
        for name, tensor in saved.items()
        if tensor.shape == next(saved[name] for name in saved if name.endswith("identifiers.weight")).shape
    ]
    assert len(tables) == 1 and "networks" in tables[0]
