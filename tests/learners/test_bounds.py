"""Every number that a field of the catalogue allows works or is refused: each component is run at its fields' lowest and highest values.

What needs memory in proportion to a field is run at `LARGE` in place of the highest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.config.catalogue import implementation
from pipeline.config.config_file import Runtime
from pipeline.config.figures import FIGURES
from pipeline.config.learners import LEARNERS, Curriculum
from pipeline.config.mixers import MIXERS
from pipeline.config.networks import NETWORKS, AttentionBlocks
from pipeline.config.tasks import TASKS
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from tests.learners.small import SIZES, small_learner

LARGE = 64
SIZED = {
    *(
        "width",
        "depth",
        "feedforward",
        "convolution",
        "encoder_depth",
        "head_width",
        "head_dim",
        "mem_len",
        "d_state",
        "expand",
        "d_conv",
        "kernel_size",
        "expansion",
        "multiple_of",
        "gate_convolution",
        "registers",
    ),
    *(
        "dt_rank",
        "low_rank_dim",
        "gate_low_rank_dim",
        "eta",
        "r",
        "batch_size",
        "num_envs",
        "rollout_steps",
        "update_epochs",
        "steps",
        "num_updates",
    ),
    *("rows", "total_timesteps", "validation_rows", "distinct_rows", "puzzles"),
}
"""Fields whose value decides how much memory or time a run needs."""
LONGEST = 4096
"""Rows of tasks are made up to so many tokens; longer ones exceed the context of most networks, which a check of the config refuses."""
DIVERGING = {"learning_rate", "vf_coef", "ent_coef", "weight_decay"}
"""Fields whose highest values may take the weights to infinity; training ends there in one line of its own."""
OPEN = {"keep", "observation_shape", "num_actions", "kwargs", "longer", "parameters"}
"""Lists and mappings, whose entries have bounds; and the budget of weights, which is met or refused when the width is solved."""

Field = tuple[str, str, int | float]


def numbers(schema: Any, definitions: Any) -> Iterator[dict[str, Any]]:
    """The schemas of numbers that a field may be."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") in ("integer", "number") and not {"enum", "const"} & set(schema):
        yield schema
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from numbers(choice, definitions)


def bounds(schema: dict[str, Any]) -> tuple[int | float, int | float] | None:
    """The lowest and the highest value; None where one of them is missing."""
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if lowest is None and "exclusiveMinimum" in schema:
        lowest = math.nextafter(schema["exclusiveMinimum"], math.inf)
    if highest is None and "exclusiveMaximum" in schema:
        highest = math.nextafter(schema["exclusiveMaximum"], -math.inf)
    return None if lowest is None or highest is None else (lowest, highest)


def fields(kind: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The numeric fields of a block."""
    whole = kind.model_json_schema()
    for name, schema in whole["properties"].items():
        yield from ((name, number) for number in numbers(schema, whole.get("$defs", {})))


def own(catalogue: Any) -> dict[str, Any]:
    return {name: kind for name, kind in catalogue.items() if kind.__module__.startswith("pipeline.")}


BLOCKS = {
    **{f"{kind.__name__}": kind for catalogue in (MIXERS, NETWORKS, LEARNERS, TASKS, FIGURES) for kind in own(catalogue).values()},
    **{kind.__name__: kind for kind in (Curriculum, AttentionBlocks, Runtime)},
}


REPEATED = {"outer": 3, "inner": 3, "latents": 3, "starts": 3, "supervision": 4, "attempts": 3, "gradient": 3}
"""What repeats the work of an update, and how often the tests do at most."""


def extremes(catalogue: Any) -> list[Field]:
    """The lowest and highest values of all fields, or LARGE."""
    found = []
    for name, kind in own(catalogue).items():
        for field, schema in fields(kind):
            lowest, highest = bounds(schema) or (1, 1)
            if field not in OPEN:
                found += [(name, field, lowest), (name, field, min(highest, REPEATED.get(field, LARGE if field in SIZED else highest)))]
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_every_number_has_a_lowest_and_a_highest_value(block: str) -> None:
    unbounded = [name for name, schema in fields(BLOCKS[block]) if bounds(schema) is None and name not in OPEN]
    assert not unbounded


def learn(field: str, **parts: Any) -> None:
    """Two updates and a validation, unless that is refused; and nothing that was learned is not a number."""
    try:
        learner = small_learner(**parts)
        found = [learner.update() for _ in range(2)]
        validation = learner.validate()
    except (ValidationError, UserError) as refused:
        assert str(refused)
        return
    if field not in DIVERGING:
        assert all(np.isfinite(float(value)) for figures in (*found, validation) for value in figures.values()), (found, validation)
        assert all(bool(value.isfinite().all()) for value in learner.network.state_dict().values())


@pytest.mark.parametrize(("mixer", "field", "value"), extremes(MIXERS))
@pytest.mark.parametrize("init", [False, True])
def test_mixers(mixer: str, field: str, value: float, init: bool) -> None:
    starts = {"horizon": ("chrono", "slow"), "forget_bias": ("forget_bias",)}.get(field, ())
    allowed = [start for start in starts if f"'{start}'" in str(MIXERS[mixer].model_fields["init"].annotation)] if starts else []
    if init and not allowed:
        pytest.skip("the field does not depend on how the mixer starts")
    chosen = {"name": mixer, field: value} | ({"init": allowed[0]} if init else {})
    learn(field, mixer=chosen, network={"depth": 1}, task="copy" if MIXERS[mixer].causal else "maze")


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 0.0), (0.0, 1.0), (1.0 - 1e-12, 1.0)])
def test_the_ring_of_lru(r_min: float, r_max: float) -> None:
    learn("r_min", mixer={"name": "lru", "r_min": r_min, "r_max": r_max}, network={"depth": 1})


@pytest.mark.parametrize(("network", "field", "value"), extremes(NETWORKS))
def test_networks(network: str, field: str, value: float) -> None:
    learner, task = {"sequence": ("supervised", "copy"), "recursive": ("deep_supervision", "maze")}.get(network, ("ppo", "t_maze"))
    sizes = {"width": 8, "depth": 1, "encoder": "mlp", "final_norm": "rms"} if learner == "ppo" else {"depth": 1}
    learn(field, learner=learner, task=task, network={**sizes, field: value})


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, schema in fields(AttentionBlocks) for value in bounds(schema) or ()]
)
def test_attention_blocks(field: str, value: float) -> None:
    learn(field, network={"attention": {field: min(value, LARGE) if field in SIZED else value}})


@pytest.mark.parametrize(("learner", "field", "value"), extremes(LEARNERS))
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_learners(learner: str, field: str, value: float, optimizer: str) -> None:
    task = {"supervised": "copy", "deep_supervision": "maze"}.get(learner, "t_maze")
    others = {"weight_decay": 0.1} if field not in ("weight_decay", "learning_rate") else {}
    if field in ("warmup_steps", "min_lr_ratio", "half_life", "min_ent_coef_ratio"):
        others |= {"lr_schedule": "inverse" if field == "half_life" else "cosine"}
    kind: Any = LEARNERS[learner]
    budget = {kind.budgets[1]: None} if field in kind.budgets and field != kind.budgets[1] else {}
    learn(field, learner=learner, task=task, network={"depth": 1}, optimizer=optimizer, **{**budget, **others, field: value})


@pytest.mark.parametrize("betas", [(0.0, 0.0), (math.nextafter(1, 0), math.nextafter(1, 0))])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
def test_betas(betas: Any, optimizer: str) -> None:
    learn("betas", betas=betas, optimizer=optimizer, network={"depth": 1})


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, schema in fields(Curriculum) for value in bounds(schema) or ()])
def test_curricula(field: str, value: float) -> None:
    learn(field, network={"depth": 1}, curriculum={"column": "delay", "window": 1, "start": 1, field: value})


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
@pytest.mark.parametrize("learner", ["ppo", "a2c"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_smallest_rollouts(shape: tuple[int, int], learner: str, normalise: bool) -> None:
    environments, rollout = shape
    sizes = {"num_envs": environments, "rollout_steps": rollout} | ({"num_minibatches": 1} if learner == "ppo" else {})
    learn("rollout_steps", learner=learner, task="t_maze", network={"depth": 1}, normalize_advantage=normalise, **sizes)


@pytest.mark.parametrize(("task", "field", "value"), extremes(TASKS))
def test_tasks(task: str, field: str, value: float) -> None:
    kind: Any = TASKS[task]
    try:
        config = kind(**{**{key: size for key, size in SIZES.items() if key in kind.model_fields}, field: value})
        if config.longest is not None and config.longest > LONGEST and config.kind == "tokens":
            return
        maker = implementation(config)(config)
        if config.kind == "tokens":
            assert len(maker.generate(8, derive_key("bounds"))) == 8
            return
        environment = maker.environment(2, 0)
        environment.reset()
        shape = (2, len(config.actions)) if len(config.actions) > 1 else (2,)
        for _ in range(3):
            _, reward, *_ = environment.step(np.zeros(shape, np.int64))
            assert np.isfinite(reward).all()
    except (ValidationError, UserError) as refused:
        assert str(refused)


def test_warm_up_and_decay_that_leave_nothing_are_refused() -> None:
    kind: Any = LEARNERS["supervised"]
    assert kind(steps=10, warmup_steps=10).warmup_steps == 10
    with pytest.raises(ValidationError, match="got warmup_steps: 11; expected at most the budget of 10 updates"):
        kind(steps=10, warmup_steps=11)
    with pytest.raises(ValidationError, match="learning_rate times weight_decay is 2; expected at most 1"):
        kind(steps=10, optimizer="adamw", learning_rate=0.1, weight_decay=20)
    assert torch.tensor(kind(steps=1, stop_at=1.0).stop_at) == 1
