"""Any environment of gymnasium behind the interface of the native ones.

An episode is the seed that the environment is reset with, so that held-out episodes are seeds that training never uses. Where an
environment is deterministic given its seed, as gymnasium's own are, a copy's state is its seed and the actions since: it is restored by
doing them again, and nothing is pickled.

B: copies.
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
"""What environments call it in their infos."""


class Gymnasium(EnvironmentTask):
    """An episode is a seed."""

    meanings: ClassVar[dict[str, str]] = {"seed": "what the environment is reset with, int64"}

    config: Config

    def draw(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Seeds of the split."""
        rng = generator(key)
        seed_B = rng.integers(SEEDS, size=rows)
        wrong = np.flatnonzero(~in_split(seed_B.astype(np.uint64), split))
        while len(wrong):
            seed_B[wrong] = rng.integers(SEEDS, size=len(wrong))
            wrong = wrong[~in_split(seed_B[wrong].astype(np.uint64), split)]
        return {"seed": seed_B}

    def environment(self, batch: int, seed: int) -> GymnasiumCopies:
        """Copies of the environment. Raises UserError where it cannot be made, or is not what the config says."""
        return GymnasiumCopies(self, batch, seed)


class GymnasiumCopies(BatchedEnvironment):
    """Copies of an environment, one after the other."""

    carried: ClassVar[tuple[str, ...]] = ("seed_B", "seen_B", "late_B", "success_B", "trace_B")
    """trace_B: a checksum of all that an episode has shown so far. An episode that is played again must come to the same."""

    def __init__(self, task: Gymnasium, batch: int, seed: int) -> None:
        self.config = config = task.config
        self.envs = _made(config, batch)
        self.defines_success = config.reward_threshold is not None  # or what the environment says, once it says it
        self.reproducible = not getattr(self.envs[0].spec, "nondeterministic", True)
        self.read = _reader(config, self.envs[0].observation_space)
        self.convert = _writer(config, self.envs[0].action_space)
        shape, kind = config.observation
        space: Any = spaces.Box(0, 255, shape, np.uint8) if kind == "pixels" else spaces.Box(-np.inf, np.inf, shape, np.float32)
        action: Any = spaces.Discrete(config.num_actions[0]) if len(config.num_actions) == 1 else spaces.MultiDiscrete(config.num_actions)
        super().__init__(task, batch, seed, space, action, _limit(config, self.envs[0]))
        self.seed_B, self.success_B, self.late_B = np.zeros(batch, np.int64), np.zeros(batch, np.int64), np.zeros(batch, bool)
        self.seen_B, self.trace_B = np.zeros((batch, *shape), space.dtype), np.zeros(batch, np.int64)
        self.done: list[list[Any]] = [[] for _ in range(batch)]
        self.bounds, self.warned = (None if kind == "pixels" else _bounds(self.envs[0].observation_space)), False

    def _begin(self, copies: np.ndarray, episodes: Columns) -> None:
        self.seed_B[copies] = episodes["seed"]
        self.success_B[copies], self.late_B[copies] = 0, False
        for copy in copies.tolist():
            self._reset(copy)

    def _who(self, copy: int) -> str:
        return f"{self.config.title}: seed {self.seed_B[copy]}"

    @contextmanager
    def _named(self, copy: int, step: int, what: str) -> Iterator[None]:
        """Turn whatever an environment raises into one line: which, at which step, in which call and line of its code."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__} ({_line(error) or 'no message'}) at {Path(last.filename).name}:{last.lineno}"
            raise UserError(f"{self._who(copy)}, step {step}: its {what} raises {told}") from error

    def _read(self, copy: int, step: int, seen: Any) -> None:
        """Take in an observation. Raises UserError for one that is not of the environment's space, one line about one beyond its bounds."""
        try:
            read = self.read(seen)
        except Exception as error:
            found = f"observation {_line(ValueError(repr(seen)))[:80]} is not of its space {self.envs[0].observation_space}"
            raise UserError(f"{self._who(copy)}, step {step}: {found} ({type(error).__name__})") from error
        if read.shape != self.seen_B.shape[1:]:
            found = f"observation has shape {np.shape(seen)}"
            raise UserError(f"{self._who(copy)}, step {step}: {found}; expected one of its space {self.envs[0].observation_space}")
        if not self.warned and self.bounds and ((read < self.bounds[0]) | (read > self.bounds[1])).any():
            self.warned = True
            print0(f"{self._who(copy)}, step {step}: observation outside its space's bounds (reported once)")
        self.seen_B[copy] = read

    def _reset(self, copy: int) -> None:
        with self._named(copy, 0, "reset"):
            seen, _ = self.envs[copy].reset(seed=int(self.seed_B[copy]))
        self._read(copy, 0, seen)
        self.done[copy] = []
        self.trace_B[copy] = crc32(self.seen_B[copy].tobytes())

    def _act(self, copy: int, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        self.done[copy].append(action)
        step = len(self.done[copy])
        with self._named(copy, step, "step"):
            seen, reward, terminated, late, info = self.envs[copy].step(self.convert(action))
            reward = float(reward)
        self._read(copy, step, seen)
        told = np.array([reward, terminated, late], np.float64).tobytes()
        self.trace_B[copy] = crc32(told + self.seen_B[copy].tobytes(), int(self.trace_B[copy]))
        return reward, bool(terminated), bool(late), info

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reward_B, terminated_B = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for copy in range(self.num_envs):
            reward_B[copy], terminated_B[copy], self.late_B[copy], info = self._act(copy, action_B[copy].tolist())
            self.success_B[copy] = self._succeeded(info, self.return_B[copy] + reward_B[copy])
        return reward_B, terminated_B

    def _succeeded(self, info: dict[str, Any], total: float) -> bool:
        if self.config.reward_threshold is not None:
            return bool(total >= self.config.reward_threshold)
        told = [bool(info[name]) for name in SUCCESS if name in info]
        self.defines_success |= bool(told)
        return any(told)

    def _cut_off(self) -> np.ndarray:
        return self.late_B

    def _first(self, copies: np.ndarray) -> np.ndarray:
        return self.seen_B[copies]

    def _observe(self) -> np.ndarray:
        return self.seen_B.copy()

    def _report(self) -> Columns:
        return {"success": self.success_B}

    def render(self) -> Any:
        """Frames (B, height, width, 3), uint8: the pixels that are seen, else what the environment draws. UserError where it draws none."""
        if self.config.observation.kind == "pixels":
            return np.broadcast_to(self.seen_B[..., :3], (*self.seen_B.shape[:3], 3)).copy()
        if self.envs[0].render_mode is None:
            raise UserError(f"gymnasium {self.config.id}: it cannot be drawn as pixels; expected an environment with the mode rgb_array")
        try:
            return np.stack([np.asarray(env.render(), np.uint8) for env in self.envs])
        except gymnasium.error.DependencyNotInstalled as error:
            raise UserError(f"gymnasium {self.config.id}: cannot be drawn: {_line(error)}") from None

    def close_extras(self, **kwargs: Any) -> None:
        """Close every copy."""
        for env in self.envs:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """The copies' seeds and what was done since, besides what every environment has."""
        done = [np.array(actions, np.int64) for actions in self.done]
        return {**super().state_dict(), "done": done, "random": np.array([_random(env) for env in self.envs], np.int64)}

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Do everything again that was done since the episodes began; where that is not reproducible, begin them again.

        How a copy differs from then: by anything it shows on the way, or by its own generator of random numbers.
        """
        super().load_state_dict(state)
        if not self.reproducible:
            self._restart(np.arange(self.num_envs))
            return None
        for copy, actions in enumerate(state["done"]):
            if not self._again(copy, np.asarray(actions).tolist(), int(state["random"][copy])):
                return f"seed {self.seed_B[copy]}, step {len(actions)}: not where the same actions led before"
        return None

    def _again(self, copy: int, actions: list[Any], random: int) -> bool:
        """Play a copy's episode again; whether it showed and is what it did and was."""
        expected, ended = int(self.trace_B[copy]), False
        self._reset(copy)
        for action in actions:
            if ended:
                return False
            _, terminated, late, _ = self._act(copy, action)
            ended = terminated or late
        return int(self.trace_B[copy]) == expected and _random(self.envs[copy]) == random


def _random(env: gymnasium.Env[Any, Any]) -> int:
    """A checksum of the state of an environment's own generator; 0 where it has none."""
    own = getattr(env.unwrapped, "_np_random", None)
    return 0 if own is None else crc32(repr(own.bit_generator.state).encode())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _made(config: Config, batch: int) -> list[gymnasium.Env[Any, Any]]:
    """So many environments, which can be drawn if they can be at all."""
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
    """The steps after which an episode is cut off. Raises UserError where the environment would go on for ever."""
    inner = env
    while isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, TimeLimit):
            return inner._max_episode_steps
        inner = inner.env
    expected = "expected task.max_episode_steps, steps after which an episode is cut off"
    raise UserError(f"gymnasium {config.id}: it has no time limit of its own; {expected}")


def _reader(config: Config, space: spaces.Space[Any]) -> Callable[[Any], np.ndarray]:
    """What turns an observation into an array of the config's shape. Raises UserError where that is another."""
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
    """Pixels as they are stored. Raises ValueError where one is no whole number of 0..255."""
    pixels = np.asarray(seen)
    if pixels.dtype == np.uint8:
        return pixels
    whole = pixels.astype(np.uint8)
    if not np.array_equal(whole, pixels):
        raise ValueError("pixels beyond 0..255")
    return whole


def _bounds(space: spaces.Space[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """The least and the largest that each number of a flattened observation may be, with room for rounding."""
    flat = flatten_space(space)
    if not isinstance(flat, spaces.Box):
        return None
    low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    slack = 1e-6 + 1e-5 * np.maximum(*(np.where(np.isfinite(bound), np.abs(bound), 0) for bound in (low, high)))
    return low - slack, high + slack


def _is_category(space: spaces.Space[Any], seen: Any) -> bool:
    """Whether every number of an observation that stands for a category is one; `flatten` would take some others for the last ones."""
    if isinstance(space, spaces.Dict):
        return all(_is_category(part, seen[key]) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(_is_category(part, seen[index]) for index, part in enumerate(space.spaces))
    return not isinstance(space, spaces.Discrete | spaces.MultiDiscrete) or space.contains(seen)


def _writer(config: Config, space: spaces.Space[Any]) -> Callable[[Any], Any]:
    """What turns an action of ours (a number, or a list of them) into one of the environment's. Raises UserError where it has others."""
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
    """Real-valued actions: each part takes one of so many values from its lowest to its highest."""
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    if len(config.num_actions) != len(low) or min(config.num_actions) < 2:
        expected = f"a number of values, at least 2, for each of its {len(low)} parts"
        raise UserError(f"gymnasium {config.id}: task.num_actions: got {config.num_actions}; expected {expected}")
    width = (high - low) / (np.array(config.num_actions) - 1)
    return lambda action: np.clip(low + width * np.reshape(action, -1), low, high).astype(space.dtype).reshape(space.shape)
