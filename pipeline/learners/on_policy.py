"""What PPO and A2C share: rollouts from parallel environments, advantages, the actor-critic loss, metrics, validation by playing episodes.

    delta_t = r_t + gamma V'_{t+1} - V_t           V' is the value of the next observation; 0 where the episode terminated
    A_t = delta_t + gamma lambda A_{t+1}           GAE (Schulman et al. 2016); the sum stops where an episode ends or is truncated
    loss = policy_loss + vf_coef value_loss - ent_coef entropy

In a training shared by several processes, each acts in its share of the environments, with episodes and random numbers of its own, and normalizes
its own advantages; gradients and metrics are averaged over the processes, metrics of episodes over all episodes.

Notation: T = steps of a rollout, B = environments, N = sequences, S = steps of one, A = parts of an action, C = choices of all parts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import learners
from pipeline.config.catalogue import implementation
from pipeline.learners import parallel
from pipeline.learners.base import Learner, Problem
from pipeline.learners.optimization import Optimizers, ent_coef, make_rule
from pipeline.learners.playing import check_episode_length, play
from pipeline.learners.rollout import Actor, Rollout, Sequences, log_probability
from pipeline.networks.sampling import gumbel
from pipeline.storage.loader import Episodes
from pipeline.storage.rng import derive_key, generator

EPISODE_METRICS = {"train_accuracy": "success", "train_return": "return", "train_episode_length": "length"}
"""Metrics of finished episodes: history column -> key in the environment's infos."""


class ActionValues(NamedTuple):
    """Of the actions taken: log-probability and entropy under the current policy, and the critic's value."""

    log_probability_NS: Tensor
    entropy_NS: Tensor
    value_NS: Tensor


class OnPolicy(Learner):
    """Collects a rollout and learns from it, over and over. Subclasses implement `learn`."""

    config: learners.OnPolicy

    def __init__(self, config: learners.OnPolicy, network: nn.Module, problem: Problem, seed: int, device: torch.device) -> None:
        super().__init__(config, network, Optimizers(main=make_rule(config, network)))
        assert isinstance(problem.validation, Episodes), "an environment is validated by playing episodes"
        self.seed, self.device, self.validation = seed, device, problem.validation
        self.task = implementation(problem.task)(problem.task)
        share = parallel.shard(config.num_envs)
        mine = config.model_copy(update={"num_envs": share.stop - share.start})
        title = getattr(problem.task, "title", problem.task.name)
        environment = self.task.environment(mine.num_envs, _rank_seed(seed))
        check_episode_length(title, self.network.context, getattr(environment, "limit", 1))
        self.actor = Actor(mine, self.network, environment, device, title)

    @abstractmethod
    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """Take the optimizer steps for one rollout; returns metrics by history column, means over the steps."""

    def collect(self) -> Rollout:
        """Act for one rollout, with actions sampled by Gumbel noise (T, B, C)."""
        random = generator(derive_key("actions", self.seed, self.steps, *parallel.rank_suffix()))
        shape = (self.config.rollout_steps, self.actor.config.num_envs, sum(self.network.actions))
        rollout = self.actor.rollout(gumbel(random, shape).to(self.device))
        if not bool(torch.isfinite(rollout.log_probability_TB + rollout.value_TB).all()):
            self.raise_not_finite("the policy or the critic gives numbers that are not finite")
        return rollout

    def learn_from(self, rollout: Rollout) -> dict[str, Tensor | float]:
        """Compute advantages, cut the rollout into sequences, and learn from them."""
        sequences = rollout.sequences(self.advantages(rollout))
        metrics: dict[str, Tensor | float] = {**self.learn(sequences)}
        self.steps += 1
        self.examples_seen += self.config.rows_per_step
        metrics |= _rollout_metrics(rollout, sequences)
        return _all_processes(metrics, rollout.episodes) if parallel.world_size() > 1 else metrics

    def advantages(self, rollout: Rollout) -> Tensor:
        """Advantages (T, B), with the configured gamma and lambda."""
        values = rollout.reward_TB, rollout.value_TB, rollout.next_value_TB, rollout.done_TB
        return gae(*values, self.config.gamma, self.config.gae_lambda)

    def evaluate_actions(self, batch: Sequences) -> ActionValues:
        """Read sequences again from the states that the network had while acting, with gradients."""
        output, _ = self.network(batch.observed_NS, batch.state, batch.reset_NS)
        parts = self.network.actions
        return ActionValues(log_probability(output.logits, batch.action_NSA, parts), entropy(output.logits, parts), output.value)

    def step(self, policy_loss: Tensor, value_loss: Tensor, entropy: Tensor) -> dict[str, Tensor]:
        """One optimizer step on the sum of the losses; returns its metrics."""
        loss = policy_loss + self.config.vf_coef * value_loss - ent_coef(self.config, self.steps) * entropy
        self.optimizers.zero_grad()
        loss.backward()
        parallel.average(parallel.gradients(self.network))
        norm = self.optimizers.step(self.steps)
        metrics = {"train_loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return {**{name: value.detach() for name, value in metrics.items()}, **norm}

    def validate(self) -> dict[str, float]:
        """Success rate, mean return and mean length of the validation episodes."""
        played = play(self.network, self.task, self.validation, self.device)
        success, episode_return, length = (float(values.mean()) for values in played)
        return {"accuracy": success, "return": episode_return, "episode_length": length}

    def score(self, validation: dict[str, float]) -> float:
        """The return, which tells more than the success rate."""
        return validation["return"]

    def is_good_enough(self, validation: dict[str, float]) -> bool:
        """Whether the success rate has reached `stop_at`."""
        return self.config.stop_at is not None and validation["accuracy"] >= self.config.stop_at

    @property
    def reproducible(self) -> bool:
        """Also False where the environment's state cannot be restored."""
        return super().reproducible and self.actor.reproducible

    def metrics(self) -> dict[str, float | int | None]:
        """The learning rate and the entropy coefficient of the next update."""
        return {**super().metrics(), "ent_coef": ent_coef(self.config, self.steps)}

    def rank_state(self) -> dict[str, Any]:
        """The environments of this process."""
        return self.actor.state_dict()

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Resume in this process's environments."""
        self.actor.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Adds the environments, with the network's state in each. Random numbers follow from the seed and `steps`."""
        return {**super().state_dict(), "actor": self.actor.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore all of it."""
        super().load_state_dict(state)
        self.actor.load_state_dict(state["actor"])


def gae(reward_TB: Tensor, value_TB: Tensor, next_value_TB: Tensor, done_TB: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimates (T, B); plus the values they are the critic's targets.

    next_value_TB: value of the observation after each step: of the episode's last one where a time limit truncated it, 0 where it terminated.
    done_TB (bool): the episode terminated or was truncated at this step.
    """
    delta_TB = reward_TB + gamma * next_value_TB - value_TB
    decay_TB = gamma * gae_lambda * ~done_TB
    found, next_B = [], torch.zeros_like(value_TB[0])
    for delta_B, decay_B in zip(reversed(delta_TB), reversed(decay_TB), strict=True):
        next_B = delta_B + decay_B * next_B
        found.append(next_B)
    return torch.stack(found[::-1])


def entropy(logits: Tensor, parts: Sequence[int]) -> Tensor:
    """Entropy (...) in nats of actions with these logits (..., C), summed over the parts."""
    found = []
    for part in logits.split(list(parts), -1):
        log = part.log_softmax(-1)
        found.append(-(log.exp() * log).sum(-1))
    return torch.stack(found).sum(0)


def mse_value_loss(value_NS: Tensor, target_NS: Tensor) -> Tensor:
    """Half of the critic's mean squared error."""
    return 0.5 * (value_NS - target_NS).square().mean()


def normalized(advantage_NS: Tensor) -> Tensor:
    """Advantages with mean 0 and standard deviation 1."""
    return (advantage_NS - advantage_NS.mean()) / (std(advantage_NS) + 1e-8)


def std(values: Tensor) -> Tensor:
    """Standard deviation of a sample; 0 for a single number."""
    return values.std() if values.numel() > 1 else values.new_zeros(())


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Fraction of the targets' variance that the critic explains: 1 for a perfect critic, 0 for a constant one, negative for a worse one."""
    if target.numel() < 2:
        return target.new_zeros(())
    variance = target.var()
    return torch.where(variance > 0, 1 - (target - value).var() / variance.clamp(min=1e-12), 0.0)


def _rollout_metrics(rollout: Rollout, sequences: Sequences) -> dict[str, Tensor | float]:
    """Metrics of a rollout, and of its episodes where any ended."""
    episodes, observed = rollout.episodes, rollout.last_observed_B.float()
    metrics: dict[str, Tensor | float] = {
        "reward": rollout.reward_TB.mean(),
        "advantage": sequences.advantage_NS.mean(),
        "advantage_deviation": std(sequences.advantage_NS),
        "explained_variance": explained_variance(sequences.value_NS, sequences.advantage_NS + sequences.value_NS),
        "observation_mean": observed.mean(),
        "observation_deviation": std(observed),
        "episodes": float(len(episodes["success"])) if episodes else 0.0,
    }
    return metrics | {name: float(episodes[key].mean()) for name, key in EPISODE_METRICS.items() if episodes}


def _all_processes(metrics: dict[str, Tensor | float], episodes: dict[str, np.ndarray]) -> dict[str, Tensor | float]:
    """The metrics of all processes."""
    names = [name for name in metrics if name not in EPISODE_METRICS]
    means = torch.stack([torch.as_tensor(metrics[name]).detach().double().cpu() for name in names])
    parallel.average([means])
    found: dict[str, Tensor | float] = dict(zip(names, means, strict=True))
    sums = torch.tensor([float(episodes[key].sum()) if episodes else 0.0 for key in EPISODE_METRICS.values()], dtype=torch.float64)
    parallel.all_reduce_sum([sums])
    found["episodes"] = ended = float(found["episodes"]) * parallel.world_size()
    return found | {name: float(total) / ended for name, total in zip(EPISODE_METRICS, sums, strict=True) if ended}


def _rank_seed(seed: int) -> int:
    """The seed of this process's training episodes: the run's own on rank 0."""
    return derive_key("process", seed, parallel.rank())[0] << 32 if parallel.rank() else seed
