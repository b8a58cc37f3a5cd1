"""Any mixer on any task, small enough for two updates in milliseconds."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.config.catalogue import implementation
from pipeline.config.learners import LEARNERS
from pipeline.config.networks import SequenceNetwork
from pipeline.config.tasks import TASKS, Task
from pipeline.learners.base import Learner, Problem
from pipeline.networks.build import build
from pipeline.storage.keys import derive_key
from pipeline.storage.loader import MemoryRows

SIZES = {
    "symbols": 3,
    "delay": {"uniform": [1, 6]},
    "alphabet": 4,
    "length": {"uniform": [8, 12]},
    "pairs": {"uniform": [1, 2]},
    "words": 12,
    "nodes": {"uniform": [6, 8]},
    "corridor": {"uniform": [2, 5]},
    "limit": 20,
}
"""Values for fields that many tasks have; a task takes those it knows."""


def small_task(name: str) -> Task:
    """A task of the catalogue in a small size."""
    kind: Any = TASKS[name]
    return kind(**{key: value for key, value in SIZES.items() if key in kind.model_fields})


def small_problem(task: Task, rows: int = 40, validation: int = 10) -> Problem:
    """Rows of a task straight from its generator."""
    maker = implementation(task)(task)
    train, held_out = (
        MemoryRows.of(split, maker.generate(count, derive_key("small", split), split=split))
        for split, count in (("train", rows), ("validation", validation))
    )
    return Problem(task, train, held_out)


def small_learner(
    mixer: str = "lstm", task: str = "copy", learner: str = "supervised", network: dict[str, Any] | None = None, **fields: Any
) -> Learner:
    """A learner of the catalogue at its start."""
    problem = small_problem(small_task(task))
    parts = {"width": 16, "depth": 2, "feedforward": 1.0, "norm": "rms", "residual": True, **(network or {})}
    config = SequenceNetwork.model_validate({"mixer": mixer, **parts})
    module = build(config, seed=0, **problem.task.sizes)
    kind: Any = LEARNERS[learner]
    budget = kind(**{"steps": 10, "batch": 4, **fields})
    return implementation(budget)(budget, module, problem, 0, torch.device("cpu"))
