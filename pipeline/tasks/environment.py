"""What environments have in common: episodes that are drawn once and can be played by anybody, and many copies of one stepping at once.

An episode is a row: a seed or a layout, from which all that happens follows, given the actions. Training meets fresh ones without end, in
the order of its seed; held-out ones are a sealed dataset. Both come from `EnvironmentTask.draw`.

B: copies.
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
"""Episodes by column, a value or an array of fixed shape for each."""

Copies = np.ndarray | slice
"""Which copies: their indices, or all."""
ALL = slice(None)

POOL = 4096
"""Episodes drawn at a time for training; the episodes of a seed depend on it."""


class EnvironmentTask:
    """A task whose rows are episodes: it draws them from a key and makes the environment that plays them."""

    meanings: ClassVar[dict[str, str]] = {}
    """What the columns of an episode mean that are not metadata columns of the entry, for the dataset's card."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def draw(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Episodes; a pure function of its arguments. No episode is in two splits, except where `overlap` says so."""
        raise NotImplementedError

    def environment(self, batch: int, seed: int) -> VectorEnv:
        """So many copies that begin with the first training episodes of the seed."""
        raise NotImplementedError

    def episodes(self, rows: int, key: Key, split: Split = "train") -> pa.RecordBatch:
        """What `draw` gives in the form of a shard; arrays are flat lists of fixed length."""
        arrays = {}
        for name, values in self.draw(rows, key, split).items():
            flat = from_numpy(values.reshape(-1))
            arrays[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
        fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
        return pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema(fields))

    def overlap(self) -> str:
        """Which episodes, if any, are too few to be kept apart between the splits; one sentence for the card."""
        return self.config.overlap or "No episode is in two splits."


def columns_of(episodes: pa.RecordBatch | pa.Table) -> Columns:
    """Episodes back from Arrow; lists have one row each."""
    found = {}
    for name in episodes.schema.names:
        column = episodes.column(name)
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        nested = isinstance(array, pa.FixedSizeListArray | pa.ListArray)
        found[name] = to_numpy(array.flatten()).reshape(len(array), -1) if nested else to_numpy(array)
    return found


class Supply:
    """The training episodes of a seed, one after the other. Where it stands is two numbers: a pool and the place in it."""

    def __init__(self, task: EnvironmentTask, seed: int) -> None:
        self.task, self.seed = task, seed
        self.pool, self.place = -1, POOL
        self.columns: Columns = {}

    def take(self, count: int) -> Columns:
        """The next so many."""
        if self.place + count <= POOL:
            self.place += count
            return {name: values[self.place - count : self.place] for name, values in self.columns.items()}
        parts, left = [], count
        while left:
            if self.place == POOL:
                self.go(self.pool + 1, 0)
            few = min(left, POOL - self.place)
            parts.append({name: values[self.place : self.place + few] for name, values in self.columns.items()})
            self.place, left = self.place + few, left - few
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def go(self, pool: int, place: int) -> None:
        """Stand at a place of a pool."""
        if pool >= 0 and pool != self.pool:
            self.columns = self.task.draw(POOL, derive_key("episodes", self.seed, pool), "train")
        self.pool, self.place = pool, place


class BatchedEnvironment(VectorEnv):
    """Copies of one environment that step together, in numpy, without a loop over them.

    Autoreset is gymnasium's SAME_STEP: the observation of a copy whose episode ended is the first of its next one, and `infos` has

        final_obs   (B, *observation) the last observation, where `_final_obs` (B,) is true; zeros elsewhere
        success     (B,) int64, 1 or 0, where `_success` is true: the copies whose episode ended at this step, as in all that follow
        return      (B,) float64, sum of rewards
        length      (B,) int64, steps

    and is empty where no episode ended. Arrays that are given out are never written to again.

    A kind of environment says `carried` (its arrays with a value per copy) and has `_begin`, `_first`, `_move`, `_observe`, `_report` and `render`.
    """

    reproducible: bool = True
    """Whether it resumes to the same bits from its `state_dict`."""
    defines_success: bool = True
    """Whether it says of an episode that it was solved."""
    carried: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that hold the copies' state."""

    def __init__(self, task: EnvironmentTask, batch: int, seed: int, observation: Space[Any], action: Space[Any], limit: int) -> None:
        self.num_envs, self.limit = batch, limit
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space, self.action_space = batch_space(observation, batch), batch_space(action, batch)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"], "render_fps": 8}
        self.render_mode = "rgb_array"
        self.task, self.supply = task, Supply(task, seed)
        self.played: Columns | None = None
        self.length_B, self.return_B = np.zeros(batch, np.int64), np.zeros(batch)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Every copy begins its next training episode; with a seed, the first ones of that seed."""
        super().reset(seed=seed)
        if seed is not None:
            self.supply = Supply(self.task, seed)
        self.played = None
        return self._start(), {}

    def play(self, episodes: pa.RecordBatch | pa.Table) -> tuple[np.ndarray, dict[str, Any]]:
        """Copy i begins row i of the episodes, and begins it again whenever it ends; as many rows as copies. Returns what `reset` does."""
        assert episodes.num_rows == self.num_envs, f"got {episodes.num_rows} episodes for {self.num_envs} copies"
        self.played = columns_of(episodes)
        return self._start(), {}

    def _start(self) -> np.ndarray:
        copies = np.arange(self.num_envs)
        self._restart(copies)
        return self._begun(copies)

    def _begun(self, copies: np.ndarray) -> np.ndarray:
        """The first observations of these copies, known to be numbers."""
        observation = self._first(copies)
        self._refuse_not_finite(observation, "observation", copies)
        return observation

    def _refuse_not_finite(self, values: np.ndarray, field: str, copies: Copies) -> None:
        """Raise UserError that names the first copy, step and place of a value of these copies that is no finite number."""
        if values.dtype.kind != "f":
            return
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32))  # what networks compute in
        if finite.all():
            return
        row, *place = np.argwhere(~finite)[0].tolist()
        copy = int(np.arange(self.num_envs)[copies][row])
        found = f"{field}{place or ''} is {values[(row, *place)]}"
        raise UserError(f"{self._who(copy)}, step {self.length_B[copy]}: {found}; expected a finite number")

    def _who(self, copy: int) -> str:
        """What a line to a user calls a copy."""
        return f"{self.task.config.title}: copy {copy}"

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every copy: observations, rewards (float64), terminations, truncations (the time limit), infos.

        Raises UserError for an observation or a reward that is no finite number.
        """
        reward_B, terminated_B = self._move(np.asarray(actions))
        self.length_B += 1
        self.return_B += reward_B
        truncated_B = self._cut_off() > terminated_B
        ended_B = terminated_B | truncated_B
        copies = ended_B.nonzero()[0]
        observation = self._observe()
        self._refuse_not_finite(reward_B, "reward", ALL)
        self._refuse_not_finite(observation, "observation", ALL)
        infos = self._end(copies, ended_B, observation) if len(copies) else {}
        return observation, reward_B, terminated_B, truncated_B, infos

    def _end(self, copies: np.ndarray, ended_B: np.ndarray, observation: np.ndarray) -> dict[str, Any]:
        """Tell what ended, and begin the next episodes of those copies, whose rows of `observation` are overwritten."""
        final = np.zeros(observation.shape, observation.dtype)  # of the system's empty pages: zeros_like would write every frame
        final[copies] = observation[copies]
        infos: dict[str, Any] = {"final_obs": final, "_final_obs": ended_B}
        for name, values in {**self._report(), "return": self.return_B, "length": self.length_B}.items():
            infos[name], infos[f"_{name}"] = values * ended_B, ended_B
        self._restart(copies)
        observation[copies] = self._begun(copies)
        return infos

    def _restart(self, copies: np.ndarray) -> None:
        self.length_B[copies], self.return_B[copies] = 0, 0.0
        played = self.played
        self._begin(copies, self.supply.take(len(copies)) if played is None else {name: values[copies] for name, values in played.items()})

    def _begin(self, copies: np.ndarray, episodes: Columns) -> None:
        """Put these copies at the start of these episodes."""
        raise NotImplementedError

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let every copy act; reward_B (float64) and terminated_B, new arrays."""
        raise NotImplementedError

    def _cut_off(self) -> np.ndarray:
        """Whose time is up."""
        return self.length_B >= self.limit

    def _first(self, copies: np.ndarray) -> np.ndarray:
        """What these copies see at the start of an episode, a new array."""
        raise NotImplementedError

    def _observe(self) -> np.ndarray:
        """What all copies see after a step, a new array."""
        raise NotImplementedError

    def _report(self) -> Columns:
        """`success` (int64, of every copy if its episode ended now) and what else the environment tells of an episode."""
        raise NotImplementedError

    def render(self) -> Any:
        """Frames (B, height, width, 3), uint8."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """State to resume from, to the same bits: the copies' arrays, the position in the stream of episodes, and the episodes in progress."""
        copies = {name: getattr(self, name).copy() for name in ("length_B", "return_B", *self.carried)}
        supply = {"seed": self.supply.seed, "pool": self.supply.pool, "place": self.supply.place}
        return {"copies": copies, "supply": supply, "played": dict(self.played or {}), "shown": self._shown()}

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Take over what `state_dict` gave, of as many copies of the same task; in words how they differ from then, None if they do not."""
        for name, values in state["copies"].items():
            getattr(self, name)[...] = values
        supply = {name: int(value) for name, value in state["supply"].items()}
        self.supply = Supply(self.task, supply["seed"])
        self.supply.go(supply["pool"], supply["place"])
        self.played = {name: np.asarray(values) for name, values in state["played"].items()} or None
        different = np.flatnonzero(self._shown() != state["shown"])
        return f"copy {different[0]} shows another observation" if len(different) else None

    def _shown(self) -> np.ndarray:
        """A checksum of what each copy shows now."""
        shown, begun = self._observe(), np.flatnonzero(self.length_B == 0)
        if len(begun):
            shown[begun] = self._first(begun)
        return np.array([crc32(np.ascontiguousarray(row).tobytes()) for row in shown], np.int64)
