"""What learners have in common that learn from acting: copies of an environment, rollouts, figures of episodes, validation by playing.

Of several processes that share a training, each acts in its part of the copies, with episodes and random numbers of its own, and normalises
its own advantages; every gradient is the mean of theirs. Figures are means of theirs too, but those of episodes, which are over all that ended.

Letters: T steps of a rollout, B copies, N sequences, S steps of one, C values of all parts of an action.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import learners
from pipeline.config.catalogue import implementation
from pipeline.learners import parallel
from pipeline.learners.advantages import deviation, explained_variance
from pipeline.learners.base import Learner, Problem
from pipeline.learners.optimization import clip_gradients, ent_coef, learning_rate, make_optimizer
from pipeline.learners.playing import play, refuse_beyond
from pipeline.learners.policy import entropy, log_probability
from pipeline.learners.rollout import Actor, Rollout, Sequences
from pipeline.networks.sampling import gumbel
from pipeline.storage.loader import Episodes
from pipeline.storage.rng import derive_key, generator

EPISODES = {"train_accuracy": "success", "train_return": "return", "train_episode_length": "length"}
"""Figures of episodes that ended, by history column: what an environment calls them."""


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
    network: Any

    def __init__(self, config: learners.Acting, network: nn.Module, problem: Problem, seed: int, device: torch.device) -> None:
        super().__init__(config, network)
        assert isinstance(problem.validation, Episodes), "an environment is validated by playing episodes"
        self.seed, self.device, self.validation = seed, device, problem.validation
        self.task = implementation(problem.task)(problem.task)
        self.optimizer = make_optimizer(network, config)
        copies = parallel.share(config.num_envs)
        mine = config.model_copy(update={"num_envs": copies.stop - copies.start})
        title = getattr(problem.task, "title", problem.task.name)
        environment = self.task.environment(mine.num_envs, _own_seed(seed))
        refuse_beyond(title, self.network.context, getattr(environment, "limit", 1))
        self.actor = Actor(mine, network, environment, device, title)

    @abstractmethod
    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """Take the optimizer's steps for one rollout; figures by history column, means over the steps."""

    def collect(self) -> Rollout:
        """Act for one rollout."""
        rollout = self.actor.rollout(self._noise())
        if not bool(torch.isfinite(rollout.sequences.log_probability_NS + rollout.sequences.value_NS).all()):
            self.refuse("the policy or the critic answers with numbers that are not finite")
        return rollout

    def learn_from(self, rollout: Rollout) -> dict[str, Tensor | float]:
        """Take the optimizer's steps for one rollout; figures of both."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.steps)
        figures: dict[str, Tensor | float] = {**self.learn(rollout.sequences)}
        self.steps += 1
        self.examples_seen += self.config.rows_per_step
        figures |= _figures(rollout)
        return _of_all(figures, rollout.episodes) if parallel.size() > 1 else figures

    def _noise(self) -> Tensor:
        """Random numbers that decide the actions of the next rollout."""
        shape = (self.config.rollout_steps, self.actor.config.num_envs, sum(self.actor.network.actions))
        return gumbel(generator(derive_key("actions", self.seed, self.steps, *parallel.ordinal())), shape).to(self.device)

    def judge(self, part: Sequences) -> Judged:
        """Read sequences again, with gradients."""
        acted, _ = self.network(part.observed_NS, part.state, part.reset_NS)
        parts = self.actor.network.actions
        found = log_probability(acted.logits, part.action_NSA, parts)
        return Judged(found, entropy(acted.logits, parts), acted.value)

    def descend(self, losses: Losses) -> dict[str, Tensor]:
        """One optimizer step; its figures."""
        loss = losses.policy + self.config.vf_coef * losses.value - ent_coef(self.config, self.steps) * losses.entropy
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average(parallel.gradients(self.network))
        norm = clip_gradients(self.optimizer, self.config.max_grad_norm)
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
        return super().reproducible and self.actor.reproducible

    def gauges(self) -> dict[str, float | int | None]:
        """The learning rate and the entropy weight of the next update."""
        return {"learning_rate": learning_rate(self.config, self.steps), "ent_coef": ent_coef(self.config, self.steps)}

    def own_state(self) -> dict[str, Any]:
        """The environment, with what the network carries of it."""
        return self.actor.state_dict()

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Go on in this process's environment."""
        self.actor.load_state_dict(state)

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
    return (advantage_NS - advantage_NS.mean()) / (deviation(advantage_NS) + 1e-8) if wanted else advantage_NS


def _figures(rollout: Rollout) -> dict[str, Tensor | float]:
    """What a rollout was like; of its episodes, where any ended."""
    sequences, played = rollout.sequences, rollout.episodes
    target_NS = sequences.advantage_NS + sequences.value_NS
    found: dict[str, Tensor | float] = {
        "reward": rollout.reward,
        "advantage": sequences.advantage_NS.mean(),
        "advantage_deviation": deviation(sequences.advantage_NS),
        "explained_variance": explained_variance(sequences.value_NS, target_NS),
        "observation_mean": rollout.observation_mean,
        "observation_deviation": rollout.observation_deviation,
        "episodes": float(len(played["success"])) if played else 0.0,
    }
    return found | {name: float(played[key].mean()) for name, key in EPISODES.items() if played}


def _of_all(figures: dict[str, Tensor | float], played: dict[str, np.ndarray]) -> dict[str, Tensor | float]:
    """The figures of all processes."""
    names = [name for name in figures if name not in EPISODES]
    means = torch.stack([torch.as_tensor(figures[name]).detach().double().cpu() for name in names])
    parallel.average([means])
    found: dict[str, Tensor | float] = dict(zip(names, means, strict=True))
    sums = torch.tensor([float(played[key].sum()) if played else 0.0 for key in EPISODES.values()], dtype=torch.float64)
    parallel.add_up([sums])
    found["episodes"] = ended = float(found["episodes"]) * parallel.size()
    return found | {name: float(total) / ended for name, total in zip(EPISODES, sums, strict=True) if ended}


def _own_seed(seed: int) -> int:
    """The seed of this process's training episodes: the run's own for process 0."""
    return derive_key("process", seed, parallel.rank())[0] << 32 if parallel.rank() else seed
