"""A network over tokens: embedding, blocks of mixer and gated feed-forward, a linear head at every position.

Notation: B = batch size, T = sequence length, D = width, C = classes, F = real numbers per token, N = positions that are read out.

    x = E[token] [+ V values]     the numbers where the task has some; E trained or frozen
    the blocks of `pipeline.networks.stack`
    logits = W norm(x) + b        where `tie_embeddings`, W holds the rows of E that stand for classes, and b is zero
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import networks as config
from pipeline.networks.stack import Stack, make_blocks, make_norm
from pipeline.ops.state import State


class SequenceNetwork(Stack):
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
        self.blocks = make_blocks(config, config.dropout)
        self.norm = make_norm(config.final_norm, config.width, config.norm_eps)
        self.head = nn.Linear(config.width, classes) if not config.tie_embeddings else None
        self.answers = slice(first_class, first_class + classes)

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
        self.refuse_beyond(self.context, None if reset_BT is not None else state, tokens_BT.shape[1])
        x, state = self.mix(self._read(tokens_BT, values_BTF), state, reset_BT, length_B, at_N)
        return self._logits(x), state

    def step(self, tokens_B: Tensor, state: State, active_B: Tensor | None = None, values_BF: Tensor | None = None) -> tuple[Tensor, State]:
        """Logits (B, C) after one token more, and the state; where active_B is false a row's state stays as it was.

        Raises UserError where attention would read more tokens than the network's context; what has a state of constant size does not count.
        """
        self.refuse_beyond(self.context, state, 1)
        x_BD, state = self.mix_step(self._read(tokens_B, values_BF), state, active_B)
        return self._logits(x_BD), state

    def random_inputs(self, batch: int, length: int) -> dict[str, Tensor]:
        """Random arguments of `forward`, of shapes (B, T, ...): for measuring its cost."""
        tokens = {"tokens_BT": torch.randint(self.embedding.num_embeddings, (batch, length))}
        return tokens if self.values is None else {**tokens, "values_BTF": torch.rand(batch, length, self.values.in_features)}

    def _read(self, tokens: Tensor, values: Tensor | None) -> Tensor:
        if self.values is None:
            return self.embedding(tokens)
        assert values is not None, "the task's tokens bring real numbers"
        return self.embedding(tokens) + self.values(values)

    def _logits(self, x: Tensor) -> Tensor:
        if self.head is not None:
            return self.head(self.norm(x))
        return functional.linear(self.norm(x), self.embedding.weight[self.answers])


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
        if config.tie_embeddings:
            embedding.weight.div_(math.sqrt(config.width))
    return embedding


def _waves(vocabulary: int, width: int) -> Tensor:
    """Positions of Vaswani et al. 2017, for tokens."""
    channel_D = torch.arange(width, dtype=torch.float64)
    angle_VD = torch.arange(vocabulary, dtype=torch.float64).unsqueeze(1) / 10_000 ** ((channel_D - channel_D % 2) / width)
    return torch.where(channel_D % 2 == 0, angle_VD.sin(), angle_VD.cos()).float()
