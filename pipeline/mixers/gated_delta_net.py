"""Gated DeltaNet (Yang et al. 2025, "Gated delta networks: improving Mamba2 with delta rule", arXiv 2412.06464).

Notation: B = batch size, T = sequence length, D = width, H = heads, K = D / H = channels per head, S = state of a head (K x K);
q, k, v = query, key and value, β = write strength, α = decay per head, r = output gate.

Recurrent form, for every head:

    q_t, k_t, v_t = silu(W_q x_t), unit(silu(W_k x_t)), silu(W_v x_t)      unit: normalised to length 1
    β_t = sigmoid(w_β . x_t), twice that with `allow_neg_eigval`
    α_t = exp(-A softplus(w_α . x_t + b_Δ))                  A > 0 and b_Δ as in Mamba-2 (Dao & Gu 2024)
    S_t = α_t (I - β_t k_t k_t^T) S_{t-1} + β_t k_t v_t^T
    y_t = W (silu(r_t) * norm(S_t^T q_t))                    norm over each head's channels

The delta rule overwrites one key at a time; the decay clears the whole state. Parallel form: `delta_rule`. Omitted from the
paper's layer: short convolutions before q, k and v, the normalisation of q, whose length the output norm cancels, and values wider than keys.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.delta_rule import delta_rule, delta_step, unit
from pipeline.ops.state import State, where

EPSILON = 1e-5
"""Added to variances by the norm."""
LARGEST_RATE = 16.0
"""A is initialised uniformly in [1, LARGEST_RATE]."""
STEP_SIZES = (0.001, 0.1)
"""softplus(b_Δ) is initialised log-uniformly in this range: with A, time constants from below one position to a thousand."""


class GatedDeltaNet(Mixer):
    """State: S_BHKK."""

    def __init__(self, config: config.GatedDeltaNet, width: int) -> None:
        super().__init__(width)
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.heads, self.channels = config.heads, width // config.heads
        self.strongest = 2 if config.allow_neg_eigval else 1
        self.project = nn.Linear(width, 4 * width, bias=False)
        self.gates = nn.Linear(width, 2 * config.heads, bias=False)
        self.log_rate_H = nn.Parameter(torch.empty(config.heads))
        self.bias_H = nn.Parameter(torch.empty(config.heads))
        self.norm = nn.RMSNorm(self.channels, eps=EPSILON)
        self.out = nn.Linear(width, width, bias=False)
        self._initialise()

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        S, outputs = self.initial_state(1)[0], []
        for x in x_TD:
            q, k, v, r = functional.silu(self.project(x)).view(4, self.heads, self.channels)
            q, k, v = q.unsqueeze(-1), unit(k).unsqueeze(-1), v.unsqueeze(-1)
            strength, rate = self.gates(x).view(2, -1, 1, 1)
            beta = self.strongest * torch.sigmoid(strength)
            alpha = torch.exp(-torch.exp(self.log_rate_H.view(-1, 1, 1)) * functional.softplus(rate + self.bias_H.view(-1, 1, 1)))
            S = alpha * (S - beta * k @ (k.mT @ S)) + beta * k @ v.mT
            outputs.append(self.out((r * self.norm((S.mT @ q).squeeze(-1))).flatten()))
        return torch.stack(outputs)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise A and b_Δ as in Mamba-2; sampled on the CPU for any device."""
        self.log_rate_H.copy_(torch.empty(self.heads, device="cpu").uniform_(1, LARGEST_RATE).log())
        smallest, largest = (math.log(size) for size in STEP_SIZES)
        size_H = torch.empty(self.heads, device="cpu").uniform_(smallest, largest).exp()
        self.bias_H.copy_(size_H + torch.log(-torch.expm1(-size_H)))

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return self.out.weight.new_zeros(batch, self.heads, self.channels, self.channels)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        q, k, v, strength, log_decay, gate_BTHK = self._projected(x_BTD)
        start = self.initial_state(len(x_BTD)) if state is None else state
        y, after = delta_rule(q, k, v, strength, log_decay, start, reset_BT, length_B)
        return self._read(y, gate_BTHK), after

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        q, k, v, strength, log_decay, gate_BHK = self._projected(x_BD)
        y, after = delta_step(q, k, v, strength, log_decay, state)
        return self._read(y, gate_BHK), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v, β, log α and the output gate by heads."""
        q, k, v, gate = functional.silu(self.project(x)).unflatten(-1, (4, self.heads, self.channels)).unbind(-3)
        strength, rate = self.gates(x).chunk(2, -1)
        log_decay = -self.log_rate_H.exp() * functional.softplus(rate + self.bias_H)
        return q, unit(k), v, self.strongest * torch.sigmoid(strength), log_decay, gate

    def _read(self, y: Tensor, gate: Tensor) -> Tensor:
        return self.out((gate * self.norm(y)).flatten(-2))

    def state_bytes(self, context: int) -> int:
        """H K^2 numbers, independent of the context."""
        return self.width * self.channels * self.out.weight.element_size()
