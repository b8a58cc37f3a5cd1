"""Learners that act: what a rollout holds, that reading it again gives what acting gave, resume, and that memory is learned."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor
from torch.distributions import Categorical

from pipeline.config.learners import A2c, Ppo
from pipeline.config.mixers import MIXERS
from pipeline.config.networks import ActorCritic
from pipeline.config.tasks import TMaze
from pipeline.learners.a2c import A2C
from pipeline.learners.on_policy import OnPolicy, entropy, gae
from pipeline.learners.ppo import PPO, approximate_kl
from pipeline.learners.rollout import Actor, Rollout, Sequences, log_probability
from pipeline.networks.actor_critic import ActorCriticOutput
from pipeline.networks.build import build
from pipeline.networks.sampling import gumbel
from pipeline.storage.errors import UserError
from pipeline.training.serialization import pack, unpack
from tests.learners.small import small_learner, small_problem

CPU = torch.device("cpu")
SHORT = TMaze.model_validate({"corridor": {"uniform": [2, 4]}, "max_episode_steps": 6})
"""Episodes that end, or are cut off, every few steps."""


def acting(mixer: str = "gru", learner: str = "ppo", **fields: Any) -> Any:
    made = small_learner(mixer, SHORT, learner, **fields)
    assert isinstance(made, OnPolicy)
    return made


def noise(learner: OnPolicy) -> Tensor:
    config = learner.config
    return gumbel(np.random.default_rng(3), (config.rollout_steps, config.num_envs, 4))


def collected(learner: Any) -> Sequences:
    """A rollout by fixed noise as training sequences."""
    rollout = learner.actor.rollout(noise(learner))
    return rollout.sequences(learner.advantages(rollout))


@pytest.mark.parametrize(("sequence", "shared"), [(None, True), (4, True), (4, False)])
@pytest.mark.parametrize("mixer", sorted(name for name, kind in MIXERS.items() if kind.causal))
def test_before_the_first_step_every_ratio_is_one(mixer: str, sequence: int | None, shared: bool) -> None:
    """Acting step by step and reading the rollout again as sequences say the same, episodes beginning and ending anywhere inside."""
    learner = acting(mixer, network={"shared": shared}, rollout_steps=16, bptt_steps=sequence)
    learner.actor.rollout(noise(learner))
    sequences = collected(learner)
    inside = sequences.reset_NS[:, 1:]
    assert 0.1 < float(inside.float().mean()) < 0.9
    assert not bool(sequences.reset_NS[:, 0].all()), "some sequences begin inside an episode, with what was carried there"
    new = learner.evaluate_actions(sequences)
    ratio = (new.log_probability_NS - sequences.log_probability_NS).exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-5)
    torch.testing.assert_close(new.value_NS, sequences.value_NS, rtol=1e-5, atol=1e-5)


class Counting(VectorEnv):
    """Two copies that show how many steps they have made; one ends after every three, the other is cut off after every four."""

    reproducible = True

    def __init__(self) -> None:
        self.num_envs, self.count, self.limits = 2, np.zeros(2, np.float32), np.array([3, 4])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.count = np.zeros(2, np.float32)
        return self.count[:, None].copy(), {}

    def step(self, actions: np.ndarray) -> Any:
        self.count = self.count + 1
        done = self.count == self.limits
        final = self.count[:, None].copy()
        infos = {"final_obs": final, "length": self.count.astype(np.int64), "return": self.count.astype(np.float64)}
        infos |= {"success": np.array([1, 0]), "_length": done}
        reward = 10 * self.count
        self.count = np.where(done, 0, self.count).astype(np.float32)
        return self.count[:, None].copy(), reward, done & [True, False], done & [False, True], infos if done.any() else {}


class Echo:
    """A critic that expects what it sees, and adds 100 for every observation since its state began; a policy without a preference."""

    actions, context = (2,), 100

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1)

    def step(self, observed_B: Tensor, state: Tensor) -> tuple[ActorCriticOutput, Tensor]:
        after = state + 100
        return ActorCriticOutput(torch.zeros(len(observed_B), 2), (observed_B + state)[:, 0]), after


def counted(**fields: Any) -> tuple[Rollout, Sequences]:
    config = Ppo(num_updates=1, num_envs=2, rollout_steps=9, num_minibatches=1, **fields)
    rollout = Actor(config, Echo(), Counting(), CPU).rollout(torch.ones(9, 2, 2))
    values = rollout.reward_TB, rollout.value_TB, rollout.next_value_TB, rollout.done_TB
    return rollout, rollout.sequences(gae(*values, config.gamma, config.gae_lambda))


def test_a_cut_off_episode_is_worth_what_was_still_expected_of_it_and_an_ended_one_nothing() -> None:
    """Against a brute-force sum over the two copies, whose values are known: c + 100 c after c steps of an episode."""
    _, sequences = counted(gamma=0.9, gae_lambda=0.8)
    for copy_, (limit, cut_off) in enumerate([(3, False), (4, True)]):
        value = [101 * (t % limit) for t in range(10)]
        reward = [10 * (t % limit + 1) for t in range(9)]
        done = [(t + 1) % limit == 0 for t in range(9)]
        after = [(101 * limit if cut_off else 0) if done[t] else value[t + 1] for t in range(9)]
        error = [reward[t] + 0.9 * after[t] - value[t] for t in range(9)]
        for t in range(9):
            expected, weight = 0.0, 1.0
            for later in range(t, 9):
                expected += weight * error[later]
                weight *= 0.9 * 0.8
                if done[later]:
                    break
            assert float(sequences.advantage_NS[copy_, t]) == pytest.approx(expected, rel=1e-5), (copy_, t)


def test_without_bootstrap_a_cut_off_episode_is_worth_nothing_more() -> None:
    """The copy that is cut off after four steps: the error of its last step is 10 c - V, with nothing to come."""
    _, sequences = counted(gamma=0.9, gae_lambda=0.0, bootstrap_truncated=False)
    for copy_, limit in enumerate((3, 4)):
        found = sequences.advantage_NS[copy_].tolist()
        value = [101 * (t % limit) for t in range(10)]
        expected = [10 * (t % limit + 1) + (0.9 * value[t + 1] if (t + 1) % limit else 0) - value[t] for t in range(9)]
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_rollout_tells_of_the_episodes_that_ended() -> None:
    rollout, _ = counted()
    assert sorted(rollout.episodes["length"].tolist()) == [3, 3, 3, 4, 4]
    assert rollout.episodes["success"].sum() == 3
    assert float(rollout.reward_TB.mean()) == pytest.approx(10 * np.mean([1, 2, 3] * 3 + [1, 2, 3, 4, 1, 2, 3, 4, 1]))


def test_sequences_go_on_from_what_was_carried() -> None:
    _, sequences = counted(bptt_steps=3)
    assert sequences.observed_NS.shape == (6, 3, 1)
    assert sequences.observed_NS[:, :, 0].tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 0, 1], [0, 1, 2], [2, 3, 0]]
    assert sequences.reset_NS.tolist() == [[True, False, False]] * 3 + [[False, True, False], [True, False, False], [False, False, True]]
    assert sequences.state[:, 0].tolist() == [0, 0, 300, 300, 300, 200]
    one, other = sequences.in_order(torch.tensor([5, 3, 0, 1, 2, 4])).split(2)
    assert one.state[:, 0].tolist() == [200, 300, 0] and one.observed_NS[0, :, 0].tolist() == [2, 3, 0]
    assert other.observed_NS[:, :, 0].tolist() == [[0, 1, 2]] * 3 and other.state[:, 0].tolist() == [0, 300, 300]


def test_ppo_descends_the_clipped_loss() -> None:
    learner = acting(update_epochs=1, num_minibatches=1, ent_coef=0.1, normalize_advantage=False, max_grad_norm=None)
    assert isinstance(learner, PPO)
    part = collected(learner)
    with torch.no_grad():
        for weight in learner.network.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    new = learner.evaluate_actions(part)
    ratio = (new.log_probability_NS - part.log_probability_NS).exp().detach()
    expected = []
    for r, a in zip(ratio.flatten().tolist(), part.advantage_NS.flatten().tolist(), strict=True):
        clipped = min(max(r, 0.8), 1.2)
        expected.append(-min(r * a, clipped * a))
    assert float(learner.policy_loss(part, ratio)) == pytest.approx(np.mean(expected), rel=1e-4)
    target = part.advantage_NS + part.value_NS
    value = new.value_NS.detach()
    assert float(learner.value_loss(part, value)) == pytest.approx(float(((value - target) ** 2).mean() / 2), rel=1e-5)


def test_a_clipped_critic_pays_for_the_larger_of_two_errors() -> None:
    learner = acting(clip_range_vf=0.01)
    part = collected(learner)
    error = torch.maximum((1.0 - part.advantage_NS) ** 2, (0.01 - part.advantage_NS) ** 2)
    assert float(learner.value_loss(part, part.value_NS + 1.0)) == pytest.approx(float(error.mean() / 2), rel=1e-4)


def test_a2c_takes_the_gradient_of_one_pass() -> None:
    learner, twin = acting(learner="a2c", max_grad_norm=None), acting(learner="a2c", max_grad_norm=None)
    assert isinstance(learner, A2C)
    figures = learner.update()
    rollout = twin.collect()
    part = rollout.sequences(twin.advantages(rollout))
    new = twin.evaluate_actions(part)
    target = part.advantage_NS + part.value_NS
    policy = -(part.advantage_NS * new.log_probability_NS).mean()
    value = ((new.value_NS - target) ** 2).mean() / 2
    loss = policy + 0.5 * value - 0.01 * new.entropy_NS.mean()
    loss.backward()
    assert float(figures["train_loss"]) == pytest.approx(loss.item(), rel=1e-5)
    for (name, mine), theirs in zip(learner.network.named_parameters(), twin.network.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_policy_that_moved_far_enough_ends_the_passes() -> None:
    counts = {}
    for target in (None, 1e-9):
        learner = acting(target_kl=target, update_epochs=5, num_minibatches=2, learning_rate=0.01)
        steps: list[int] = []
        step = learner.optimizers.step
        learner.optimizers.step = lambda count, step=step, steps=steps, **further: steps.append(1) or step(count, **further)
        learner.update()
        counts[target] = len(steps)
    assert counts == {None: 10, 1e-9: 2}


def test_schedules_reach_the_optimizer_and_the_entropy() -> None:
    learner = acting(
        learning_rate=0.5, lr_schedule="linear", warmup_steps=2, ent_coef=0.1, ent_coef_schedule="linear", min_ent_coef_ratio=0.5
    )
    rates = []
    for _ in range(10):
        rates.append(learner.metrics())
        learner.update()
        assert learner.optimizers.rules["main"].optimizer.param_groups[0]["lr"] == rates[-1]["learning_rate"]
    assert [rate["learning_rate"] for rate in rates] == pytest.approx([0.25, 0.5, *(0.5 * (8 - step) / 8 for step in range(8))])
    assert [rate["ent_coef"] for rate in rates] == pytest.approx([0.1 - 0.005 * step for step in range(10)])


def test_figures_of_an_update() -> None:
    found = acting("lstm").update()
    expected = {"train_loss", "policy_loss", "value_loss", "entropy", "gradient_norm", "clip_fraction", "approximate_kl", "reward"}
    expected |= {"advantage", "advantage_deviation", "explained_variance", "observation_mean", "observation_deviation", "episodes"}
    assert set(found) == expected | {"train_accuracy", "train_return", "train_episode_length"}
    assert 0.9 * np.log(4) < float(found["entropy"]) <= np.log(4) + 1e-6, "at first nothing is preferred"
    assert found["episodes"] > 2 and 2 <= float(found["train_episode_length"]) <= 6


def test_validation_changes_nothing() -> None:
    learner, twin = acting(), acting()
    for _ in range(2):
        state = torch.get_rng_state()
        assert learner.validate() == learner.validate()
        assert torch.get_rng_state().equal(state)
        mine, theirs = learner.update(), twin.update()
        assert {name: float(value) for name, value in mine.items()} == {name: float(value) for name, value in theirs.items()}


@pytest.mark.parametrize(("kind", "shared"), [("ppo", True), ("a2c", True), ("ppo", False)])
@pytest.mark.parametrize("mixer", sorted(name for name, kind in MIXERS.items() if kind.causal))
def test_resume_is_bit_equal(mixer: str, kind: str, shared: bool) -> None:
    """From a state as a checkpoint holds it: environment, what the network carries, optimizer, counters."""
    one, other = (acting(mixer, kind, network={"shared": shared}) for _ in range(2))
    for _ in range(2):
        one.update()
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(one.state_dict(), tensors))
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    other.load_state_dict(unpack(json.loads(text), saved))
    for _ in range(2):
        mine, theirs = one.update(), other.update()
        assert {name: float(value) for name, value in mine.items()} == {name: float(value) for name, value in theirs.items()}
    assert all(tensor.equal(other.network.state_dict()[name]) for name, tensor in one.network.state_dict().items())
    assert one.validate() == other.validate() and one.steps == other.steps == 4


def test_an_environment_that_cannot_go_on_begins_anew() -> None:
    one, other = acting(), acting()
    one.update()
    for learner in (one, other):
        learner.actor.environment.reproducible = False
    assert not one.reproducible and acting().reproducible and not acting(num_updates=None, seconds=9.0).reproducible
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert bool(other.actor.reset_B.all()) and not other.actor.steps_B.any() and other.steps == 1
    assert np.isfinite(float(other.update()["train_loss"]))


def test_an_environment_that_is_not_what_it_was_begins_anew_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    one, other, third = acting(), acting(), acting()
    one.update()
    state = copy.deepcopy(one.state_dict())
    state["actor"]["environment"]["shown"][2] += 1
    other.load_state_dict(state)
    said = "t_maze: environment 2 shows another observation after a resume; new episodes begin, and the run is not reproducible"
    assert capsys.readouterr().err == said + "\n"
    assert not other.reproducible and bool(other.actor.reset_B.all())
    other.update()
    third.load_state_dict(copy.deepcopy(other.state_dict()))
    assert capsys.readouterr().err == "" and not third.reproducible, "the next resume knows"
    assert not bool(third.actor.reset_B.all()), "and goes on where it was"


def test_an_episode_longer_than_the_context_is_refused() -> None:
    config = Ppo(num_updates=1, num_envs=2, rollout_steps=9, num_minibatches=1)
    network: Any = Echo()
    network.context = 4
    Actor(config, network, Counting(), CPU, "count").rollout(torch.ones(9, 2, 2))
    network.context = 3
    with pytest.raises(
        UserError, match="count: an episode of more than 3 steps, network.context; expected a smaller task.max_episode_steps"
    ):
        Actor(config, network, Counting(), CPU, "count").rollout(torch.ones(9, 2, 2))
    with pytest.raises(UserError, match="t_maze: an episode of more than 5 steps, network.context"):
        acting(network={"context": 5})
    acting(network={"context": 6})


def test_score_and_goal() -> None:
    learner = acting(stop_at=0.9)
    assert learner.score({"return": 1.0}) > learner.score({"return": 0.9})
    assert learner.is_good_enough({"accuracy": 0.9}) and not learner.is_good_enough({"accuracy": 0.89})
    assert not acting().is_good_enough({"accuracy": 1.0})


def trained(mixer: str, rows: int) -> tuple[dict[str, float], float]:
    """Validation after so many steps of a T-Maze of ten positions, or when it is solved, and the CPU seconds that took."""
    task = TMaze(corridor=10)
    config = Ppo(total_timesteps=rows, num_envs=64, rollout_steps=32, stop_at=0.97)
    network = build(ActorCritic.model_validate({"mixer": mixer, "width": 32, "head_width": 64}), task.sizes)
    learner = PPO(config, network, small_problem(task, validation=200), 0, CPU)
    begun, found = time.process_time(), {"accuracy": 0.0}
    while learner.progress(0.0) < 1 and not learner.is_good_enough(found):
        learner.update()
        if learner.steps % 5 == 0:
            found = learner.validate()
    return found, time.process_time() - begun


def test_memory_is_learned_in_seconds() -> None:
    """The smoke problem: a GRU carries the cue across a corridor of ten positions."""
    found, seconds = trained("gru", 150_000)
    assert found["accuracy"] >= 0.97 and found["return"] > 2.5
    assert seconds < 30


def test_without_memory_every_second_turn_is_right() -> None:
    found, _ = trained("none", 60_000)
    assert 0.4 < found["accuracy"] < 0.6
    assert found["return"] > -1, "it has learned to walk to the junction"


def test_a2c_learns_too() -> None:
    """A corridor of three positions, by one step per rollout."""
    task = TMaze(corridor=3)
    config = A2c(num_updates=600, num_envs=32, rollout_steps=8, learning_rate=3e-3)
    network = build(ActorCritic.model_validate({"mixer": "gru", "width": 32, "head_width": 64}), task.sizes)
    learner = A2C(config, network, small_problem(task, validation=200), 0, CPU)
    found = {"accuracy": 0.0}
    while learner.progress(0.0) < 1 and found["accuracy"] < 0.9:
        learner.update()
        if learner.steps % 50 == 0:
            found = learner.validate()
    assert found["accuracy"] >= 0.9


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0])
def test_the_approximate_kl_of_small_moves_is_not_rounding(size: float) -> None:
    log_ratio_NS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) * size
    exact = log_ratio_NS.double()
    expected = float((exact**2 / 2 + exact**3 / 6 + exact**4 / 24).mean()) if size < 1 else float((exact.exp() - 1 - exact).mean())
    assert float(approximate_kl(log_ratio_NS)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("parts", [(4,), (3, 2), (2, 5, 3)])
def test_probabilities_and_entropy_add_up_over_the_parts(parts: tuple[int, ...]) -> None:
    logits = torch.randn(6, 7, sum(parts), dtype=torch.float64)
    action = torch.stack([torch.randint(size, (6, 7)) for size in parts], -1)
    kinds = [Categorical(logits=part) for part in logits.split(list(parts), -1)]
    expected = torch.stack([kind.log_prob(taken) for kind, taken in zip(kinds, action.unbind(-1), strict=True)]).sum(0)
    torch.testing.assert_close(log_probability(logits, action, parts), expected)
    torch.testing.assert_close(entropy(logits, parts), torch.stack([kind.entropy() for kind in kinds]).sum(0))
