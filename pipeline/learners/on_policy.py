"""Common code of PPO and A2C: rollouts from parallel environments, advantages, actor-critic loss, metrics, validation by playing episodes.

    delta_t = r_t + gamma V'_{t+1} - V_t           V' is the value of the next observation; 0 if the episode terminated
    A_t = delta_t + gamma lambda A_{t+1}           GAE (Schulman et al. 2016); the sum stops where an episode terminates or is truncated
    loss = policy_loss + vf_coef value_loss - ent_coef entropy

In data-parallel training, each rank acts in its shard of the environments, with its own episodes and random numbers, and normalizes its own
advantages; gradients and metrics are averaged over ranks, episode metrics over all episodes.

Notation: T = steps of a rollout, B = environments, N = sequences, S = steps of one, A = parts of an action, C = choices of all parts (logits).
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
from pipeline.learners.optimization import Optimizers, ent_coef, make_rules
from pipeline.learners.playing import check_episode_length, play
from pipeline.learners.rollout import Actor, Rollout, Sequences, log_probability
from pipeline.networks.flops import StepCosts
from pipeline.networks.sampling import gumbel
from pipeline.storage.loader import Episodes
from pipeline.storage.rng import derive_key, generator

EPISODE_METRICS = {"train_accuracy": "success", "train_return": "return", "train_episode_length": "length"}
"""Metrics of finished episodes: history column -> key in the environment's infos."""


class ActionValues(NamedTuple):
    """Log-probability of the actions taken, entropy of the current policy, and value estimates."""

    log_probability_NS: Tensor
    entropy_NS: Tensor
    value_NS: Tensor


class OnPolicy(Learner):
    """Alternates between collecting a rollout and learning from it. Subclasses implement `learn`.

    passes: how often the last update learned from its rollout.
    """

    config: learners.OnPolicy

    def __init__(self, config: learners.OnPolicy, network: nn.Module, problem: Problem, seed: int, device: torch.device) -> None:
        super().__init__(config, network, Optimizers(**make_rules(config, network)))
        assert isinstance(problem.validation, Episodes), "an environment is validated by playing episodes"
        self.seed, self.device, self.validation = seed, device, problem.validation
        self.task = implementation(problem.task)(problem.task)
        share = parallel.shard(config.num_envs)
        mine = config.model_copy(update={"num_envs": share.stop - share.start})
        title = getattr(problem.task, "title", problem.task.name)
        environment = self.task.environment(mine.num_envs, _rank_seed(seed))
        check_episode_length(title, self.network.context, getattr(environment, "limit", 1))
        self.actor = Actor(mine, self.network, environment, device, title)
        self.passes = 1

    @abstractmethod
    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """Take the optimizer steps for one rollout; returns metrics by history column, averaged over the steps."""

    def collect(self) -> Rollout:
        """Collect one rollout, with actions sampled using Gumbel noise (T, B, C)."""
        random = generator(derive_key("actions", self.seed, self.steps, *parallel.rank_suffix()))
        shape = (self.config.rollout_steps, self.actor.config.num_envs, sum(self.network.actions))
        rollout = self.actor.rollout(gumbel(random, shape).to(self.device))
        finite = bool(torch.isfinite(rollout.log_probability_TB + rollout.value_TB).all())
        if parallel.all_reduce_max([float(not finite)])[0]:
            self.raise_not_finite("the policy or the critic gives numbers that are not finite")
        return rollout

    def learn_from(self, rollout: Rollout) -> dict[str, Tensor | float]:
        """Compute advantages, split the rollout into sequences, and learn from them."""
        sequences = rollout.sequences(self.advantages(rollout))
        metrics: dict[str, Tensor | float] = {**self.learn(sequences)}
        self.steps += 1
        self.examples_seen += self.config.rows_per_step
        metrics |= _rollout_metrics(rollout, sequences)
        return _all_processes(metrics, rollout.episodes) if parallel.world_size() > 1 else metrics

    def count_flops(self, costs: StepCosts, rollout: Rollout) -> int:
        """Count the steps of acting, those that only estimate a value, and every pass of learning over the rollout, on all ranks."""
        rollout_steps, bootstrap = costs.steps(rollout.context_TB), costs.steps(rollout.bootstrap_context_N)
        flops = torch.tensor(rollout_steps.forward + bootstrap.forward + self.passes * rollout_steps.training)
        parallel.all_reduce_sum([flops])
        return int(flops)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Compute advantages (T, B) with the configured gamma and lambda."""
        values = rollout.reward_TB, rollout.value_TB, rollout.next_value_TB, rollout.done_TB
        return gae(*values, self.config.gamma, self.config.gae_lambda)

    def evaluate_actions(self, batch: Sequences) -> ActionValues:
        """Run the network over sequences, with gradients, from the states it had during the rollout."""
        output, _ = self.network(batch.observed_NS, batch.state, batch.reset_NS)
        parts = self.network.actions
        return ActionValues(log_probability(output.logits, batch.action_NSA, parts), entropy(output.logits, parts), output.value)

    def step(self, policy_loss: Tensor, value_loss: Tensor, entropy: Tensor) -> dict[str, Tensor]:
        """Take one optimizer step on the weighted sum of the losses; returns its metrics."""
        loss = policy_loss + self.config.vf_coef * value_loss - ent_coef(self.config, self.steps, self.flops_seen) * entropy
        self.optimizers.zero_grad()
        loss.backward()
        parallel.average(parallel.gradients(self.network))
        norm = self.optimizers.step(self.steps, flops=self.flops_seen)
        metrics = {"train_loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return {**{name: value.detach() for name, value in metrics.items()}, **norm}

    def validate(self) -> dict[str, float]:
        """Play the validation episodes; returns success rate, mean return and mean length."""
        played = play(self.network, self.task, self.validation, self.device)
        success, episode_return, length = (float(values.mean()) for values in played)
        return {"accuracy": success, "return": episode_return, "episode_length": length}

    def score(self, validation: dict[str, float]) -> float:
        """Return the mean return, which is more informative than the success rate."""
        return validation["return"]

    def is_good_enough(self, validation: dict[str, float]) -> bool:
        """Return whether the success rate has reached `stop_at`."""
        return self.config.stop_at is not None and validation["accuracy"] >= self.config.stop_at

    @property
    def reproducible(self) -> bool:
        """Also False if the environment's state cannot be restored."""
        return super().reproducible and self.actor.reproducible

    def metrics(self) -> dict[str, float | int | None]:
        """Return the learning rate and the entropy coefficient of the next update."""
        return {**super().metrics(), "ent_coef": ent_coef(self.config, self.steps, self.flops_seen)}

    def rank_state(self) -> dict[str, Any]:
        """Return the state of this rank's environments."""
        return self.actor.state_dict()

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Restore this rank's environments."""
        self.actor.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Add the environments and the network's state in each. Random numbers are derived from the seed and `steps`."""
        return {**super().state_dict(), "actor": self.actor.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        super().load_state_dict(state)
        self.actor.load_state_dict(state["actor"])


def gae(reward_TB: Tensor, value_TB: Tensor, next_value_TB: Tensor, done_TB: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Compute generalized advantage estimates (T, B); adding the values gives the critic's targets.

    next_value_TB: value of the observation after each step; of the episode's last one if a time limit truncated it, 0 if it terminated.
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
    """Compute the entropy (...) in nats of action logits (..., C), summed over the parts."""
    found = []
    for part in logits.split(list(parts), -1):
        log = part.log_softmax(-1)
        found.append(-(log.exp() * log).sum(-1))
    return torch.stack(found).sum(0)


def mse_value_loss(value_NS: Tensor, target_NS: Tensor) -> Tensor:
    """Compute half the critic's mean squared error."""
    return 0.5 * (value_NS - target_NS).square().mean()


def normalized(advantage_NS: Tensor) -> Tensor:
    """Normalize advantages to mean 0 and standard deviation 1."""
    return (advantage_NS - advantage_NS.mean()) / (std(advantage_NS) + 1e-8)


def std(values: Tensor) -> Tensor:
    """Compute the sample standard deviation; 0 for a single number."""
    return values.std() if values.numel() > 1 else values.new_zeros(())


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Compute the fraction of the targets' variance explained by the critic: 1 if perfect, 0 if constant, negative if worse."""
    if target.numel() < 2:
        return target.new_zeros(())
    variance = target.var()
    return torch.where(variance > 0, 1 - (target - value).var() / variance.clamp(min=1e-12), 0.0)


def _rollout_metrics(rollout: Rollout, sequences: Sequences) -> dict[str, Tensor | float]:
    """Compute the metrics of a rollout, and of its episodes if any ended."""
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
    """Average metrics over all ranks, and episode metrics over all episodes."""
    names = [name for name in metrics if name not in EPISODE_METRICS]
    means = torch.stack([torch.as_tensor(metrics[name]).detach().double().cpu() for name in names])
    parallel.average([means])
    found: dict[str, Tensor | float] = dict(zip(names, means, strict=True))
    sums = torch.tensor([float(episodes[key].sum()) if episodes else 0.0 for key in EPISODE_METRICS.values()], dtype=torch.float64)
    parallel.all_reduce_sum([sums])
    found["episodes"] = ended = float(found["episodes"]) * parallel.world_size()
    return found | {name: float(total) / ended for name, total in zip(EPISODE_METRICS, sums, strict=True) if ended}


def _rank_seed(seed: int) -> int:
    """Return the seed of this rank's training episodes; on rank 0 it is the run's seed."""
    return derive_key("process", seed, parallel.rank())[0] << 32 if parallel.rank() else seed
