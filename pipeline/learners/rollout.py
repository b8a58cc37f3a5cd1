"""Collecting rollouts in parallel environments, and splitting them into training sequences.

A rollout is collected time-major, (T, B, ...), and learned from as N batch-first sequences of S steps: the first S steps of every
environment, then the next S, and so on. Each sequence starts from the state that the network had at that point while acting.

Notation: T = steps of a rollout, B = environments, N = sequences, S = steps of one, A = parts of an action, C = choices of all parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from pipeline.config import learners
from pipeline.learners.playing import check_episode_length, to_env_actions
from pipeline.networks.sampling import sample
from pipeline.ops.state import State, concatenate, cut, select, transform, where
from pipeline.storage.console import print0

EPISODE = ("success", "return", "length")
"""Keys of an environment's infos about a finished episode."""


class Sequences(NamedTuple):
    """Training sequences. reset_NS: the observation is the first of an episode. value_NS: value estimates while acting."""

    observed_NS: Tensor
    reset_NS: Tensor
    action_NSA: Tensor
    log_probability_NS: Tensor
    value_NS: Tensor
    advantage_NS: Tensor
    state: State

    def in_order(self, order_N: Tensor) -> Sequences:
        """Return the sequences in another order."""
        return Sequences(*(select(part, order_N) for part in self))

    def split(self, parts: int) -> list[Sequences]:
        """Split into consecutive parts of equal size, without copying."""
        size = len(self.reset_NS) // parts
        return [Sequences(*(cut(part, start, start + size) for part in self)) for start in range(0, len(self.reset_NS), size)]


class Rollout(NamedTuple):
    """One rollout, time-major, and the episodes that ended in it.

    next_value_TB: value of the observation after each step; 0 if the episode terminated, the value of its last observation if truncated.
    states: the network's state at the first step of every sequence. last_observed_B: observations after the last step.
    context_TB: observations of the episode up to and including each step's; bootstrap_context_N: the same of the steps that the network took
    only to estimate a value.
    """

    observed_TB: Tensor
    reset_TB: Tensor
    action_TBA: Tensor
    log_probability_TB: Tensor
    value_TB: Tensor
    next_value_TB: Tensor
    reward_TB: Tensor
    done_TB: Tensor
    states: list[State]
    last_observed_B: Tensor
    episodes: dict[str, np.ndarray]
    context_TB: np.ndarray
    bootstrap_context_N: np.ndarray

    def sequences(self, advantage_TB: Tensor) -> Sequences:
        """Split the rollout into training sequences, batch first."""
        parts = (self.observed_TB, self.reset_TB, self.action_TBA, self.log_probability_TB, self.value_TB, advantage_TB)
        observed, reset, action, log_prob, value, advantage = (_batch_first(part, len(self.states)) for part in parts)
        return Sequences(observed, reset, action, log_prob, value, advantage, concatenate(self.states))


class _Step(NamedTuple):
    """One step of all environments."""

    observed_B: Tensor
    reset_B: Tensor
    logits_BC: Tensor
    value_B: Tensor
    action_BA: Tensor


class Actor:
    """A network acting in parallel environments; each rollout continues where the previous one stopped."""

    def __init__(self, config: learners.OnPolicy, network: Any, environment: VectorEnv, device: torch.device, name: str = "acting") -> None:
        self.config, self.network, self.environment, self.device, self.name = config, network, environment, device, name
        self._restored = True
        self._begin()

    def _begin(self) -> None:
        observed, _ = self.environment.reset()
        self.observed_B = self._tensor(observed)
        self.reset_B = torch.ones(self.config.num_envs, dtype=torch.bool, device=self.device)
        self.steps_B = np.zeros(self.config.num_envs, np.int64)
        self.state = self.network.initial_state(self.config.num_envs)

    @property
    def reproducible(self) -> bool:
        """Whether the environment's state can be restored bit-exactly, and was at every resume."""
        environment: Any = self.environment
        return environment.reproducible and self._restored

    @torch.no_grad()
    def rollout(self, noise_TBC: Tensor) -> Rollout:
        """Collect one rollout of T steps in each of B environments. noise_TBC: Gumbel noise for sampling actions.

        Episodes truncated by a time limit bootstrap from the critic if `bootstrap_truncated`; terminated ones do not.
        """
        steps, initial = len(noise_TBC), self.network.initial_state(self.config.num_envs)
        taken, states, episodes = [], [], []
        reward, ended, truncated = (np.zeros((steps, self.config.num_envs), dtype) for dtype in (np.float32, bool, bool))
        last_TB = torch.zeros(steps, self.config.num_envs, device=self.device)
        context = np.zeros((steps, self.config.num_envs), np.int64)
        for t, noise_BC in enumerate(noise_TBC):
            if t % (self.config.bptt_steps or steps) == 0:
                states.append(self.state)
            check_episode_length(self.name, self.network.context, int(self.steps_B.max()) + 1)
            context[t] = self.steps_B + 1
            taken.append(self._act(noise_BC, initial))
            action = taken[-1].action_BA
            observed, reward[t], ended[t], truncated[t], infos = self.environment.step(to_env_actions(action))
            if self.config.bootstrap_truncated and truncated[t].any():
                last_TB[t] = self._value_of_last(infos["final_obs"], truncated[t])
            self.observed_B = self._tensor(observed)
            self.reset_B = self._tensor(ended[t] | truncated[t])
            self.steps_B = np.where(ended[t] | truncated[t], 0, self.steps_B + 1)
            episodes += [{key: infos[key][infos["_length"]] for key in EPISODE}] if "_length" in infos else []
        step = _Step(*(torch.stack(parts) for parts in zip(*taken, strict=True)))
        done_TB = self._tensor(ended | truncated)
        cut_off = truncated & self.config.bootstrap_truncated
        return Rollout(
            observed_TB=step.observed_B,
            reset_TB=step.reset_B,
            action_TBA=step.action_BA,
            log_probability_TB=log_probability(step.logits_BC, step.action_BA, self.network.actions),
            value_TB=step.value_B,
            next_value_TB=torch.where(done_TB, last_TB, torch.cat([step.value_B[1:], self._value_of_next().unsqueeze(0)])),
            reward_TB=self._tensor(reward),
            done_TB=done_TB,
            states=states,
            last_observed_B=self.observed_B,
            episodes={key: np.concatenate([some[key] for some in episodes]) for key in EPISODE} if episodes else {},
            context_TB=context,
            bootstrap_context_N=np.concatenate([context[cut_off], context[-1]]) + 1,
        )

    def _act(self, noise_BC: Tensor, initial: State) -> _Step:
        """Run the network on the observations and sample actions; the state is reset to `initial` where an episode begins."""
        state = where(self.reset_B, initial, self.state) if bool(self.reset_B.any()) else self.state
        output, self.state = self.network.step(self.observed_B, state)
        action_BA = sample(output.logits, noise_BC, self.network.actions)
        return _Step(self.observed_B, self.reset_B, output.logits, output.value, action_BA)

    def _value_of_last(self, observed: np.ndarray, truncated: np.ndarray) -> Tensor:
        """Return the value of the last observation of truncated episodes, 0 elsewhere."""
        rows_N = torch.from_numpy(np.flatnonzero(truncated)).to(self.device)
        output, _ = self.network.step(self._tensor(observed[truncated]), select(self.state, rows_N))
        return output.value.new_zeros(len(truncated)).index_copy(0, rows_N, output.value)

    def _value_of_next(self) -> Tensor:
        """Return the value of the current observations without advancing the state; meaningless where an episode has just begun."""
        return self.network.step(self.observed_B, self.state)[0].value

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the environments, their observations, and the network's state in each."""
        acting = {"observed": self.observed_B, "reset": self.reset_B, "steps": self.steps_B, "state": self.state}
        environment: Any = self.environment
        return {**acting, "environment": environment.state_dict(), "restored": self._restored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume. Environments that cannot be restored, or show a different observation afterwards, begin new episodes."""
        environment: Any = self.environment
        difference = environment.load_state_dict(state["environment"])
        if difference:
            print0(f"{self.name}: {difference} after a resume; new episodes begin, and the run is not reproducible")
        self._restored = state["restored"] and not difference
        if not environment.reproducible or difference:
            self._begin()
            return
        self.steps_B = state["steps"]
        self.observed_B, self.reset_B = (state[key].to(self.device) for key in ("observed", "reset"))
        initial = self.network.initial_state(self.config.num_envs)
        self.state = transform(lambda leaf, saved: saved.to(leaf), initial, state["state"])


def log_probability(logits: Tensor, action: Tensor, parts: Sequence[int]) -> Tensor:
    """Compute the log-probability (...) of actions (..., A) under logits (..., C); parts are independent given the state."""
    chosen = [
        part.log_softmax(-1).gather(-1, taken.unsqueeze(-1)).squeeze(-1)
        for part, taken in zip(logits.split(list(parts), -1), action.unbind(-1), strict=True)
    ]
    return torch.stack(chosen).sum(0)


def _batch_first(part_TB: Tensor, sequences: int) -> Tensor:
    """Reshape (T, B, ...) to (N, S, ...): the first S steps of all environments, then the next S."""
    return part_TB.unflatten(0, (sequences, -1)).transpose(1, 2).flatten(0, 1)
