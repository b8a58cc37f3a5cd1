"""Gated linear attention (Yang et al. 2024, "Gated linear attention transformers with hardware-efficient training", arXiv 2312.06635).

Notation: B = batch size, T = sequence length, D = width, H = heads, K = D / 2 H = channels of a key, V = D / H = channels of a value,
S = state of a head (K x V); q, k, v = query, key and value, α = decay of each channel of the key, r = output gate.

Recurrent form, for every head:

    α_t = sigmoid(W_2 W_1 x_t + b)^(1 / 16)        of rank `gate_low_rank_dim`
    S_t = diag(α_t) S_{t-1} + k_t v_t^T
    y_t = W (silu(r_t) * norm(S_t^T q_t))          norm over each head's V channels

Parallel form: `linear_scan`. The paper's scale of q is omitted, since the norm cancels it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.linear_scan import linear_scan, linear_step
from pipeline.ops.state import State, where

EPSILON = 1e-5
"""Added to variances by the norm."""
TEMPERATURE = 16
"""Temperature τ of the gate: for zero input α is 0.96, a time constant of 23 positions."""


class GatedLinearAttention(Mixer):
    """State: S_BHKV."""

    def __init__(self, config: config.GatedLinearAttention, width: int) -> None:
        super().__init__(width)
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.heads, keys = config.heads, width // 2
        self.sizes = [keys, keys, width, width]
        self.project = nn.Linear(width, sum(self.sizes), bias=False)
        self.decay = nn.Sequential(nn.Linear(width, config.gate_low_rank_dim, bias=False), nn.Linear(config.gate_low_rank_dim, keys))
        self.norm = nn.RMSNorm(width // config.heads, eps=EPSILON)
        self.out = nn.Linear(width, width, bias=False)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        S, outputs = self.initial_state(1)[0], []
        for x in x_TD:
            q, k, v, r = self.project(x).split(self.sizes)
            a = torch.sigmoid(self.decay(x)) ** (1 / TEMPERATURE)
            q, k, v, a = (part.view(self.heads, -1, 1) for part in (q, k, v, a))
            S = a * S + k @ v.mT
            outputs.append(self.out(functional.silu(r) * self.norm((S.mT @ q).squeeze(-1)).flatten()))
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        channels = self.width // self.heads
        return self.out.weight.new_zeros(batch, self.heads, channels // 2, channels)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        q, k, v, log_decay, gate_BTD = self._projected(x_BTD)
        start = self.initial_state(len(x_BTD)) if state is None else state
        y, after = linear_scan(q, k, v, log_decay, start, reset_BT, length_B)
        return self._read(y, gate_BTD), after

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        q, k, v, log_decay, gate_BD = self._projected(x_BD)
        y, after = linear_step(q, k, v, log_decay, state)
        return self._read(y, gate_BD), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v and log α by heads, shape (..., H, K) or (..., H, V), and the output gate before activation, shape of x."""
        q, k, v, gate = self.project(x).split(self.sizes, -1)
        log_decay = functional.logsigmoid(self.decay(x)) / TEMPERATURE
        q, k, v, log_decay = (part.unflatten(-1, (self.heads, -1)) for part in (q, k, v, log_decay))
        return q, k, v, log_decay, gate

    def _read(self, y: Tensor, gate: Tensor) -> Tensor:
        return self.out(functional.silu(gate) * self.norm(y).flatten(-2))

    def state_bytes(self, context: int) -> int:
        """H K V numbers, independent of the context."""
        return self.width * (self.width // (2 * self.heads)) * self.out.weight.element_size()
