"""Any mixer on any task, small enough for two updates in milliseconds."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch

from pipeline.config.catalogue import implementation
from pipeline.config.learners import LEARNERS
from pipeline.config.networks import ActorCritic, RecursiveNetwork, SequenceNetwork
from pipeline.config.tasks import TASKS, Task
from pipeline.learners.base import Learner, Problem
from pipeline.networks.build import build
from pipeline.storage.loader import Episodes, MemoryRows
from pipeline.storage.rng import derive_key

SIZES = {
    "symbols": 3,
    "delay": {"uniform": [1, 6]},
    "alphabet": 4,
    "length": {"uniform": [8, 12]},
    "pairs": {"uniform": [1, 2]},
    "vocab_size": 12,
    "nodes": {"uniform": [6, 8]},
    "corridor": {"uniform": [2, 5]},
    "max_episode_steps": 20,
    "side": 9,
    "training_sets": ["arc1_training"],
    "test_set": "concept_minimal",
}
"""Values for fields that many tasks have; a task takes those it knows."""


def small_task(name: str) -> Task:
    """A task of the catalogue in a small size."""
    kind: Any = TASKS[name]
    return kind(**{key: value for key, value in SIZES.items() if key in kind.model_fields})


def small_problem(task: Task, rows: int = 40, validation: int = 10) -> Problem:
    """Rows of a task straight from its generator."""
    maker = implementation(task)(task)
    if task.kind == "environment":
        episodes = maker.episodes(validation, derive_key("small", "validation"), split="validation")
        return Problem(task, None, Episodes("validation", pa.Table.from_batches([episodes])))
    train, held_out = (
        MemoryRows.of(split, maker.generate(count, derive_key("small", split), split=split))
        for split, count in (("train", rows), ("validation", validation))
    )
    return Problem(task, train, held_out)


def small_learner(
    mixer: str = "lstm", task: str | Task = "copy", learner: str = "supervised", network: dict[str, Any] | None = None, **fields: Any
) -> Learner:
    """A learner of the catalogue at its start; one that acts learns from 4 copies of an environment for 8 steps at a time."""
    kind: Any = LEARNERS[learner]
    problem = small_problem(small_task(task) if isinstance(task, str) else task)
    parts: dict[str, Any] = {"width": 16, "depth": 2, "feedforward": 1.0}
    parts |= {"outer": 2, "inner": 2} if kind.grid else {"norm": "rms", "residual": True}
    network_kind: Any = RecursiveNetwork if kind.grid else SequenceNetwork if kind.kind == "tokens" else ActorCritic
    parts |= network or {}
    module = build(network_kind.model_validate({"mixer": mixer, **parts}), problem.task.sizes)
    size = {"steps": 10, "batch_size": 4} if kind.kind == "tokens" else {"num_updates": 10, "num_envs": 4, "rollout_steps": 8}
    config = kind(**{**size, **fields})
    return implementation(config)(config, module, problem, 0, torch.device("cpu"))
