"""Networks that act: sequences equal their steps, episodes are kept apart, encoders read what they should."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pipeline.config.networks import ActorCritic as Config
from pipeline.networks.actor_critic import CONVOLUTIONS, ActorCritic
from pipeline.networks.build import build, count_parameters, resolve_width
from pipeline.ops.state import leaves, where
from tests.mixers.making import CAUSAL, nbytes


def network(
    seed: int = 0, observation: tuple[int, ...] = (5,), actions: tuple[int, ...] = (4,), pixels: bool = False, **fields: Any
) -> Any:
    config = Config.model_validate({"width": 16, "head_width": 8, "mixer": "gru", **fields})
    made = build(config, {"observation": observation, "actions": actions, "pixels": pixels}, seed)
    assert isinstance(made, ActorCritic)
    return made


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mixer", CAUSAL)
def test_a_sequence_equals_its_steps_across_episodes(mixer: str, shared: bool) -> None:
    made = network(mixer=mixer, depth=2, norm="rms", final_norm="rms", shared=shared).double()
    observed_BT, reset_BT = torch.rand(3, 9, 5).double(), torch.rand(3, 9) < 0.3
    with torch.no_grad():
        whole, _ = made(observed_BT, None, reset_BT)
        state = made.initial_state(3)
        for t in range(9):
            state = where(reset_BT[:, t], made.initial_state(3), state)
            step, state = made.step(observed_BT[:, t], state)
            torch.testing.assert_close(step.logits, whole.logits[:, t], rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(step.value, whole.value[:, t], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shared", [True, False])
def test_inactive_rows_keep_their_state(shared: bool) -> None:
    made = network(mixer="lstm", shared=shared)
    _, before = made.step(torch.rand(2, 5), made.initial_state(2))
    _, after = made.step(torch.rand(2, 5), before, active_B=torch.tensor([True, False]))
    for old, new in zip(leaves(before), leaves(after), strict=True):
        assert old[1].equal(new[1]) and not old[0].equal(new[0])


@pytest.mark.parametrize("mixer", ["gru", "attention", "gtrxl"])
def test_separate_trunks_are_two_networks(mixer: str) -> None:
    """One gives the policy, another of its own weights and state the value."""
    fields: dict[str, Any] = {"mixer": mixer, "depth": 2, "feedforward": 1.0, "encoder": "mlp", "final_norm": "layer"}
    both, policy, critic = network(shared=False, **fields), network(**fields), network(**fields)
    weights = both.state_dict()
    own = {key.removeprefix("critic_trunk."): value for key, value in weights.items() if key.startswith("critic_trunk.")}
    rest = {key: value for key, value in weights.items() if not key.startswith("critic_trunk.")}
    assert own.keys() == {key for key in rest if not key.startswith(("policy.", "critic."))}
    assert not any(own[key].equal(rest[key]) for key in own if key.endswith("weight") and own[key].dim() > 1)
    policy.load_state_dict(rest)
    critic.load_state_dict({**rest, **own})
    observed_BT, reset_BT = torch.rand(3, 9, 5), torch.rand(3, 9) < 0.3
    (acted, state), (of_policy, before), (of_critic, after) = (made(observed_BT, None, reset_BT) for made in (both, policy, critic))
    assert acted.logits.equal(of_policy.logits) and acted.value.equal(of_critic.value)
    step, expected = (made.step(observed_BT[:, 0], carried)[0] for made, carried in ((both, state), (critic, after)))
    assert step.value.equal(expected.value) and step.logits.equal(policy.step(observed_BT[:, 0], before)[0].logits)
    head = count_parameters(both.policy) + count_parameters(both.critic)
    assert count_parameters(both) - head == 2 * (count_parameters(policy) - head)
    assert both.state_bytes(9) == 2 * policy.state_bytes(9)
    assert nbytes(both.initial_state(1)) == 2 * nbytes(policy.initial_state(1)) > 0


def test_neither_of_separate_trunks_learns_from_the_others_loss() -> None:
    made = network(shared=False, depth=2)
    for loss, silent in (("logits", ("critic",)), ("value", ("policy.", "encoder.", "blocks."))):
        made.zero_grad()
        getattr(made(torch.rand(2, 4, 5))[0], loss).square().sum().backward()
        learning = {name for name, parameter in made.named_parameters() if parameter.grad is not None and bool(parameter.grad.any())}
        assert learning and not any(name.startswith(silent) for name in learning)
        assert learning | {name for name, _ in made.named_parameters() if name.startswith(silent)} == dict(made.named_parameters()).keys()


def test_at_first_no_action_is_preferred_and_little_is_expected() -> None:
    made = network()
    acted, _ = made(torch.rand(20, 6, 5))
    assert float(acted.logits.detach().abs().max()) < 0.1 and acted.logits.shape == (20, 6, 4) and acted.value.shape == (20, 6)
    gains = {"encoder.layers.0": math.sqrt(2), "policy.0": math.sqrt(2), "policy.2": 0.01, "critic.0": math.sqrt(2), "critic.2": 1.0}
    for name, gain in gains.items():
        layer: Any = made.get_submodule(name)
        short = layer.weight if layer.weight.shape[0] <= layer.weight.shape[1] else layer.weight.T
        torch.testing.assert_close(short @ short.T, gain**2 * torch.eye(len(short)), rtol=1e-4, atol=1e-5)
        assert not bool(layer.bias.any())


def test_actions_of_several_parts_have_logits_end_to_end() -> None:
    made = network(actions=(3, 2))
    assert made.actions == (3, 2) and made(torch.rand(1, 1, 5))[0].logits.shape == (1, 1, 5)


@pytest.mark.parametrize("encoder", ["none", "mlp"])
def test_pixels_are_read_as_shares_of_255(encoder: str) -> None:
    made = network(observation=(4, 3, 3), pixels=True, encoder=encoder)
    plain = network(observation=(36,), encoder=encoder)
    plain.load_state_dict(made.state_dict())
    observed_BT = torch.randint(256, (2, 5, 4, 3, 3), dtype=torch.uint8)
    torch.testing.assert_close(made(observed_BT)[0].value, plain(observed_BT.flatten(2).float() / 255)[0].value)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_mlp_has_as_many_layers_as_its_depth_says(activation: str) -> None:
    made = network(encoder="mlp", encoder_depth=3, encoder_activation=activation, mixer="none")
    x = torch.rand(7, 5)
    expected = x
    for index in (0, 2, 4):
        layer: Any = made.encoder.layers[index]
        expected = expected @ layer.weight.T + layer.bias
        expected = expected.clamp(min=0) if activation == "relu" else expected.tanh()
    torch.testing.assert_close(made.encoder(x), expected)
    with pytest.raises(IndexError):
        made.encoder.layers[6]


def test_the_convolutions_are_those_of_the_paper() -> None:
    """84 x 84 pixels leave 7 x 7 x 64 numbers; channels come last and are moved to the front."""
    made = network(observation=(84, 84, 3), pixels=True, encoder="nature_cnn")
    assert [tuple(layer.weight.shape) for layer in made.encoder.convolutions[::2]] == [(32, 3, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert made.encoder.layers[0].in_features == 3136
    observed = torch.randint(256, (2, 84, 84, 3), dtype=torch.uint8)
    z = observed.permute(0, 3, 1, 2).float() / 255
    for index, (_, _, stride) in zip((0, 2, 4), CONVOLUTIONS, strict=True):
        layer: Any = made.encoder.convolutions[index]
        z = torch.nn.functional.conv2d(z, layer.weight, layer.bias, stride).clamp(min=0)
    linear: Any = made.encoder.layers[0]
    torch.testing.assert_close(made.encoder(observed), linear(z.flatten(1)).clamp(min=0), rtol=1e-4, atol=1e-5)


def test_without_a_residual_the_memoryless_network_is_blind() -> None:
    observed_BT = torch.rand(4, 3, 5)
    for residual, differs in ((True, True), (False, False)):
        acted, _ = network(mixer="none", residual=residual)(observed_BT)
        assert bool((acted.logits.std((0, 1)) > 0).all()) == differs


def test_a_seed_makes_the_weights() -> None:
    first, again, other = (network(seed).state_dict() for seed in (3, 3, 4))
    assert all(first[key].equal(again[key]) for key in first)
    assert any(not first[key].equal(other[key]) for key in first)


def test_a_solved_width_meets_the_budget() -> None:
    widths = []
    for shared in (True, False):
        config = Config(mixer="gru", width="auto", parameters=40_000, shared=shared)  # pyright: ignore[reportArgumentType]
        solved = resolve_width(config, {"observation": [16], "actions": [4]})
        assert isinstance(solved.width, int)
        widths.append(solved.width)
        assert abs(count_parameters(build(config, {"observation": [16], "actions": [4]})) - 40_000) <= 1200
    assert widths[0] > widths[1]
