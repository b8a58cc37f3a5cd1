"""How many training rows a budget in FLOPs comes to, for `pipeline plan`."""

from __future__ import annotations

import math

import numpy as np

from pipeline.config.catalogue import implementation
from pipeline.config.learners import Learner, OnPolicy
from pipeline.config.networks import Network
from pipeline.config.tasks import Task
from pipeline.networks.build import build
from pipeline.networks.flops import StepCosts
from pipeline.storage.loader import MemoryRows
from pipeline.storage.rng import derive_key

SAMPLE = 256
"""Rows generated to estimate the mean cost of a row."""


def rows_in_budget(learner: Learner, network: Network, task: Task) -> tuple[int, bool]:
    """Return the training rows, or environment steps, until a budget in FLOPs is spent, and whether their number is exact.

    Where rows differ in length, their mean cost is that of a sample without a curriculum. Environments are taken to step at all contexts of
    their longest episode alike; steps that only estimate a value are left out.
    """
    assert learner.flops is not None
    lengths = np.array([task.longest]) if isinstance(learner, OnPolicy) else _sample_lengths(task)
    costs = StepCosts(build(network, task.sizes)).sequences(lengths)
    if isinstance(learner, OnPolicy):
        cost = (costs.forward + costs.training * getattr(learner, "update_epochs", 1)) / task.longest
    else:
        cost = costs.training / SAMPLE
    exact = not isinstance(learner, OnPolicy) and bool((lengths == lengths[0]).all())
    return math.ceil(learner.flops / (cost * learner.rows_per_step)) * learner.rows_per_step, exact


def _sample_lengths(task: Task) -> np.ndarray:
    """Return the lengths of some training rows."""
    return MemoryRows.of("sample", implementation(task)(task).generate(SAMPLE, derive_key("lengths"))).lengths
