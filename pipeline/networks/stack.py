"""What networks over sequences have in their middle: blocks of mixer and gated feed-forward, one after the other.

Notation: B = batch size, T = sequence length, D = width, N = positions that are read out.

    each block:   x = [x +] drop(mixer(norm(x)))          the addition where `residual`; a short convolution before the mixer
                                                          where `convolution` > 0
                  x = x + drop(feedforward(norm(x)))      where `feedforward` > 0

With residual: gru both are gates of x and of what comes from the layer: see `pipeline.networks.residual`.

Blocks that `attention` names have attention as their mixer and a feed-forward layer of their own width.
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers
from pipeline.config import networks as config
from pipeline.config.catalogue import implementation
from pipeline.mixers.base import Mixer
from pipeline.mixers.short_convolution import ShortConvolution
from pipeline.networks.residual import make_residual
from pipeline.networks.sequential import Chain
from pipeline.ops.state import State
from pipeline.storage.errors import UserError


class GatedFeedForward(nn.Module):
    """y = V (silu(G x) * (U x)), the gated layer that Shazeer (2020) calls SwiGLU; G and U are one matrix."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x, whose last dimension is the width."""
        gate, up = self.into(x).chunk(2, -1)
        return self.out(functional.silu(gate) * up)


class PlainFeedForward(nn.Sequential):
    """y = V relu(U x + a) + b, orthogonal at first with gain sqrt 2."""

    def __init__(self, width: int, inner: int) -> None:
        into, out = nn.Linear(width, inner), nn.Linear(inner, width)
        super().__init__(into, nn.ReLU(), out)
        for layer in (into, out):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            nn.init.zeros_(layer.bias)


class Block(nn.Module):
    """A mixer along the sequence, then a feed-forward layer at each position."""

    def __init__(self, config: config.Stack, width: int, mixer: mixers.Mixer, feedforward: float, dropout: float) -> None:
        super().__init__()
        inner = max(1, round(feedforward * width)) if feedforward else 0
        self.norm = make_norm(config.norm, width, config.norm_eps)
        self.mixer = _mixer(mixer, config.convolution, width)
        self.residual = make_residual(config.residual, width, config.gate_gain)
        kind = GatedFeedForward if config.activation == "swiglu" else PlainFeedForward
        self.feedforward = nn.Sequential(make_norm(config.norm, width, config.norm_eps), kind(width, inner)) if inner else None
        self.feedforward_residual = make_residual(config.residual or True, width, config.gate_gain) if inner else None
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BTD: Tensor, state: State | None, reset_BT: Tensor | None, length_B: Tensor | None, at_N: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """A whole sequence; with `at_N`, only the outputs (N, D) at those positions: nothing else is done there after mixing."""
        mixed_BTD, state = self.mixer(self.norm(x_BTD), state, reset_BT, length_B)
        if at_N is None:
            return self._after(x_BTD, mixed_BTD), state
        return self._after(*(every.flatten(0, 1).index_select(0, at_N) for every in (x_BTD, mixed_BTD))), state

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None) -> tuple[Tensor, State]:
        """One position."""
        mixed_BD, state = self.mixer.step(self.norm(x_BD), state, active_B)
        return self._after(x_BD, mixed_BD), state

    def _after(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.residual(x, self.dropout(mixed))
        if self.feedforward is None or self.feedforward_residual is None:
            return x
        return self.feedforward_residual(x, self.dropout(self.feedforward(x)))


def _mixer(config: mixers.Mixer, convolution: int, width: int) -> Mixer:
    mixer = implementation(config)(config, width)
    return Chain(ShortConvolution(mixers.ShortConvolution(kernel_size=convolution), width), mixer) if convolution else mixer


class Stack(nn.Module):
    """A network around the blocks in `blocks`. The state is a tuple with each block's."""

    blocks: nn.ModuleList

    def initial_state(self, batch: int) -> State:
        """The state before the first position."""
        return tuple(block.mixer.initial_state(batch) for block in self._blocks())

    def mix(
        self, x: Tensor, state: State | None, reset_BT: Tensor | None = None, length_B: Tensor | None = None, at_N: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """x_BTD through all blocks, and the state after it; with `at_N` the last block gives only those positions (N, D)."""
        states, last = [], len(self.blocks) - 1
        for index, (block, before) in enumerate(zip(self._blocks(), state or [None] * len(self.blocks), strict=True)):
            x, after = block(x, before, reset_BT, length_B, at_N if index == last else None)
            states.append(after)
        return x, tuple(states)

    def mix_step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """One position through all blocks; where active_B is false a row's state stays as it was."""
        states = []
        for block, before in zip(self._blocks(), state, strict=True):
            x_BD, after = block.step(x_BD, before, active_B)
            states.append(after)
        return x_BD, tuple(states)

    def refuse_beyond(self, context: int, state: State | None, new: int) -> None:
        """Raise UserError where so many new positions, with those that the state holds one by one, are more than the context."""
        held = max(block.mixer.positions_held(part) for block, part in zip(self._blocks(), state, strict=True)) if state else 0
        if held + new > context:
            raise UserError(f"network: got a sequence of {held + new} tokens; expected at most its context of {context}")

    def state_bytes(self, context: int) -> int:
        """Bytes carried per row after `context` positions."""
        return sum(block.mixer.state_bytes(context) for block in self._blocks())

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))


def make_blocks(config: config.Stack, dropout: float = 0.0) -> nn.ModuleList:
    """The blocks of a network whose width is known."""
    assert isinstance(config.width, int), "resolve_width comes first"
    return nn.ModuleList(Block(config, config.width, *block, dropout) for block in config.blocks)


def make_norm(name: str, width: int, epsilon: float) -> nn.Module:
    """The normalisation of that name over the last dimension; `epsilon` is added to the variance."""
    if name == "none":
        return nn.Identity()
    return nn.RMSNorm(width, eps=epsilon) if name == "rms" else nn.LayerNorm(width, eps=epsilon)
