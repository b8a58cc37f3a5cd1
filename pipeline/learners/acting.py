"""What learners have in common that learn from acting: copies of an environment, rollouts, figures of episodes, validation by playing.

Letters: T steps of a rollout, B copies, N sequences, S steps of one, C values of all parts of an action.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.config import learners
from pipeline.config.catalogue import implementation
from pipeline.learners.advantages import explained_variance
from pipeline.learners.base import Learner, Problem
from pipeline.learners.optimization import clip_gradients, entropy_weight, learning_rate, make_optimizer
from pipeline.learners.playing import play
from pipeline.learners.policy import entropy, gumbel, log_probability
from pipeline.learners.rollout import Actor, Rollout, Sequences
from pipeline.storage.keys import derive_key, generator
from pipeline.storage.loader import Episodes


class Judged(NamedTuple):
    """What the present weights say of sequences: how likely the actions taken are, how undecided the policy is, what is to come."""

    log_probability_NS: Tensor
    entropy_NS: Tensor
    value_NS: Tensor


class Losses(NamedTuple):
    """The parts of a loss: the policy's and the critic's, and the entropy that is encouraged."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


class Acting(Learner):
    """Acts for a rollout and learns from it, over and over. Subclasses say how they learn."""

    config: learners.Acting

    def __init__(self, config: learners.Acting, network: nn.Module, problem: Problem, seed: int, device: torch.device) -> None:
        super().__init__(config, network)
        assert isinstance(problem.validation, Episodes), "an environment is validated by playing episodes"
        self.seed, self.device, self.validation = seed, device, problem.validation
        self.task = implementation(problem.task)(problem.task)
        self.optimizer = make_optimizer(network, config)
        self.actor = Actor(config, network, self.task.environment(config.environments, seed), device)

    @abstractmethod
    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """Take the optimizer's steps for one rollout; figures by history column, means over the steps."""

    def update(self) -> dict[str, Tensor | float]:
        """Act for one rollout and learn from it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.steps)
        rollout = self.actor.rollout(self._noise())
        figures = self.learn(rollout.sequences)
        self.steps += 1
        self.examples_seen += self.config.rows_per_step
        return {**figures, **_figures(rollout)}

    def _noise(self) -> Tensor:
        """Random numbers that decide the actions of the next rollout."""
        shape = (self.config.rollout, self.config.environments, sum(self.actor.network.actions))
        return gumbel(generator(derive_key("actions", self.seed, self.steps)), shape).to(self.device)

    def judge(self, part: Sequences) -> Judged:
        """Read sequences again, with gradients."""
        acted, _ = self.network(part.observed_NS, part.state, part.reset_NS)
        parts = self.actor.network.actions
        found = log_probability(acted.logits, part.action_NSA, parts)
        return Judged(found, entropy(acted.logits, parts), acted.value)

    def descend(self, losses: Losses) -> dict[str, Tensor]:
        """One optimizer step; its figures."""
        loss = losses.policy + self.config.value_weight * losses.value - entropy_weight(self.config, self.steps) * losses.entropy
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_gradients(self.optimizer, self.config.clip)
        self.optimizer.step()
        found = {"train_loss": loss, "policy_loss": losses.policy, "value_loss": losses.value, "entropy": losses.entropy}
        return {**{name: value.detach() for name, value in found.items()}, "gradient_norm": norm}

    def validate(self) -> dict[str, float]:
        """Share of the validation episodes that are solved, mean sum of rewards and mean steps."""
        played = play(self.network, self.task, self.validation, self.device)
        success, reward, length = (float(values.mean()) for values in played)
        return {"accuracy": success, "return": reward, "episode_length": length}

    def merit(self, validation: dict[str, float]) -> float:
        """More reward is better: it tells more than the share of episodes that are solved."""
        return validation["return"]

    def reached(self, validation: dict[str, float]) -> bool:
        """Whether the share of solved episodes has come to `stop_at`."""
        return self.config.stop_at is not None and validation["accuracy"] >= self.config.stop_at

    @property
    def reproducible(self) -> bool:
        """An environment that cannot go on where it was begins new episodes after a resume."""
        environment: Any = self.actor.environment
        return super().reproducible and environment.reproducible

    def gauges(self) -> dict[str, float | int | None]:
        """The learning rate and the entropy weight of the next update."""
        return {"learning_rate": learning_rate(self.config, self.steps), "entropy_weight": entropy_weight(self.config, self.steps)}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, environment with what the network carries of it, counters. Random numbers follow from seed and counter."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "actor": self.actor.state_dict(),
            "steps": self.steps,
            "examples_seen": self.examples_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.actor.load_state_dict(state["actor"])
        self.steps, self.examples_seen = state["steps"], state["examples_seen"]


def value_loss(value_NS: Tensor, target_NS: Tensor) -> Tensor:
    """Half of the critic's mean squared error."""
    return 0.5 * (value_NS - target_NS).square().mean()


def normalised(advantage_NS: Tensor, wanted: bool) -> Tensor:
    """Advantages of mean 0 and deviation 1, where that is wanted."""
    return (advantage_NS - advantage_NS.mean()) / (advantage_NS.std() + 1e-8) if wanted else advantage_NS


def _figures(rollout: Rollout) -> dict[str, Tensor | float]:
    """What a rollout was like; of its episodes, where any ended."""
    sequences, played = rollout.sequences, rollout.episodes
    target_NS = sequences.advantage_NS + sequences.value_NS
    found: dict[str, Tensor | float] = {
        "reward": rollout.reward,
        "advantage": sequences.advantage_NS.mean(),
        "advantage_deviation": sequences.advantage_NS.std(),
        "explained_variance": explained_variance(sequences.value_NS, target_NS),
        "observation_mean": rollout.observation_mean,
        "observation_deviation": rollout.observation_deviation,
        "episodes": float(len(played["success"])) if played else 0.0,
    }
    names = {"train_accuracy": "success", "train_return": "return", "train_episode_length": "length"}
    return found | {name: float(played[key].mean()) for name, key in names.items() if played}
