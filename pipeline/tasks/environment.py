"""Common code of environments: reproducible episodes, and a vector environment whose sub-environments step together.

An episode is a row: a seed or a layout that determines everything that happens, given the actions. Training uses an endless stream of new
episodes, determined by its seed; held-out episodes are a sealed dataset. Both come from `EnvironmentTask.sample_episodes`.

Notation: B = sub-environments.
"""

from __future__ import annotations

from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pyarrow as pa
from gymnasium import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from pipeline.storage.arrow import from_numpy, to_numpy
from pipeline.storage.errors import UserError
from pipeline.storage.rng import Key, derive_key
from pipeline.tasks.base import Split

Columns = dict[str, np.ndarray]
"""Episodes by column, one value or array of fixed shape per episode."""

Indices = np.ndarray | slice
"""Indices of sub-environments, or the slice of all."""
ALL = slice(None)

POOL = 4096
"""Episodes sampled at a time for training; the episodes of a seed depend on it."""


class EnvironmentTask:
    """A task whose rows are episodes: samples episodes from a key and creates the environment that plays them."""

    meanings: ClassVar[dict[str, str]] = {}
    """Descriptions of episode columns other than the metadata columns of the config, for the dataset card."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def sample_episodes(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Sample episodes; a pure function of its arguments. No episode is in two splits, except as stated by `overlap`."""
        raise NotImplementedError

    def environment(self, batch: int, seed: int) -> VectorEnv:
        """Create a vector environment of `batch` sub-environments that starts with the first training episodes of the seed."""
        raise NotImplementedError

    def episodes(self, rows: int, key: Key, split: Split = "train") -> pa.RecordBatch:
        """Sample episodes in the format of a shard; arrays are flattened to lists of fixed length."""
        arrays = {}
        for name, values in self.sample_episodes(rows, key, split).items():
            flat = from_numpy(values.reshape(-1))
            arrays[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
        fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
        return pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema(fields))

    def overlap(self) -> str:
        """Describe which episodes, if any, are too few for disjoint splits; one sentence for the dataset card."""
        return self.config.overlap or "No episode is in two splits."


def columns_of(episodes: pa.RecordBatch | pa.Table) -> Columns:
    """Convert episodes from Arrow; a list becomes one row of an array."""
    found = {}
    for name in episodes.schema.names:
        column = episodes.column(name)
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        nested = isinstance(array, pa.FixedSizeListArray | pa.ListArray)
        found[name] = to_numpy(array.flatten()).reshape(len(array), -1) if nested else to_numpy(array)
    return found


class EpisodeStream:
    """The endless stream of training episodes of a seed. Its position is two numbers: a pool, and the index in it."""

    def __init__(self, task: EnvironmentTask, seed: int) -> None:
        self.task, self.seed = task, seed
        self.pool, self.place = -1, POOL
        self.columns: Columns = {}

    def take(self, count: int) -> Columns:
        """Return the next `count` episodes."""
        if self.place + count <= POOL:
            self.place += count
            return {name: values[self.place - count : self.place] for name, values in self.columns.items()}
        parts, left = [], count
        while left:
            if self.place == POOL:
                self.seek(self.pool + 1, 0)
            few = min(left, POOL - self.place)
            parts.append({name: values[self.place : self.place + few] for name, values in self.columns.items()})
            self.place, left = self.place + few, left - few
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def seek(self, pool: int, place: int) -> None:
        """Move to an index of a pool."""
        if pool >= 0 and pool != self.pool:
            self.columns = self.task.sample_episodes(POOL, derive_key("episodes", self.seed, pool), "train")
        self.pool, self.place = pool, place


class BatchedEnvironment(VectorEnv):
    """A vector environment in numpy whose sub-environments step together, without a loop over them.

    Autoreset mode is gymnasium's SAME_STEP: when an episode ends, the observation returned is the first of the next one, and `infos` has

        final_obs   (B, *observation) the last observation, where `_final_obs` (B,) is true; zeros elsewhere
        success     (B,) int64, 1 or 0, where `_success` is true: the episode ended at this step; likewise below
        return      (B,) float64, sum of rewards
        length      (B,) int64, steps

    and is empty if no episode ended. Returned arrays are never modified afterwards.

    Subclasses define `state_arrays` (attributes with one entry per sub-environment), `_begin`, `_first`, `_move`, `_observe`, `_report` and
    `render`.
    """

    reproducible: bool = True
    """Whether it resumes bit-exactly from its `state_dict`."""
    defines_success: bool = True
    """Whether it reports whether an episode was solved."""
    state_arrays: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that hold the sub-environments' state."""

    def __init__(self, task: EnvironmentTask, batch: int, seed: int, observation: Space[Any], action: Space[Any], limit: int) -> None:
        self.num_envs, self.limit = batch, limit
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space, self.action_space = batch_space(observation, batch), batch_space(action, batch)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"], "render_fps": 8}
        self.render_mode = "rgb_array"
        self.task, self.stream = task, EpisodeStream(task, seed)
        self.played: Columns | None = None
        self.length_B, self.return_B = np.zeros(batch, np.int64), np.zeros(batch)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the next training episode in every sub-environment; with a seed, the first episodes of that seed."""
        super().reset(seed=seed)
        if seed is not None:
            self.stream = EpisodeStream(self.task, seed)
        self.played = None
        return self._start(), {}

    def play(self, episodes: pa.RecordBatch | pa.Table) -> tuple[np.ndarray, dict[str, Any]]:
        """Start episode i in sub-environment i, and restart it whenever it ends; as many episodes as sub-environments. Returns as `reset`."""
        assert episodes.num_rows == self.num_envs, f"got {episodes.num_rows} episodes for {self.num_envs} environments"
        self.played = columns_of(episodes)
        return self._start(), {}

    def _start(self) -> np.ndarray:
        indices = np.arange(self.num_envs)
        self._restart(indices)
        return self._begun(indices)

    def _begun(self, indices: np.ndarray) -> np.ndarray:
        """Return the first observations of these sub-environments, checked to be finite."""
        observation = self._first(indices)
        self._refuse_not_finite(observation, "observation", indices)
        return observation

    def _refuse_not_finite(self, values: np.ndarray, field: str, indices: Indices) -> None:
        """Raise UserError with the sub-environment, step and index of the first value that is not finite."""
        if values.dtype.kind != "f":
            return
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32))  # the networks' dtype
        if finite.all():
            return
        row, *place = np.argwhere(~finite)[0].tolist()
        index = int(np.arange(self.num_envs)[indices][row])
        found = f"{field}{place or ''} is {values[(row, *place)]}"
        raise UserError(f"{self._who(index)}, step {self.length_B[index]}: {found}; expected a finite number")

    def _who(self, index: int) -> str:
        """Return the name of a sub-environment in messages."""
        return f"{self.task.config.title}: environment {index}"

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every sub-environment; returns observations, rewards (float64), terminations, truncations (by the time limit), infos.

        Raises UserError for an observation or a reward that is not finite.
        """
        reward_B, terminated_B = self._move(np.asarray(actions))
        self.length_B += 1
        self.return_B += reward_B
        truncated_B = self._cut_off() > terminated_B
        ended_B = terminated_B | truncated_B
        indices = ended_B.nonzero()[0]
        observation = self._observe()
        self._refuse_not_finite(reward_B, "reward", ALL)
        self._refuse_not_finite(observation, "observation", ALL)
        infos = self._end(indices, ended_B, observation) if len(indices) else {}
        return observation, reward_B, terminated_B, truncated_B, infos

    def _end(self, indices: np.ndarray, ended_B: np.ndarray, observation: np.ndarray) -> dict[str, Any]:
        """Return the infos of the episodes that ended, and start the next ones; overwrites their rows of `observation`."""
        final = np.zeros(observation.shape, observation.dtype)  # lazily zeroed pages: zeros_like would write every frame
        final[indices] = observation[indices]
        infos: dict[str, Any] = {"final_obs": final, "_final_obs": ended_B}
        for name, values in {**self._report(), "return": self.return_B, "length": self.length_B}.items():
            infos[name], infos[f"_{name}"] = values * ended_B, ended_B
        self._restart(indices)
        observation[indices] = self._begun(indices)
        return infos

    def _restart(self, indices: np.ndarray) -> None:
        self.length_B[indices], self.return_B[indices] = 0, 0.0
        played = self.played
        self._begin(
            indices, self.stream.take(len(indices)) if played is None else {name: values[indices] for name, values in played.items()}
        )

    def _begin(self, indices: np.ndarray, episodes: Columns) -> None:
        """Start these episodes in these sub-environments."""
        raise NotImplementedError

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply one action in every sub-environment; returns new arrays reward_B (float64) and terminated_B."""
        raise NotImplementedError

    def _cut_off(self) -> np.ndarray:
        """Return which sub-environments have reached the time limit."""
        return self.length_B >= self.limit

    def _first(self, indices: np.ndarray) -> np.ndarray:
        """Return the first observations of an episode of these sub-environments, a new array."""
        raise NotImplementedError

    def _observe(self) -> np.ndarray:
        """Return the observations of all sub-environments after a step, a new array."""
        raise NotImplementedError

    def _report(self) -> Columns:
        """Return `success` (int64, for every sub-environment as if its episode ended now) and other results of an episode."""
        raise NotImplementedError

    def render(self) -> Any:
        """Return frames (B, height, width, 3), uint8."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a bit-exact resume: the state arrays, the position in the episode stream, and the episodes in progress."""
        indices = {name: getattr(self, name).copy() for name in ("length_B", "return_B", *self.state_arrays)}
        supply = {"seed": self.stream.seed, "pool": self.stream.pool, "place": self.stream.place}
        return {"copies": indices, "supply": supply, "played": dict(self.played or {}), "shown": self._shown()}

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Restore a `state_dict` of the same task and number of sub-environments; returns a message if they differ afterwards, else None."""
        for name, values in state["copies"].items():
            getattr(self, name)[...] = values
        supply = {name: int(value) for name, value in state["supply"].items()}
        self.stream = EpisodeStream(self.task, supply["seed"])
        self.stream.seek(supply["pool"], supply["place"])
        self.played = {name: np.asarray(values) for name, values in state["played"].items()} or None
        different = np.flatnonzero(self._shown() != state["shown"])
        return f"environment {different[0]} shows another observation" if len(different) else None

    def _shown(self) -> np.ndarray:
        """Return a checksum of each sub-environment's current observation."""
        shown, begun = self._observe(), np.flatnonzero(self.length_B == 0)
        if len(begun):
            shown[begun] = self._first(begun)
        return np.array([crc32(np.ascontiguousarray(row).tobytes()) for row in shown], np.int64)
