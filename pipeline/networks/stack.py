"""The stack of blocks of sequence networks: each block is a mixer and a feed-forward layer.

Notation: B = batch size, T = sequence length, D = width, N = positions with an output.

    each block:   x = [x +] drop(mixer(norm(x)))          residual if `residual`; a short convolution before the mixer
                                                          if `convolution` > 0
                  x = x + drop(feedforward(norm(x)))      if `feedforward` > 0

With `residual: gru` both sums are replaced by gates of x and the layer's output: see `pipeline.networks.residual`.

Blocks listed in `attention` have attention as their mixer, and a feed-forward width of their own.
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from pipeline.config import mixers
from pipeline.config import networks as config
from pipeline.config.catalogue import implementation
from pipeline.mixers.base import Mixer
from pipeline.mixers.short_convolution import ShortConvolution
from pipeline.networks.residual import make_residual
from pipeline.networks.sequential import SequentialMixer
from pipeline.ops.state import State
from pipeline.ops.swiglu import swiglu
from pipeline.storage.errors import UserError


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): y = V (silu(G x) * (U x)); G and U are stored as one matrix."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D) to the same shape."""
        return self.out(swiglu(self.into(x)))


class PlainFeedForward(nn.Sequential):
    """y = V relu(U x + a) + b, initialised orthogonally with gain sqrt 2."""

    def __init__(self, width: int, inner: int) -> None:
        into, out = nn.Linear(width, inner), nn.Linear(inner, width)
        super().__init__(into, nn.ReLU(), out)
        for layer in (into, out):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            nn.init.zeros_(layer.bias)


class Block(nn.Module):
    """A mixer along the sequence, then a feed-forward layer at each position."""

    def __init__(self, config: config.Stack, width: int, mixer: mixers.Mixer, feedforward: float, dropout: float, cells: int) -> None:
        super().__init__()
        inner = max(1, round(feedforward * width)) if feedforward else 0
        self.norm = make_norm(config.norm, width, config.norm_eps)
        self.mixer = make_mixer(mixer, width, cells, config.convolution)
        self.residual = make_residual(config.residual, width, config.gate_gain)
        feedforward_class = GatedFeedForward if config.activation == "swiglu" else PlainFeedForward
        self.feedforward = nn.Sequential(make_norm(config.norm, width, config.norm_eps), feedforward_class(width, inner)) if inner else None
        self.feedforward_residual = make_residual(config.residual or True, width, config.gate_gain) if inner else None
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BTD: Tensor, state: State | None, reset_BT: Tensor | None, length_B: Tensor | None, at_N: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run a whole sequence; with `at_N`, compute everything after the mixer only at those positions and return (N, D)."""
        mixed_BTD, state = self.mixer(self.norm(x_BTD), state, reset_BT, length_B)
        if at_N is None:
            return self._after(x_BTD, mixed_BTD), state
        return self._after(*(every.flatten(0, 1).index_select(0, at_N) for every in (x_BTD, mixed_BTD))), state

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None) -> tuple[Tensor, State]:
        """Run one position."""
        mixed_BD, state = self.mixer.step(self.norm(x_BD), state, active_B)
        return self._after(x_BD, mixed_BD), state

    def _after(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.residual(x, self.dropout(mixed))
        if self.feedforward is None or self.feedforward_residual is None:
            return x
        return self.feedforward_residual(x, self.dropout(self.feedforward(x)))


def make_mixer(config: mixers.Mixer, width: int, cells: int = 0, convolution: int = 0) -> Mixer:
    """Create a mixer. cells: positions of a row, for one whose weights fix them. convolution: kernel size of one before it; 0: none."""
    assert cells or not config.fixed_length, f"{config.name} is made for rows of one length"
    mixer = implementation(config)(config, width, *([cells] if config.fixed_length else []))
    return SequentialMixer(ShortConvolution(mixers.ShortConvolution(kernel_size=convolution), width), mixer) if convolution else mixer


class Stack(nn.Module):
    """Base class of networks built around `blocks`. State: a tuple of the blocks' states."""

    blocks: nn.ModuleList

    def initial_state(self, batch: int) -> State:
        """Return the state before the first position."""
        return tuple(block.mixer.initial_state(batch) for block in self._blocks())

    def mix(
        self, x: Tensor, state: State | None, reset_BT: Tensor | None = None, length_B: Tensor | None = None, at_N: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run x_BTD through all blocks and return the state after it; with `at_N` the last block returns only those positions (N, D)."""
        states, last = [], len(self.blocks) - 1
        for index, (block, before) in enumerate(zip(self._blocks(), state or [None] * len(self.blocks), strict=True)):
            x, after = block(x, before, reset_BT, length_B, at_N if index == last else None)
            states.append(after)
        return x, tuple(states)

    def mix_step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position through all blocks; where active_B is false, the row's state is unchanged."""
        states = []
        for block, before in zip(self._blocks(), state, strict=True):
            x_BD, after = block.step(x_BD, before, active_B)
            states.append(after)
        return x_BD, tuple(states)

    def check_context(self, context: int, state: State | None, new: int) -> None:
        """Raise UserError if the positions stored individually in the state and the new ones together exceed the context."""
        held = max(block.mixer.positions_held(part) for block, part in zip(self._blocks(), state, strict=True)) if state else 0
        if held + new > context:
            raise UserError(f"network: got a sequence of {held + new} tokens; expected at most its context of {context}")

    def state_bytes(self, context: int) -> int:
        """Return the size of the state in bytes per row after `context` positions."""
        return sum(block.mixer.state_bytes(context) for block in self._blocks())

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))


def make_blocks(config: config.Stack, dropout: float = 0.0, cells: int = 0) -> nn.ModuleList:
    """Create the blocks of a network; its width must be resolved. cells: positions of a row, for mixers whose weights fix them."""
    assert isinstance(config.width, int), "resolve_width comes first"
    return nn.ModuleList(Block(config, config.width, *block, dropout, cells) for block in config.blocks)


def make_norm(name: str, width: int, epsilon: float) -> nn.Module:
    """Create the named normalisation layer over the last dimension; `epsilon` is added to the variance."""
    if name == "none":
        return nn.Identity()
    return nn.RMSNorm(width, eps=epsilon) if name == "rms" else nn.LayerNorm(width, eps=epsilon)
