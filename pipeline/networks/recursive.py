"""Recursive network: one small network refines latent states of all cells, and every supervision step answers anew.

Notation: B = batch size, T = cells, E = registers, P = E + T positions, D = width, C = classes, N = positions with an output.

    x = sqrt(D) [registers, E[token]]                 the first register holds the row's identifier, the others are zero
    f(z, x):  h = z + x;  each block: h = R(h + mixer(h)), h = R(h + feedforward(h));  R(v) = v / sqrt(mean(v^2) + eps)
    a supervision step, `outer` times:
        z_i <- f(z_i, y + x + other z)                `inner` times, over the reasoning latents z_1, z_2, ... in turn
        y   <- f(y, z_1 + z_2 + ...)
    logits = W y,  q = V y_0 + b                      y_0: the first register, or the mean over cells; b = -5, V = 0 at first

f is one network for all latents, or one for y and one for z with `separate`. With one latent, all inner + 1 updates are y <- f(y, x).
Gradients pass through the last cycles only, as many as the caller says; 0: through the last update of z and that of y, as in HRM.
With `damping` a, every update is z <- a z + (1 - a) f.
R has no gain and normalises over channels; after `token_mixing` it normalises over positions, as published.

Sources: Jolicoeur-Martineau 2025, "Less is more: recursive reasoning with tiny networks" (TRM); two networks: Wang et al. 2025,
"Hierarchical reasoning model" (HRM). The letters y and z are z_H and z_L in their code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import networks as config
from pipeline.networks.sequence import make_identifiers
from pipeline.networks.stack import make_mixer
from pipeline.ops.init import lecun_normal_
from pipeline.ops.rms_norm import rms_norm_
from pipeline.ops.swiglu import swiglu
from pipeline.storage.errors import UserError

HALT, CONTINUE = 0, 1
"""The halting logits in `Carry.q_B2`."""
INITIAL_Q = -5.0
"""Initial bias of the halting logits: no row halts before the head has learned."""


class Carry(NamedTuple):
    """The state between supervision steps: latents (B, P, D), the answer's first, and the halting logits of the last step."""

    latents: tuple[Tensor, ...]
    q_B2: Tensor


class FeedForward(nn.Module):
    """SwiGLU with options: y = V c(n(silu(G h) * (U h))), with a normalisation n and a convolution c of the gated channels."""

    def __init__(self, config: config.RecursiveNetwork, width: int) -> None:
        super().__init__()
        inner, self.eps, size = max(1, round(config.feedforward * width)), config.norm_eps, config.gate_convolution
        self.into, self.out = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.normalised = config.gate_norm
        self.convolution = nn.Conv1d(inner, inner, size, padding=size // 2, groups=inner) if size else None
        lecun_normal_(self.into.weight)
        lecun_normal_(self.out.weight)

    def forward(self, h_BPD: Tensor) -> Tensor:
        """Map h to the same shape."""
        gated = swiglu(self.into(h_BPD))
        if self.normalised:
            gated = rms_norm_(gated, self.eps)
        if self.convolution is not None:
            gated = functional.silu(self.convolution(gated.mT)[..., : gated.shape[1]].mT)
        return self.out(gated)


class Block(nn.Module):
    """A mixer over the positions, then a feed-forward layer, each followed by its residual and a normalisation."""

    def __init__(self, config: config.RecursiveNetwork, width: int, cells: int) -> None:
        super().__init__()
        self.mixer = make_mixer(config.mixer, width, cells)
        self.feedforward = FeedForward(config, width) if config.feedforward else None
        self.axis, self.eps = (1 if config.mixer.fixed_length else -1), config.norm_eps

    def forward(self, h_BPD: Tensor) -> Tensor:
        """Map h to the same shape."""
        h_BPD = rms_norm_(h_BPD + self.mixer(h_BPD)[0], self.eps, self.axis)
        return h_BPD if self.feedforward is None else rms_norm_(h_BPD + self.feedforward(h_BPD), self.eps)


class RecursiveNetwork(nn.Module):
    """Logits over `classes` at every cell, and whether to halt; one call is one supervision step. State: a `Carry`."""

    def __init__(
        self,
        config: config.RecursiveNetwork,
        vocabulary: int,
        classes: int,
        cells: int = 0,
        features: int = 0,
        first_class: int = 0,
        identifiers: int = 0,
    ) -> None:
        super().__init__()
        width = config.width
        assert isinstance(width, int), "resolve_width comes first"
        if features or first_class:
            raise UserError("network: recursive reads tokens and answers with the classes 0, 1, ...; expected a task without real numbers")
        self.width, self.settings, self.context = width, config, config.context
        self.embedding = nn.Embedding(vocabulary, width)
        self.identifiers = make_identifiers(identifiers, width)
        positions = cells + config.registers
        networks = 2 if config.separate else 1
        self.blocks = nn.ModuleList(nn.Sequential(*(Block(config, width, positions) for _ in range(config.depth))) for _ in range(networks))
        self.head = nn.Linear(width, classes, bias=False)
        self.q_head = nn.Linear(width, 2)
        self.register_buffer("start_KLD", _starts(config, width) if config.start == "fixed" else None)
        lecun_normal_(self.embedding.weight, width)
        lecun_normal_(self.head.weight)
        nn.init.zeros_(self.q_head.weight)
        nn.init.constant_(self.q_head.bias, INITIAL_Q)

    def forward(
        self,
        tokens_BT: Tensor,
        state: Carry | None = None,
        length_B: Tensor | None = None,
        at_N: Tensor | None = None,
        identifier_B: Tensor | None = None,
        gradient: int = 1,
        outer: int | None = None,
    ) -> tuple[Tensor, Carry]:
        """Take one supervision step; return logits (B, T, C), or (N, C) at the flat indices at_N, and the new state.

        gradient: last cycles through which gradients pass; 0: the last two updates. outer: cycles, by default the config's.
        length_B: all rows fill the batch.
        Raises UserError for more cells than the network's context.
        """
        if tokens_BT.shape[1] > self.context:
            raise UserError(f"network: got a row of {tokens_BT.shape[1]} tokens; expected at most its context of {self.context}")
        latents = (self.fresh(len(tokens_BT), tokens_BT.shape[1]) if state is None else state).latents
        cycles = self.settings.outer if outer is None else outer
        x_BPD = self._read(tokens_BT, identifier_B)
        constant = (cycles - gradient) * (self.settings.inner + 1) if gradient else cycles * (self.settings.inner + 1) - 2
        for update in range(cycles * (self.settings.inner + 1)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and update >= constant):
                latents = self._updated(latents, x_BPD, update)
        y_BTD = latents[0][:, self.settings.registers :]
        y_BD = latents[0][:, 0] if self.settings.registers else y_BTD.mean(1)
        at = y_BTD if at_N is None else y_BTD.flatten(0, 1).index_select(0, at_N)
        return self.head(at), Carry(latents, self.q_head(y_BD))

    def fresh(self, rows: int, cells: int, attempt: int = 0, generator: torch.Generator | None = None) -> Carry:
        """Return the state before the first step. attempt: which of the `starts`. generator: of random starts, by default the global one."""
        like, shape = self.head.weight, (rows, self.settings.registers + cells, self.width)
        latents: list[Tensor] = []
        for latent in range(self.settings.latents):
            if self.settings.start == "zeros":
                latents.append(like.new_zeros(shape))
            elif self.settings.start == "random":
                place = like.device if generator is None else generator.device
                latents.append(torch.randn(shape, generator=generator, device=place, dtype=like.dtype).to(like.device))
            else:
                start_KLD = self.start_KLD
                assert isinstance(start_KLD, Tensor)
                latents.append(start_KLD[attempt % len(start_KLD), latent].expand(shape))
        return Carry(tuple(latents), like.new_full((rows, 2), INITIAL_Q))

    def random_inputs(self, batch: int, length: int) -> dict[str, Tensor]:
        """Return random arguments of `forward`, of shapes (B, T) and (B,), to measure its cost."""
        inputs = {"tokens_BT": torch.randint(self.embedding.num_embeddings, (batch, length))}
        if self.identifiers is not None:
            inputs["identifier_B"] = torch.randint(self.identifiers.num_embeddings, (batch,))
        return inputs

    def state_bytes(self, context: int) -> int:
        """Return the bytes carried per row between supervision steps, with `context` cells."""
        numbers = self.settings.latents * (self.settings.registers + context) * self.width + 2
        return numbers * self.head.weight.element_size()

    def _read(self, tokens_BT: Tensor, identifier_B: Tensor | None) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        registers = self.settings.registers
        if registers:
            x_BTD = functional.pad(x_BTD, (0, 0, registers, 0))
        if self.identifiers is not None:
            assert identifier_B is not None, "the task's rows have identifiers"
            id_B1D = self.identifiers(identifier_B).unsqueeze(1)
            x_BTD = x_BTD + (functional.pad(id_B1D, (0, 0, 0, x_BTD.shape[1] - 1)) if registers else id_B1D)
        return math.sqrt(self.width) * x_BTD

    def _updated(self, latents: tuple[Tensor, ...], x_BPD: Tensor, update: int) -> tuple[Tensor, ...]:
        """Take an update of a supervision step, numbered from 0: of the reasoning latents in turn, then of the answer."""
        y, *z = latents
        turn = update % (self.settings.inner + 1)
        if not z:
            return (self._refined(0, y, x_BPD),)
        if turn == self.settings.inner:
            return self._refined(0, y, sum(z[1:], z[0])), *z
        place = turn % len(z)
        others = sum((one for at, one in enumerate(z) if at != place), y + x_BPD)
        z[place] = self._refined(-1, z[place], others)
        return y, *z

    def _refined(self, network: int, latent: Tensor, injected: Tensor) -> Tensor:
        """Apply a network, 0 the answer's and -1 that of the reasoning latents, to one latent."""
        h, kept = self.blocks[network](latent + injected), self.settings.damping
        return torch.lerp(h, latent, kept) if kept else h


def perturb(state: Carry, std: float) -> Carry:
    """Add Gaussian noise from the global generator to every latent."""
    return state._replace(latents=tuple(latent + std * torch.randn_like(latent) for latent in state.latents)) if std else state


def _starts(config: config.RecursiveNetwork, width: int) -> Tensor:
    """Return the fixed starts, of shape (starts, latents, D): normal, truncated at two standard deviations."""
    return lecun_normal_(torch.empty(config.starts, config.latents, width), 1)
