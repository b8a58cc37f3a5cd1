"""How many training rows a budget in FLOPs comes to, for `pipeline plan`."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import numpy as np

from pipeline.config.base import filled
from pipeline.config.catalogue import implementation
from pipeline.config.learners import DeepSupervision, Learner, OnPolicy
from pipeline.config.networks import Network
from pipeline.config.spec_files import load_component
from pipeline.config.tasks import Task
from pipeline.networks.build import build
from pipeline.networks.flops import StepCosts
from pipeline.storage.digest import canonical_json
from pipeline.storage.loader import MemoryRows
from pipeline.storage.rng import derive_key

SAMPLE = 256
"""Rows generated to estimate the mean cost of a row."""


def rows_in_budget(learner: Learner, network: Network, task: Task) -> tuple[int, bool]:
    """Return the training rows, or environment steps, until a budget in FLOPs is spent, and whether their number is exact.

    Where rows differ in length, their mean cost is that of a sample without a curriculum. Environments are taken to step at all contexts of
    their longest episode alike; steps that only estimate a value are left out. Deep supervision is taken to have no row halt early, and
    all outer cycles from the start.
    """
    assert learner.flops is not None
    acting, arguments = isinstance(learner, OnPolicy), {}
    if isinstance(learner, DeepSupervision):
        arguments["gradient"] = learner.cycles_with_gradient(getattr(network, "outer", 1))
    forward, training, equal = _costs(canonical_json(filled(network)), canonical_json(filled(task)), acting, **arguments)
    before, learned = learner.passes
    updates = math.ceil(learner.flops / ((before * forward + learned * training) * learner.rows_per_step))
    return math.ceil(updates * learner.rows_drawn), equal and not acting and not learner.grid


@functools.cache
def _costs(network: str, task: str, acting: bool, **arguments: int) -> tuple[float, float, bool]:
    """Return the mean FLOPs of a row, or of a step of an environment, forward and in training, and whether all rows have equal lengths.

    network, task: their specs as JSON; runs that differ in other settings, such as the learning rate, share the count. arguments: see
    `StepCosts.row`.
    """
    made: Any = load_component("task", json.loads(task))
    lengths = np.array([made.longest]) if acting else _sample_lengths(made)
    costs = StepCosts(build(load_component("network", json.loads(network)), made.sizes)).sequences(lengths, **arguments)
    parts = made.longest if acting else SAMPLE
    return costs.forward / parts, costs.training / parts, bool((lengths == lengths[0]).all())


def _sample_lengths(task: Task) -> np.ndarray:
    """Return the lengths of some training rows."""
    return MemoryRows.of("sample", implementation(task)(task).generate(SAMPLE, derive_key("lengths"))).lengths
