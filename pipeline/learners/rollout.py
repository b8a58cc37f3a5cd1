"""Acting in many copies of an environment at once, and what comes of it as training sequences.

Letters: T steps of a rollout, B copies, N sequences, S steps of one, A parts of an action, C values of all parts.

A rollout is gathered time-major, (T, B, ...). It is learned from as N sequences of S steps, batch first as mixers read: copy after copy of
the first S steps, then of the next ones. Each begins with the state that the network carried when it acted there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from pipeline.config import learners
from pipeline.learners.advantages import advantages, deviation
from pipeline.learners.playing import refuse_beyond
from pipeline.learners.policy import log_probability
from pipeline.networks.sampling import sample
from pipeline.ops.state import State, concatenate, cut, select, transform, where
from pipeline.storage.console import print0

EPISODE = ("success", "return", "length")
"""What an environment tells of an episode when it ends."""


class Sequences(NamedTuple):
    """Training sequences: what was seen, done and expected, and how it turned out. reset_NS: an observation is an episode's first."""

    observed_NS: Tensor
    reset_NS: Tensor
    action_NSA: Tensor
    log_probability_NS: Tensor
    value_NS: Tensor
    advantage_NS: Tensor
    state: State

    def in_order(self, order_N: Tensor) -> Sequences:
        """The same sequences in another order."""
        return Sequences(*(select(part, order_N) for part in self))

    def split(self, parts: int) -> list[Sequences]:
        """So many parts of equal size, one after the other, without a copy."""
        size = len(self.reset_NS) // parts
        return [Sequences(*(cut(part, start, start + size) for part in self)) for start in range(0, len(self.reset_NS), size)]


class Rollout(NamedTuple):
    """Training sequences, mean reward of a step, mean and deviation of the newest observations' numbers, and the episodes that ended."""

    sequences: Sequences
    reward: Tensor
    observation_mean: Tensor
    observation_deviation: Tensor
    episodes: dict[str, np.ndarray]


class _Taken(NamedTuple):
    """One step of all copies as it was taken."""

    observed_B: Tensor
    reset_B: Tensor
    logits_BC: Tensor
    value_B: Tensor
    action_BA: Tensor


class Actor:
    """A network that acts in copies of an environment, one rollout after the other, each going on where the one before stopped."""

    def __init__(self, config: learners.Acting, network: Any, environment: VectorEnv, device: torch.device, name: str = "acting") -> None:
        self.config, self.network, self.environment, self.device, self.name = config, network, environment, device, name
        self._came_back = True
        self._begin()

    def _begin(self) -> None:
        observed, _ = self.environment.reset()
        self.observed_B = self._tensor(observed)
        self.reset_B = torch.ones(self.config.num_envs, dtype=torch.bool, device=self.device)
        self.steps_B = np.zeros(self.config.num_envs, np.int64)
        self.state = self.network.initial_state(self.config.num_envs)

    @property
    def reproducible(self) -> bool:
        """Whether the environment goes on bit by bit after a resume, and has done so."""
        environment: Any = self.environment
        return environment.reproducible and self._came_back

    @torch.no_grad()
    def rollout(self, noise_TBC: Tensor) -> Rollout:
        """Act for as many steps as there is noise for, by which actions are drawn; see `pipeline.networks.sampling.sample`."""
        steps, empty = len(noise_TBC), self.network.initial_state(self.config.num_envs)
        taken, states, episodes = [], [], []
        reward, ended, cut_off = (np.zeros((steps, self.config.num_envs), kind) for kind in (np.float32, bool, bool))
        last_TB = torch.zeros(steps, self.config.num_envs, device=self.device)
        for t, noise_BC in enumerate(noise_TBC):
            if t % (self.config.bptt_steps or steps) == 0:
                states.append(self.state)
            refuse_beyond(self.name, self.network.context, int(self.steps_B.max()) + 1)
            taken.append(self._act(noise_BC, empty))
            observed, reward[t], ended[t], cut_off[t], infos = self.environment.step(self._for_environment(taken[-1].action_BA))
            if self.config.bootstrap_truncated and cut_off[t].any():
                last_TB[t] = self._value_of_last(infos["final_obs"], cut_off[t])
            self.observed_B = self._tensor(observed)
            self.reset_B = self._tensor(ended[t] | cut_off[t])
            self.steps_B = np.where(ended[t] | cut_off[t], 0, self.steps_B + 1)
            episodes += [{key: infos[key][infos["_length"]] for key in EPISODE}] if "_length" in infos else []
        step = _Taken(*(torch.stack(parts) for parts in zip(*taken, strict=True)))
        reward_TB, done_TB = self._tensor(reward), self._tensor(ended | cut_off)
        next_TB = torch.where(done_TB, last_TB, torch.cat([step.value_B[1:], self._value_of_next().unsqueeze(0)]))
        advantage_TB = advantages(reward_TB, step.value_B, next_TB, done_TB, self.config.gamma, self.config.gae_lambda)
        seen = self.observed_B.float()
        found = {key: np.concatenate([ended_there[key] for ended_there in episodes]) for key in EPISODE} if episodes else {}
        return Rollout(self._sequences(step, advantage_TB, states), reward_TB.mean(), seen.mean(), deviation(seen), found)

    def _act(self, noise_BC: Tensor, empty: State) -> _Taken:
        """Read what is seen and draw an action; the state goes on, from the `empty` one where an episode begins."""
        state = where(self.reset_B, empty, self.state) if bool(self.reset_B.any()) else self.state
        acted, self.state = self.network.step(self.observed_B, state)
        action_BA = sample(acted.logits, noise_BC, self.network.actions)
        return _Taken(self.observed_B, self.reset_B, acted.logits, acted.value, action_BA)

    def _for_environment(self, action_BA: Tensor) -> np.ndarray:
        return (action_BA.squeeze(-1) if action_BA.shape[-1] == 1 else action_BA).cpu().numpy()

    def _value_of_last(self, observed: np.ndarray, cut_off: np.ndarray) -> Tensor:
        """The critic's answer to the last observation of the copies whose episode was cut off, zero for the others."""
        rows_N = torch.from_numpy(np.flatnonzero(cut_off)).to(self.device)
        acted, _ = self.network.step(self._tensor(observed[cut_off]), select(self.state, rows_N))
        return acted.value.new_zeros(len(cut_off)).index_copy(0, rows_N, acted.value)

    def _value_of_next(self) -> Tensor:
        """The critic's answer to what is seen now, without going on; it means nothing where an episode has just begun."""
        return self.network.step(self.observed_B, self.state)[0].value

    def _sequences(self, step: _Taken, advantage_TB: Tensor, states: list[State]) -> Sequences:
        log_probability_TB = log_probability(step.logits_BC, step.action_BA, self.network.actions)
        parts = (step.observed_B, step.reset_B, step.action_BA, log_probability_TB, step.value_B, advantage_TB)
        observed, reset, action, taken, value, advantage = (_batch_first(part, len(states)) for part in parts)
        return Sequences(observed, reset, action, taken, value, advantage, concatenate(states))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """The copies, what they show, and what the network carries of each."""
        carried = {"observed": self.observed_B, "reset": self.reset_B, "steps": self.steps_B, "state": self.state}
        environment: Any = self.environment
        return {**carried, "environment": environment.state_dict(), "came_back": self._came_back}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. An environment that cannot, or does not show what it showed then, begins new episodes."""
        environment: Any = self.environment
        difference = environment.load_state_dict(state["environment"])
        if difference:
            print0(f"{self.name}: {difference} after a resume; new episodes begin, and the run is not reproducible")
        self._came_back = state["came_back"] and not difference
        if not environment.reproducible or difference:
            self._begin()
            return
        self.steps_B = state["steps"]
        self.observed_B, self.reset_B = (state[key].to(self.device) for key in ("observed", "reset"))
        empty = self.network.initial_state(self.config.num_envs)
        self.state = transform(lambda leaf, saved: saved.to(leaf), empty, state["state"])


def _batch_first(part_TB: Tensor, sequences: int) -> Tensor:
    """(T, B, ...) as (N, S, ...): all copies of the first steps, then of the next."""
    return part_TB.unflatten(0, (sequences, -1)).transpose(1, 2).flatten(0, 1)
