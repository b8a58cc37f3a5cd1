"""Actor-critic network: encoder, blocks of mixer and feed-forward layer, a policy head and a value head.

Notation: B = batch size, T = sequence length, D = width, C = choices of all parts of an action, concatenated (logits).

    x = encode(o)                 none: W o + b of the flattened observation;  mlp: relu(W o + b), or tanh, one or more layers
                                  nature_cnn: relu convolutions of 8, 4 and 3 pixels, then relu(W z + b)
    the blocks of `pipeline.networks.stack`
    logits = P tanh(Q norm(x) + q) + p,    value = U tanh(V norm(x) + v) + u

With `shared: false` the critic has its own encoder and blocks, and the state holds those of both.

Pixels 0..255 are scaled to 0..1. Linear layers and convolutions are initialised orthogonally with gain sqrt 2 and zero bias; the last layer
of the policy with `policy_gain`, which is small for an almost uniform initial policy, that of the critic with `critic_gain`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.config import networks as config
from pipeline.networks.stack import Stack, make_blocks, make_norm
from pipeline.ops.state import State

CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel size and stride of the encoder of Mnih et al. (2015)."""


class ActorCriticOutput(NamedTuple):
    """Output at each step: action logits of all parts, and the value, the expected discounted return.

    logits: (..., C). value: (...).
    """

    logits: Tensor
    value: Tensor


class Trunk(Stack):
    """Encoder, blocks and norm: from observations to the input of the heads. State: a tuple of the blocks' states."""

    def __init__(self, config: config.ActorCritic, observation: Sequence[int], pixels: bool) -> None:
        super().__init__()
        assert isinstance(config.width, int), "resolve_width comes first"
        self.encoder = Encoder(config, tuple(observation), pixels, config.width)
        self.blocks = make_blocks(config)
        self.norm = make_norm(config.final_norm, config.width, config.norm_eps)

    def read(self, observed_BT: Tensor, state: State | None, reset_BT: Tensor | None) -> tuple[Tensor, State]:
        """Return x_BTD of a whole sequence, and the state after it."""
        x_BTD, state = self.mix(self.encoder(observed_BT), state, reset_BT)
        return self.norm(x_BTD), state

    def read_step(self, observed_B: Tensor, state: State, active_B: Tensor | None) -> tuple[Tensor, State]:
        """Return x_BD of one observation per row, and the state after it."""
        x_BD, state = self.mix_step(self.encoder(observed_B), state, active_B)
        return self.norm(x_BD), state


class ActorCritic(Trunk):
    """Policy and critic. The critic shares the policy's trunk or, with `shared: false`, has its own.

    State: a tuple of the blocks' states, the policy's, then those of the critic's own trunk.
    """

    def __init__(self, config: config.ActorCritic, observation: Sequence[int], actions: Sequence[int], pixels: bool = False) -> None:
        super().__init__(config, observation, pixels)
        assert isinstance(config.width, int), "resolve_width comes first"
        self.observation, self.actions, self.context = tuple(observation), tuple(actions), config.context
        self.policy = _head(config.width, config.head_width, sum(actions), config.policy_gain)
        self.critic = _head(config.width, config.head_width, 1, config.critic_gain)
        self.critic_trunk = None if config.shared else Trunk(config, observation, pixels)

    def initial_state(self, batch: int) -> State:
        """Return the state before the first observation."""
        state = super().initial_state(batch)
        return state if self.critic_trunk is None else (*state, *self.critic_trunk.initial_state(batch))

    def forward(self, observed_BT: Tensor, state: State | None = None, reset_BT: Tensor | None = None) -> tuple[ActorCriticOutput, State]:
        """Run a whole sequence of observations (B, T, ...); reset_BT (bool) is true at the first observation of an episode."""
        of_policy, of_critic = self._split(state)
        x_BTD, after = self.read(observed_BT, of_policy, reset_BT)
        if self.critic_trunk is None:
            return self._output(x_BTD, x_BTD), after
        own_BTD, own_after = self.critic_trunk.read(observed_BT, of_critic, reset_BT)
        return self._output(x_BTD, own_BTD), (*after, *own_after)

    def step(self, observed_B: Tensor, state: State, active_B: Tensor | None = None) -> tuple[ActorCriticOutput, State]:
        """Run one observation per row; where active_B is false, the row's state is unchanged.

        Raises UserError if attention would read more steps than the context, not counting the observation after an episode's last step.
        """
        of_policy, of_critic = self._split(state)
        self.check_context(self.context + 1, of_policy, 1)
        x_BD, after = self.read_step(observed_B, of_policy, active_B)
        if self.critic_trunk is None:
            return self._output(x_BD, x_BD), after
        own_BD, own_after = self.critic_trunk.read_step(observed_B, of_critic, active_B)
        return self._output(x_BD, own_BD), (*after, *own_after)

    def state_bytes(self, context: int) -> int:
        """Return the size of the state in bytes per row after `context` observations."""
        own = 0 if self.critic_trunk is None else self.critic_trunk.state_bytes(context)
        return super().state_bytes(context) + own

    def random_inputs(self, batch: int, length: int) -> dict[str, Tensor]:
        """Return random arguments of `forward`, of shapes (B, T, ...), to measure its cost."""
        shape = (batch, length, *self.observation)
        return {"observed_BT": torch.randint(256, shape, dtype=torch.uint8) if self.encoder.scale else torch.rand(shape)}

    def _split(self, state: State | None) -> tuple[State | None, State | None]:
        """Split the state into those of the policy's blocks and of the critic's own."""
        blocks = len(self.blocks)
        return (None, None) if state is None else (state[:blocks], state[blocks:])

    def _output(self, x: Tensor, of_critic: Tensor) -> ActorCriticOutput:
        return ActorCriticOutput(self.policy(x), self.critic(of_critic).squeeze(-1))


class Encoder(nn.Module):
    """Maps observations with any number of leading dimensions to vectors of the network's width."""

    def __init__(self, config: config.ActorCritic, observation: tuple[int, ...], pixels: bool, width: int) -> None:
        super().__init__()
        self.dimensions = len(observation)
        self.scale = 1 / 255 if pixels else None
        input_size = math.prod(observation)
        self.convolutions = None
        if config.encoder == "nature_cnn":
            height, breadth, channels = observation
            self.convolutions = _convolutions(channels)
            input_size = CONVOLUTIONS[-1][0] * _remaining(height) * _remaining(breadth)
        depth = config.encoder_depth if config.encoder == "mlp" else 1
        maps = [orthogonal(nn.Linear(before, width), math.sqrt(2)) for before in (input_size, *[width] * (depth - 1))]
        activation = nn.Tanh if config.encoder == "mlp" and config.encoder_activation == "tanh" else nn.ReLU
        layers = [layer for linear in maps for layer in (linear, activation())]
        self.layers = nn.Sequential(*(layers[:1] if config.encoder == "none" else layers))

    def forward(self, observed: Tensor) -> Tensor:
        """Encode (..., *observation) to (..., D)."""
        lead = observed.shape[: observed.dim() - self.dimensions]
        x = observed.flatten(0, len(lead) - 1).to(next(self.parameters()).dtype)
        x = x if self.scale is None else x * self.scale
        if self.convolutions is not None:
            x = self.convolutions(x.movedim(-1, 1))
        return self.layers(x.flatten(1)).unflatten(0, lead)


def _convolutions(channels: int) -> nn.Sequential:
    layers, before = [], channels
    for after, kernel, stride in CONVOLUTIONS:
        layers += [orthogonal(nn.Conv2d(before, after, kernel, stride), math.sqrt(2)), nn.ReLU()]
        before = after
    return nn.Sequential(*layers)


def _remaining(pixels: int) -> int:
    """Return the output size of the convolutions along a dimension of `pixels`."""
    for _, kernel, stride in CONVOLUTIONS:
        pixels = (pixels - kernel) // stride + 1
    return pixels


def _head(width: int, inner: int, outputs: int, gain: float) -> nn.Sequential:
    return nn.Sequential(orthogonal(nn.Linear(width, inner), math.sqrt(2)), nn.Tanh(), orthogonal(nn.Linear(inner, outputs), gain))


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float) -> nn.Linear | nn.Conv2d:
    """Initialise a layer orthogonally with the given gain and zero bias, and return it."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
