"""Environments of the catalogue in small sizes, and one copy of any as gymnasium knows it."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from pipeline.config.catalogue import implementation
from pipeline.config.tasks import TASKS, EnvironmentTask, Gymnasium, MysteryPath, TMaze
from pipeline.tasks.environment import BatchedEnvironment
from tests.learners.small import small_task

KINDS: dict[str, Any] = {name: kind for name, kind in TASKS.items() if issubclass(kind, EnvironmentTask)}
FURTHER: dict[str, EnvironmentTask] = {
    "t_maze bakker": TMaze(form="bakker", corridor=4, distractors=3, max_episode_steps=9, allow_leave_junction=True),
    "t_maze bare": TMaze(corridor=3, distractors=0, max_episode_steps=7),
    "mystery_path pixels": MysteryPath(view="pixels", max_episode_steps=15),
    "mystery_path hidden": MysteryPath(show_origin=False, show_goal=False, visual_feedback=False, max_episode_steps=15),
    "mystery_path continuous": MysteryPath(moves="continuous", max_episode_steps=40),
    "mystery_path continuous pixels": MysteryPath(moves="continuous", view="pixels", max_episode_steps=40),
    "gymnasium pendulum": Gymnasium(id="Pendulum-v1", observation_shape=[3], num_actions=[5], max_episode_steps=12),
    "gymnasium lake": Gymnasium(id="FrozenLake-v1", observation_shape=[16], num_actions=[4], reward_threshold=1.0),
}
SMALL: dict[str, Any] = {**{name: small_task(name) for name in KINDS}, **FURTHER}
"""Every environment task by what distinguishes it; each has episodes that end within a few dozen steps."""


def task_of(config: Any) -> Any:
    """The task that a config describes."""
    return implementation(config)(config)


def made(config: Any, batch: int = 5, seed: int = 0) -> BatchedEnvironment:
    """So many copies that have not begun."""
    return task_of(config).environment(batch, seed)


def some_actions(env: BatchedEnvironment, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Random actions for every copy."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


class Single(gymnasium.Env[Any, Any]):
    """One copy, seen as an environment that does not begin again by itself."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 8}

    def __init__(self, config: Any) -> None:
        self.copies = made(config, batch=1)
        self.observation_space, self.action_space = self.copies.single_observation_space, self.copies.single_action_space
        self.render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode."""
        super().reset(seed=seed)
        seen, infos = self.copies.reset(seed=seed)
        return seen[0], infos

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act."""
        seen, reward, terminated, truncated, infos = self.copies.step(np.array([action]))
        last = infos["final_obs"][0] if infos else seen[0]
        return last, float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        """The frame."""
        return self.copies.render()[0]
