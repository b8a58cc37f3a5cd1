"""Sequence network over tokens: embedding, blocks of mixer and gated feed-forward layer, a linear head at every position.

Notation: B = batch size, T = sequence length, D = width, C = classes, F = real numbers per token, N = positions with an output.

    x = E[token] [+ V values] [+ R[identifier]]
                                  V only if the task has real numbers, R only if its rows have identifiers; E trained or frozen
    the blocks of `pipeline.networks.stack`
    logits = W norm(x) + b        with `tie_embeddings`, W is the rows of E of the classes, and b is zero
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
    With a single class, its logit is a real-valued answer. `cells`: positions of a row, for mixers whose weights fix them. `identifiers`:
    how many identifiers rows may have; 0: they have none. State: a tuple of the blocks' states.
    """

    def __init__(
        self,
        config: config.SequenceNetwork,
        vocabulary: int,
        classes: int,
        features: int = 0,
        first_class: int = 0,
        cells: int = 0,
        identifiers: int = 0,
    ) -> None:
        super().__init__()
        assert isinstance(config.width, int), "resolve_width comes first"
        self.context = config.context
        self.embedding = make_embedding(config, vocabulary)
        self.values = nn.Linear(features, config.width, bias=False) if features else None
        self.identifiers = make_identifiers(identifiers, config.width)
        self.blocks = make_blocks(config, config.dropout, cells)
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
        identifier_B: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Return logits (B, T, C) and the state after the sequence; reset_BT and length_B as in `Mixer.forward`.

        With `at_N`, flat indices b T + t, return only the logits (N, C) at those positions: the last feed-forward layer and the head skip the
        others. Raises UserError for more tokens than the network's context.
        """
        self.check_context(self.context, None if reset_BT is not None else state, tokens_BT.shape[1])
        x, state = self.mix(self._read(tokens_BT, values_BTF, identifier_B), state, reset_BT, length_B, at_N)
        return self._logits(x), state

    def step(
        self,
        tokens_B: Tensor,
        state: State,
        active_B: Tensor | None = None,
        values_BF: Tensor | None = None,
        identifier_B: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Return logits (B, C) after one more token, and the new state; where active_B is false, the row's state is unchanged.

        Raises UserError if attention would read more tokens than the network's context; mixers with a state of constant size have no limit.
        """
        self.check_context(self.context, state, 1)
        x_BD, state = self.mix_step(self._read(tokens_B, values_BF, identifier_B), state, active_B)
        return self._logits(x_BD), state

    def random_inputs(self, batch: int, length: int) -> dict[str, Tensor]:
        """Return random arguments of `forward`, of shapes (B, T, ...) or, an identifier of each row, (B), to measure its cost."""
        inputs = {"tokens_BT": torch.randint(self.embedding.num_embeddings, (batch, length))}
        if self.values is not None:
            inputs["values_BTF"] = torch.rand(batch, length, self.values.in_features)
        if self.identifiers is not None:
            inputs["identifier_B"] = torch.randint(self.identifiers.num_embeddings, (batch,))
        return inputs

    def _read(self, tokens: Tensor, values: Tensor | None, identifier_B: Tensor | None) -> Tensor:
        x = self.embedding(tokens)
        if self.values is not None:
            assert values is not None, "the task's tokens have real numbers"
            x = x + self.values(values)
        if self.identifiers is not None:
            assert identifier_B is not None, "the task's rows have identifiers"
            row_BD = self.identifiers(identifier_B)
            x = x + (row_BD.unsqueeze(1) if tokens.dim() == 2 else row_BD)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        if self.head is not None:
            return self.head(self.norm(x))
        return functional.linear(self.norm(x), self.embedding.weight[self.answers])


def make_embedding(config: config.SequenceNetwork, vocabulary: int) -> nn.Embedding:
    """Create the token embedding: channels with standard deviation one, or vectors of length one if tied to the head.

    sinusoid: channel j of token i is sin(i / 10000^(j / D)) for even j, else cos(i / 10000^((j - 1) / D)), tied or not.
    orthogonal: token vectors are orthogonal; with more tokens than channels, the channels are.
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


def make_identifiers(identifiers: int, width: int) -> nn.Embedding | None:
    """Create the embedding of the rows' identifiers, zero at first, so that an identifier without training rows changes nothing; None for 0."""
    if not identifiers:
        return None
    embedding = nn.Embedding(identifiers, width, sparse=True)
    nn.init.zeros_(embedding.weight)
    return embedding


def _waves(vocabulary: int, width: int) -> Tensor:
    """Return the sinusoidal position embedding of Vaswani et al. 2017, indexed by token."""
    channel_D = torch.arange(width, dtype=torch.float64)
    angle_VD = torch.arange(vocabulary, dtype=torch.float64).unsqueeze(1) / 10_000 ** ((channel_D - channel_D % 2) / width)
    return torch.where(channel_D % 2 == 0, angle_VD.sin(), angle_VD.cos()).float()
