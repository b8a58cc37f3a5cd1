"""A network over tokens: embedding, blocks of mixer and gated feed-forward, a linear head at every position.

Letters: B batch, T time, D width, C classes, F real numbers that each token brings, N positions that are read out.

    x = E[token] [+ V values]     the numbers where the task has some; E trained or frozen
    each block:   x = [x +] drop(mixer(norm(x)))          the addition where `residual`; a short convolution before the mixer
                                                          where `convolution` > 0
                  x = x + drop(feedforward(norm(x)))      where `feedforward` > 0
    logits = W norm(x) + b        where `tied`, W holds the rows of E that stand for classes, and b is zero

Blocks that `attention` names have attention as their mixer and a feed-forward layer of their own width.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers
from pipeline.config import networks as config
from pipeline.config.catalogue import implementation
from pipeline.mixers.base import Mixer
from pipeline.mixers.chain import Chain
from pipeline.mixers.short_convolution import ShortConvolution
from pipeline.mixers.state import State
from pipeline.storage.errors import UserError

EPSILON = 1e-5
"""Added to variances by every normalisation."""


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


class Block(nn.Module):
    """A mixer along the sequence, then a feed-forward layer at each position."""

    def __init__(self, config: config.SequenceNetwork, width: int, mixer: mixers.Mixer, feedforward: float) -> None:
        super().__init__()
        inner = max(1, round(feedforward * width)) if feedforward else 0
        self.residual = config.residual
        self.norm = make_norm(config.norm, width)
        self.mixer = _mixer(mixer, config.convolution, width)
        self.feedforward = nn.Sequential(make_norm(config.norm, width), GatedFeedForward(width, inner)) if inner else None
        self.dropout = nn.Dropout(config.dropout)

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
        mixed = self.dropout(mixed)
        x = x + mixed if self.residual else mixed
        return x if self.feedforward is None else x + self.dropout(self.feedforward(x))


def _mixer(config: mixers.Mixer, convolution: int, width: int) -> Mixer:
    mixer = implementation(config)(config, width)
    return Chain(ShortConvolution(mixers.ShortConvolution(kernel=convolution), width), mixer) if convolution else mixer


class SequenceNetwork(nn.Module):
    """Logits over `classes` at every position of sequences over `vocabulary` tokens, each with `features` real numbers.

    Class c is token `first_class` + c, for networks with tied weights.
    The one logit of one class serves as a real answer. The state is a tuple with each block's.
    """

    def __init__(self, config: config.SequenceNetwork, vocabulary: int, classes: int, features: int = 0, first_class: int = 0) -> None:
        super().__init__()
        assert isinstance(config.width, int), "resolve_width comes first"
        self.context = config.context
        self.embedding = make_embedding(config, vocabulary)
        self.values = nn.Linear(features, config.width, bias=False) if features else None
        self.blocks = nn.ModuleList(Block(config, config.width, *block) for block in config.blocks)
        self.norm = make_norm(config.final_norm, config.width)
        self.head = nn.Linear(config.width, classes) if not config.tied else None
        self.answers = slice(first_class, first_class + classes)

    def initial_state(self, batch: int) -> State:
        """The state before the first token."""
        return tuple(block.mixer.initial_state(batch) for block in self._blocks())

    def forward(
        self,
        tokens_BT: Tensor,
        state: State | None = None,
        reset_BT: Tensor | None = None,
        length_B: Tensor | None = None,
        at_N: Tensor | None = None,
        values_BTF: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Logits (B, T, C) and the state after the sequence; reset_BT and length_B as in `Mixer.forward`.

        With `at_N`, numbers b T + t of positions, logits (N, C) of those alone: the last feed-forward and the head cost nothing elsewhere.
        Raises UserError for more tokens than the network's context.
        """
        if tokens_BT.shape[1] > self.context:
            raise UserError(f"network: got a sequence of {tokens_BT.shape[1]} tokens; expected at most its context of {self.context}")
        x, states, last = self._read(tokens_BT, values_BTF), [], len(self.blocks) - 1
        for index, (block, before) in enumerate(zip(self._blocks(), state or [None] * len(self.blocks), strict=True)):
            x, after = block(x, before, reset_BT, length_B, at_N if index == last else None)
            states.append(after)
        return self._logits(x), tuple(states)

    def step(self, tokens_B: Tensor, state: State, active_B: Tensor | None = None, values_BF: Tensor | None = None) -> tuple[Tensor, State]:
        """Logits (B, C) after one token more, and the state; where active_B is false a row's state stays as it was."""
        x_BD, states = self._read(tokens_B, values_BF), []
        for block, before in zip(self._blocks(), state, strict=True):
            x_BD, after = block.step(x_BD, before, active_B)
            states.append(after)
        return self._logits(x_BD), tuple(states)

    def state_bytes(self, context: int) -> int:
        """Bytes carried per row after `context` tokens."""
        return sum(block.mixer.state_bytes(context) for block in self._blocks())

    def _read(self, tokens: Tensor, values: Tensor | None) -> Tensor:
        if self.values is None:
            return self.embedding(tokens)
        assert values is not None, "the task's tokens bring real numbers"
        return self.embedding(tokens) + self.values(values)

    def _logits(self, x: Tensor) -> Tensor:
        if self.head is not None:
            return self.head(self.norm(x))
        return functional.linear(self.norm(x), self.embedding.weight[self.answers])

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))


def make_embedding(config: config.SequenceNetwork, vocabulary: int) -> nn.Embedding:
    """Vectors of tokens with channels of standard deviation one, or of length one where the head has the same.

    sinusoid: channel j of token i is sin(i / 10000^(j / D)) where j is even, else cos(i / 10000^((j - 1) / D)), whatever the head.
    orthogonal: as far as the width goes; of more tokens than channels, the channels are.
    """
    assert isinstance(config.width, int)
    embedding = nn.Embedding(vocabulary, config.width)
    embedding.weight.requires_grad_(config.embedding == "learned")
    with torch.no_grad():
        if config.embedding == "sinusoid":
            embedding.weight.copy_(_waves(vocabulary, config.width))
            return embedding
        if config.embedding == "orthogonal":
            embedding.weight.copy_(functional.normalize(nn.init.orthogonal_(embedding.weight)) * math.sqrt(config.width))
        if config.tied:
            embedding.weight.div_(math.sqrt(config.width))
    return embedding


def _waves(vocabulary: int, width: int) -> Tensor:
    """Positions of Vaswani et al. 2017, for tokens."""
    channel_D = torch.arange(width, dtype=torch.float64)
    angle_VD = torch.arange(vocabulary, dtype=torch.float64).unsqueeze(1) / 10_000 ** ((channel_D - channel_D % 2) / width)
    return torch.where(channel_D % 2 == 0, angle_VD.sin(), angle_VD.cos()).float()


def make_norm(name: str, width: int) -> nn.Module:
    """The normalisation of that name over the last dimension."""
    if name == "none":
        return nn.Identity()
    return nn.RMSNorm(width, eps=EPSILON) if name == "rms" else nn.LayerNorm(width, eps=EPSILON)
