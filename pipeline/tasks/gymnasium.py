"""Any gymnasium environment, with the interface of the native ones.

An episode is the seed of the environment's reset, so held-out episodes are seeds never used in training. If an environment is deterministic
given its seed, as gymnasium's own are, its state is the seed and the actions since: it is restored by replaying them, and nothing is
pickled.

Notation: B = sub-environments.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten, flatten_space
from gymnasium.wrappers import TimeLimit

from pipeline.config.tasks import Gymnasium as Config
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import Split, in_split
from pipeline.tasks.environment import BatchedEnvironment, Columns, EnvironmentTask

SEEDS = 2**31
SUCCESS = ("success", "is_success")
"""Keys of success in the infos of environments."""


class Gymnasium(EnvironmentTask):
    """An episode is a seed."""

    meanings: ClassVar[dict[str, str]] = {"seed": "what the environment is reset with, int64"}

    config: Config

    def sample_episodes(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Sample seeds that belong to the split."""
        rng = generator(key)
        seed_B = rng.integers(SEEDS, size=rows)
        wrong = np.flatnonzero(~in_split(seed_B.astype(np.uint64), split))
        while len(wrong):
            seed_B[wrong] = rng.integers(SEEDS, size=len(wrong))
            wrong = wrong[~in_split(seed_B[wrong].astype(np.uint64), split)]
        return {"seed": seed_B}

    def environment(self, batch: int, seed: int) -> GymnasiumVectorEnv:
        """Create the vector environment. Raises UserError if the environment cannot be created, or does not match the config."""
        return GymnasiumVectorEnv(self, batch, seed)


class GymnasiumVectorEnv(BatchedEnvironment):
    """A vector environment that steps gymnasium environments one after another."""

    state_arrays: ClassVar[tuple[str, ...]] = ("seed_B", "seen_B", "late_B", "success_B", "trace_B")
    """trace_B: a checksum of everything an episode has returned so far. Replaying the episode must give the same value."""

    def __init__(self, task: Gymnasium, batch: int, seed: int) -> None:
        self.config = config = task.config
        self.envs = _made(config, batch)
        self.defines_success = config.reward_threshold is not None  # or once the environment's infos report it
        self.reproducible = not getattr(self.envs[0].spec, "nondeterministic", True)
        self.read = _reader(config, self.envs[0].observation_space)
        self.convert = _writer(config, self.envs[0].action_space)
        shape, observation_type = config.observation
        space: Any = spaces.Box(0, 255, shape, np.uint8) if observation_type == "pixels" else spaces.Box(-np.inf, np.inf, shape, np.float32)
        action: Any = spaces.Discrete(config.num_actions[0]) if len(config.num_actions) == 1 else spaces.MultiDiscrete(config.num_actions)
        super().__init__(task, batch, seed, space, action, _limit(config, self.envs[0]))
        self.seed_B, self.success_B, self.late_B = np.zeros(batch, np.int64), np.zeros(batch, np.int64), np.zeros(batch, bool)
        self.seen_B, self.trace_B = np.zeros((batch, *shape), space.dtype), np.zeros(batch, np.int64)
        self.done: list[list[Any]] = [[] for _ in range(batch)]
        self.bounds, self.warned = (None if observation_type == "pixels" else _bounds(self.envs[0].observation_space)), False

    def _begin(self, indices: np.ndarray, episodes: Columns) -> None:
        self.seed_B[indices] = episodes["seed"]
        self.success_B[indices], self.late_B[indices] = 0, False
        for index in indices.tolist():
            self._reset(index)

    def _who(self, index: int) -> str:
        return f"{self.config.title}: seed {self.seed_B[index]}"

    @contextmanager
    def _named(self, index: int, step: int, what: str) -> Iterator[None]:
        """Turn any exception of an environment into a UserError of one line: environment, step, call, and line of its code."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            reported = f"{type(error).__name__} ({_line(error) or 'no message'}) at {Path(last.filename).name}:{last.lineno}"
            raise UserError(f"{self._who(index)}, step {step}: its {what} raises {reported}") from error

    def _read(self, index: int, step: int, seen: Any) -> None:
        """Store an observation. Raises UserError if it does not belong to the environment's space; reports values out of bounds once."""
        try:
            read = self.read(seen)
        except Exception as error:
            found = f"observation {_line(ValueError(repr(seen)))[:80]} is not of its space {self.envs[0].observation_space}"
            raise UserError(f"{self._who(index)}, step {step}: {found} ({type(error).__name__})") from error
        if read.shape != self.seen_B.shape[1:]:
            found = f"observation has shape {np.shape(seen)}"
            raise UserError(f"{self._who(index)}, step {step}: {found}; expected one of its space {self.envs[0].observation_space}")
        if not self.warned and self.bounds and ((read < self.bounds[0]) | (read > self.bounds[1])).any():
            self.warned = True
            print0(f"{self._who(index)}, step {step}: observation outside its space's bounds (reported once)")
        self.seen_B[index] = read

    def _reset(self, index: int) -> None:
        with self._named(index, 0, "reset"):
            seen, _ = self.envs[index].reset(seed=int(self.seed_B[index]))
        self._read(index, 0, seen)
        self.done[index] = []
        self.trace_B[index] = crc32(self.seen_B[index].tobytes())

    def _act(self, index: int, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        self.done[index].append(action)
        step = len(self.done[index])
        with self._named(index, step, "step"):
            seen, reward, terminated, late, info = self.envs[index].step(self.convert(action))
            reward = float(reward)
        self._read(index, step, seen)
        reported = np.array([reward, terminated, late], np.float64).tobytes()
        self.trace_B[index] = crc32(reported + self.seen_B[index].tobytes(), int(self.trace_B[index]))
        return reward, bool(terminated), bool(late), info

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reward_B, terminated_B = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for index in range(self.num_envs):
            reward_B[index], terminated_B[index], self.late_B[index], info = self._act(index, action_B[index].tolist())
            self.success_B[index] = self._succeeded(info, self.return_B[index] + reward_B[index])
        return reward_B, terminated_B

    def _succeeded(self, info: dict[str, Any], total: float) -> bool:
        if self.config.reward_threshold is not None:
            return bool(total >= self.config.reward_threshold)
        reported = [bool(info[name]) for name in SUCCESS if name in info]
        self.defines_success |= bool(reported)
        return any(reported)

    def _cut_off(self) -> np.ndarray:
        return self.late_B

    def _first(self, indices: np.ndarray) -> np.ndarray:
        return self.seen_B[indices]

    def _observe(self) -> np.ndarray:
        return self.seen_B.copy()

    def _report(self) -> Columns:
        return {"success": self.success_B}

    def render(self) -> Any:
        """Return frames (B, height, width, 3), uint8: pixel observations, else rendered ones. Raises UserError if it cannot render."""
        if self.config.observation.kind == "pixels":
            return np.broadcast_to(self.seen_B[..., :3], (*self.seen_B.shape[:3], 3)).copy()
        if self.envs[0].render_mode is None:
            raise UserError(f"gymnasium {self.config.id}: it cannot be drawn as pixels; expected an environment with the mode rgb_array")
        try:
            return np.stack([np.asarray(env.render(), np.uint8) for env in self.envs])
        except gymnasium.error.DependencyNotInstalled as error:
            raise UserError(f"gymnasium {self.config.id}: cannot be drawn: {_line(error)}") from None

    def close_extras(self, **kwargs: Any) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """Add the actions of the episodes in progress, and checksums of the environments' random generators."""
        done = [np.array(actions, np.int64) for actions in self.done]
        return {**super().state_dict(), "done": done, "random": np.array([_random(env) for env in self.envs], np.int64)}

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Replay the actions of the episodes in progress; if the environment is not reproducible, start new episodes.

        Returns a message if a replay differs in anything it returns, or in the state of the environment's random generator.
        """
        super().load_state_dict(state)
        if not self.reproducible:
            self._restart(np.arange(self.num_envs))
            return None
        for index, actions in enumerate(state["done"]):
            if not self._again(index, np.asarray(actions).tolist(), int(state["random"][index])):
                return f"seed {self.seed_B[index]}, step {len(actions)}: not where the same actions led before"
        return None

    def _again(self, index: int, actions: list[Any], random: int) -> bool:
        """Replay an environment's episode; return whether its outputs and its generator's state are the same as before."""
        expected, ended = int(self.trace_B[index]), False
        self._reset(index)
        for action in actions:
            if ended:
                return False
            _, terminated, late, _ = self._act(index, action)
            ended = terminated or late
        return int(self.trace_B[index]) == expected and _random(self.envs[index]) == random


def _random(env: gymnasium.Env[Any, Any]) -> int:
    """Return a checksum of the state of an environment's own generator; 0 if it has none."""
    own = getattr(env.unwrapped, "_np_random", None)
    return 0 if own is None else crc32(repr(own.bit_generator.state).encode())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _made(config: Config, batch: int) -> list[gymnasium.Env[Any, Any]]:
    """Create the environments, with a render mode if they support it."""
    limit = {} if config.max_episode_steps is None else {"max_episode_steps": config.max_episode_steps}
    options = {**config.kwargs, **limit}

    def make(**further: Any) -> gymnasium.Env[Any, Any]:
        return gymnasium.make(config.id, disable_env_checker=True, **options, **further)

    try:
        first = make()
        pixels = config.observation.kind == "pixels" or "rgb_array" not in first.metadata.get("render_modes", [])
        drawn = {} if pixels or "render_mode" in options else {"render_mode": "rgb_array"}
        first.close()
        return [make(**drawn) for _ in range(batch)]
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise UserError(f"gymnasium {config.id}: cannot be made: {_line(error)}") from None


def _limit(config: Config, env: gymnasium.Env[Any, Any]) -> int:
    """Return the time limit in steps. Raises UserError if the environment has none."""
    inner = env
    while isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, TimeLimit):
            return inner._max_episode_steps
        inner = inner.env
    expected = "expected task.max_episode_steps, steps after which an episode is cut off"
    raise UserError(f"gymnasium {config.id}: it has no time limit of its own; {expected}")


def _reader(config: Config, space: spaces.Space[Any]) -> Callable[[Any], np.ndarray]:
    """Return a function that converts an observation to an array of the config's shape. Raises UserError if the shapes differ."""
    image = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)
    found = tuple(space.shape if len(space.shape) == 3 else (*space.shape, 1)) if image and space.shape else ()
    if image and found == config.observation.shape:
        return lambda seen: _bytes(seen).reshape(found)
    try:
        numbers = flatdim(space)
    except NotImplementedError:
        raise UserError(f"gymnasium {config.id}: observations are {space}; expected what gymnasium can flatten") from None
    if config.observation_shape != [numbers]:
        expected = f"{list(found)} or [{numbers}]" if image else f"[{numbers}]"
        got = f"got {config.observation_shape}; expected {expected}"
        raise UserError(f"gymnasium {config.id}: task.observation_shape: {got}, as its observations are {space}")

    def read(seen: Any) -> np.ndarray:
        if not _is_category(space, seen):
            raise ValueError("no such category")
        return np.asarray(flatten(space, seen), np.float32)

    return read


def _bytes(seen: Any) -> np.ndarray:
    """Convert pixels to uint8. Raises ValueError if one is not an integer in 0..255."""
    pixels = np.asarray(seen)
    if pixels.dtype == np.uint8:
        return pixels
    whole = pixels.astype(np.uint8)
    if not np.array_equal(whole, pixels):
        raise ValueError("pixels beyond 0..255")
    return whole


def _bounds(space: spaces.Space[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the lower and upper bounds of a flattened observation, with a margin for rounding; None if it is not a Box."""
    flat = flatten_space(space)
    if not isinstance(flat, spaces.Box):
        return None
    low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    slack = 1e-6 + 1e-5 * np.maximum(*(np.where(np.isfinite(bound), np.abs(bound), 0) for bound in (low, high)))
    return low - slack, high + slack


def _is_category(space: spaces.Space[Any], seen: Any) -> bool:
    """Whether every categorical part of an observation is a valid category; `flatten` would map some invalid ones to the last."""
    if isinstance(space, spaces.Dict):
        return all(_is_category(part, seen[key]) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(_is_category(part, seen[index]) for index, part in enumerate(space.spaces))
    return not isinstance(space, spaces.Discrete | spaces.MultiDiscrete) or space.contains(seen)


def _writer(config: Config, space: spaces.Space[Any]) -> Callable[[Any], Any]:
    """Return a function that converts an action (an integer or a list of them) to the environment's. Raises UserError if the spaces differ."""
    if isinstance(space, spaces.Box) and space.is_bounded():
        return _bins(config, space)
    if isinstance(space, spaces.Discrete):
        sizes, start = [int(space.n)], int(space.start)
    elif isinstance(space, spaces.MultiDiscrete):
        sizes, start = space.nvec.reshape(-1).tolist(), space.start
    elif isinstance(space, spaces.MultiBinary):
        sizes, start = [2] * flatdim(space), 0
    else:
        raise UserError(f"gymnasium {config.id}: actions are {space}; expected discrete ones, or bounded numbers")
    if config.num_actions != sizes:
        raise UserError(f"gymnasium {config.id}: task.num_actions: got {config.num_actions}; expected {sizes}, as its actions are {space}")
    if isinstance(space, spaces.Discrete):
        return lambda action: action + start
    return lambda action: np.asarray(action, space.dtype).reshape(space.shape or ()) + start


def _bins(config: Config, space: spaces.Box) -> Callable[[Any], Any]:
    """Discretise real-valued actions: each part takes one of `num_actions` evenly spaced values from its lowest to its highest."""
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    if len(config.num_actions) != len(low) or min(config.num_actions) < 2:
        expected = f"a number of values, at least 2, for each of its {len(low)} parts"
        raise UserError(f"gymnasium {config.id}: task.num_actions: got {config.num_actions}; expected {expected}")
    width = (high - low) / (np.array(config.num_actions) - 1)
    return lambda action: np.clip(low + width * np.reshape(action, -1), low, high).astype(space.dtype).reshape(space.shape)
