"""The presets cleanrl_ppo, sb3_ppo and mlp_policy: whole updates against PPO written from its formulas, with the figures of those libraries.

Nothing of the learner's arithmetic is used: forward passes, advantages, losses, clipping of gradients and Adam are written out here, in float64.
Only the order in which samples are shuffled is the learner's.

Notation: T = rollout length, B = number of environments, N = samples, D = observation size, C = actions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.catalogue import implementation
from pipeline.config.expand import read_preset
from pipeline.config.learners import Ppo
from pipeline.config.networks import ActorCritic
from pipeline.config.tasks import Gymnasium
from pipeline.learners.rollout import Sequences
from pipeline.networks.build import build, count_parameters
from tests.learners.small import small_problem

CARTPOLE = Gymnasium(max_episode_steps=15)
"""Most episodes are cut off, some fall before."""


class Settings(NamedTuple):
    """What the library does by default; `value` weighs the mean squared error itself."""

    rate: float
    annealed: bool
    bootstrap: bool
    epochs: int
    minibatches: int
    clip_value: bool
    value: float
    entropy: float
    fields: dict[str, Any]


SETTINGS = {
    "cleanrl_ppo": Settings(2.5e-4, True, False, 4, 4, True, 0.25, 0.01, {}),
    "sb3_ppo": Settings(3e-4, False, True, 10, 4, False, 0.5, 0.0, {"total_timesteps": "500k", "rollout_steps": 256, "num_minibatches": 4}),
}
"""CleanRL: ppo.py. Stable-Baselines3: PPO with MlpPolicy, whose 2048 steps in minibatches of 64 are 256 steps here."""


class Taken(NamedTuple):
    """One step of all copies."""

    observed_BD: np.ndarray
    action_B: np.ndarray
    reward_B: np.ndarray
    ended_B: np.ndarray
    cut_off_B: np.ndarray
    last_BD: np.ndarray


def learner_of(name: str) -> Any:
    """The learner of a preset on CartPole, in float64."""
    network = build(ActorCritic.model_validate(read_preset("mlp_policy")), CARTPOLE.sizes).double()
    config = Ppo.model_validate({**read_preset(name), **SETTINGS[name].fields})
    return implementation(config)(config, network, small_problem(CARTPOLE, validation=1), 0, torch.device("cpu"))


def recorded(learner: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Taken], list[Tensor]]:
    """Lists that fill while the learner updates: the steps taken, and the orders that samples are shuffled into."""
    taken: list[Taken] = []
    orders: list[Tensor] = []
    step, in_order = learner.actor.environment.step, Sequences.in_order

    def watched(action_B: np.ndarray) -> Any:
        before_BD = learner.actor.observed_B.numpy().copy()
        result = step(action_B)
        _, reward_B, ended_B, cut_off_B, infos = result
        taken.append(Taken(before_BD, action_B, reward_B, ended_B, cut_off_B, infos.get("final_obs", np.zeros_like(before_BD))))
        return result

    def noted(sequences: Sequences, order_N: Tensor) -> Sequences:
        orders.append(order_N)
        return in_order(sequences, order_N)

    learner.actor.environment.step = watched
    monkeypatch.setattr(Sequences, "in_order", noted)
    return taken, orders


class Reference:
    """PPO with two networks of two tanh layers, and Adam, from their formulas."""

    def __init__(self, weights: dict[str, Tensor], settings: Settings) -> None:
        self.weights = {name: value.clone().requires_grad_() for name, value in weights.items()}
        self.moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in weights.items()}
        self.settings, self.steps = settings, 0

    def through(self, x: Tensor, *layers: str) -> Tensor:
        """Linear maps with tanh between them."""
        for number, layer in enumerate(layers):
            x = (x.tanh() if number else x) @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]
        return x

    def log_policy(self, observed: Tensor) -> Tensor:
        """Log-probabilities (..., C)."""
        logits = self.through(observed, "encoder.layers.0", "policy.0", "policy.2")
        return logits - torch.logsumexp(logits, -1, keepdim=True)

    def value(self, observed: Tensor) -> Tensor:
        """What the critic expects."""
        return self.through(observed, "critic_trunk.encoder.layers.0", "critic.0", "critic.2").squeeze(-1)

    @torch.no_grad()
    def advantages(self, taken: list[Taken], now_BD: np.ndarray) -> Tensor:
        """(T, B): sums of discounted errors of the critic up to the end of each episode or of the rollout."""
        steps, copies = len(taken), len(taken[0].reward_B)
        found = torch.zeros(steps, copies, dtype=torch.float64)
        for copy in range(copies):
            later = 0.0
            for t in reversed(range(steps)):
                step, done = taken[t], bool(taken[t].ended_B[copy] or taken[t].cut_off_B[copy])
                follows = now_BD if t + 1 == steps else taken[t + 1].observed_BD
                after = float(self.value(numbers(step.last_BD if done else follows)[copy]))
                if done and not (step.cut_off_B[copy] and self.settings.bootstrap):
                    after = 0.0
                error = float(step.reward_B[copy]) + 0.99 * after - float(self.value(numbers(step.observed_BD)[copy]))
                later = error + (0.0 if done else 0.99 * 0.95 * later)
                found[t, copy] = later
        return found

    def update(self, taken: list[Taken], now_BD: np.ndarray, orders: list[Tensor], rate: float) -> None:
        """All steps for one rollout."""
        observed_ND = numbers(np.concatenate([step.observed_BD for step in taken]))
        action_N = torch.from_numpy(np.concatenate([step.action_B for step in taken]))
        advantage_N = self.advantages(taken, now_BD).flatten()
        with torch.no_grad():
            log_N, value_N = self.log_policy(observed_ND)[torch.arange(len(action_N)), action_N], self.value(observed_ND)
        assert len(orders) == self.settings.epochs
        for order_N in orders:
            assert sorted(order_N.tolist()) == list(range(len(action_N))), "single steps are shuffled"
            for index_N in order_N.chunk(self.settings.minibatches):
                parts = (observed_ND, action_N, advantage_N, log_N, value_N)
                self.descend(self.loss(*(part[index_N] for part in parts)), rate)

    def loss(self, observed_ND: Tensor, action_N: Tensor, advantage_N: Tensor, log_N: Tensor, value_N: Tensor) -> Tensor:
        """Equation 9 of Schulman et al. (2017), to be minimised, with the advantages of the minibatch normalised."""
        target_N = advantage_N + value_N
        deviation = math.sqrt(float((advantage_N - advantage_N.mean()).square().sum()) / (len(advantage_N) - 1))
        advantage_N = (advantage_N - advantage_N.mean()) / (deviation + 1e-8)
        log_NC, now_N = self.log_policy(observed_ND), self.value(observed_ND)
        ratio_N = torch.exp(log_NC[torch.arange(len(action_N)), action_N] - log_N)
        gain_N = torch.where(advantage_N > 0, torch.clamp(ratio_N, max=1.2), torch.clamp(ratio_N, min=0.8)) * advantage_N
        error_N = (now_N - target_N) ** 2
        if self.settings.clip_value:
            error_N = torch.maximum(error_N, (value_N + torch.clamp(now_N - value_N, -0.2, 0.2) - target_N) ** 2)
        entropy = -(log_NC.exp() * log_NC).sum(-1).mean()
        return -gain_N.mean() + self.settings.value * error_N.mean() - self.settings.entropy * entropy

    def descend(self, loss: Tensor, rate: float) -> None:
        """Gradients of a norm of at most 0.5, then Adam (Kingma & Ba 2015, algorithm 1) with epsilon 1e-5."""
        names = [*self.weights]
        gradients = torch.autograd.grad(loss, [self.weights[name] for name in names])
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        self.steps += 1
        for name, gradient in zip(names, gradients, strict=True):
            gradient = gradient * min(1.0, 0.5 / (norm + 1e-6))
            first, second = self.moments[name]
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            self.moments[name] = first, second
            moved = first / (1 - 0.9**self.steps) / (torch.sqrt(second / (1 - 0.999**self.steps)) + 1e-5)
            self.weights[name] = (self.weights[name] - rate * moved).detach().requires_grad_()


def numbers(observed: np.ndarray) -> Tensor:
    return torch.from_numpy(observed).double()


def updates(learner: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Two updates of both, from the same rollouts."""
    taken, orders = recorded(learner, monkeypatch)
    total = 500_000 // learner.config.rows_per_step
    for number in range(2):
        taken.clear()
        orders.clear()
        learner.update()
        rate = reference.settings.rate * (1 - number / total if reference.settings.annealed else 1)
        reference.update(taken, learner.actor.observed_B.numpy(), orders, rate)
        assert any(step.cut_off_B.any() for step in taken) and any(step.ended_B.any() for step in taken)
        yield number


@pytest.mark.parametrize("name", SETTINGS)
def test_updates_equal_those_of_the_formulas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(name)
    start = {key: value.clone() for key, value in learner.network.state_dict().items()}
    reference = Reference(start, SETTINGS[name])
    for _ in updates(learner, reference, monkeypatch):
        for key, value in learner.network.state_dict().items():
            torch.testing.assert_close(
                value, reference.weights[key].detach(), rtol=0, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
            )
    assert all((value - start[key]).abs().max() > 1e-4 for key, value in learner.network.state_dict().items()), "it has moved"


@pytest.mark.parametrize("field", ["bootstrap", "clip_value", "value", "entropy", "rate", "annealed"])
def test_a_wrong_setting_is_seen(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By more than the comparison above allows: twice a number, the other of two ways."""
    learner, right = learner_of("cleanrl_ppo"), SETTINGS["cleanrl_ppo"]
    value = getattr(right, field)
    wrong = right._replace(**{field: not value if isinstance(value, bool) else 2 * value})
    reference = Reference(learner.network.state_dict(), wrong)
    assert len([*updates(learner, reference, monkeypatch)]) == 2
    found = learner.network.state_dict()
    assert max((found[key] - reference.weights[key]).abs().max() for key in found) > (2e-6 if field == "annealed" else 1e-5)


def test_the_networks_are_those_of_both_libraries() -> None:
    """4-64-64-2 and 4-64-64-1, orthogonal with gains sqrt 2, sqrt 2, and 0.01 or 1; biases zero."""
    network: Any = build(ActorCritic.model_validate(read_preset("mlp_policy")), CARTPOLE.sizes)
    assert count_parameters(network) == 2 * (4 * 64 + 64 + 64 * 64 + 64) + 64 * 2 + 2 + 64 + 1
    gains = {"encoder.layers.0": math.sqrt(2), "policy.0": math.sqrt(2), "policy.2": 0.01, "critic.2": 1.0}
    for name, gain in {**gains, "critic_trunk.encoder.layers.0": math.sqrt(2), "critic.0": math.sqrt(2)}.items():
        layer = network.get_submodule(name)
        np.testing.assert_allclose(np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False), gain, rtol=1e-5)
        assert not layer.bias.any()


def test_published_figures_of_the_presets() -> None:
    """Copies, steps, minibatches of single steps, and what a budget of 500,000 steps makes of them."""
    cleanrl, sb3 = (Ppo.model_validate({"total_timesteps": "500k", **read_preset(name)}) for name in ("cleanrl_ppo", "sb3_ppo"))
    assert (cleanrl.num_envs, cleanrl.rollout_steps, cleanrl.sequences // cleanrl.num_minibatches, cleanrl.total_steps) == (
        4,
        128,
        128,
        976,
    )
    assert (sb3.num_envs, sb3.rollout_steps, sb3.sequences // sb3.num_minibatches, sb3.total_steps) == (1, 2048, 64, 244)
