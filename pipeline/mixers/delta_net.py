"""DeltaNet (Yang et al. 2024, "Parallelizing linear transformers with the delta rule over sequence length", arXiv 2406.06484).

Notation: B = batch size, T = sequence length, D = width, H = heads, K = D / H = channels per head, S = state of a head (K x K);
q, k, v = query, key and value, β = write strength.

Recurrent form, for every head:

    q_t, k_t, v_t = silu(W_q x_t), unit(silu(W_k x_t)), silu(W_v x_t)      unit: normalised to length 1
    β_t = sigmoid(w_β . x_t), twice that with `allow_neg_eigval`
    S_t = (I - β_t k_t k_t^T) S_{t-1} + β_t k_t v_t^T
    y_t = W norm(S_t^T q_t)                                  norm over each head's channels

The eigenvalues of I - β k k^T are 1 and 1 - β: negative for β > 1, which parity needs (Grazzi et al. 2025, "Unlocking
state-tracking in linear RNNs through negative eigenvalues", arXiv 2411.12537). Parallel form: `delta_rule`. The paper's short
convolutions before q, k and v are omitted, and q is not normalised, since the output norm cancels its length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.delta_rule import delta_rule, delta_step, unit
from pipeline.ops.state import State, where

EPSILON = 1e-5
"""Added to variances by the norm."""


class DeltaNet(Mixer):
    """State: S_BHKK."""

    def __init__(self, config: config.DeltaNet, width: int) -> None:
        super().__init__(width)
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.heads, self.channels = config.heads, width // config.heads
        self.strongest = 2 if config.allow_neg_eigval else 1
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.strength = nn.Linear(width, config.heads, bias=False)
        self.norm = nn.RMSNorm(self.channels, eps=EPSILON)
        self.out = nn.Linear(width, width, bias=False)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        S, outputs = self.initial_state(1)[0], []
        for x in x_TD:
            q, k, v = functional.silu(self.project(x)).view(3, self.heads, self.channels)
            q, k, v = q.unsqueeze(-1), unit(k).unsqueeze(-1), v.unsqueeze(-1)
            beta = self.strongest * torch.sigmoid(self.strength(x)).view(-1, 1, 1)
            S = S - beta * k @ (k.mT @ S) + beta * k @ v.mT
            outputs.append(self.out(self.norm((S.mT @ q).squeeze(-1)).flatten()))
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return self.out.weight.new_zeros(batch, self.heads, self.channels, self.channels)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        start = self.initial_state(len(x_BTD)) if state is None else state
        y, after = delta_rule(*self._projected(x_BTD), None, start, reset_BT, length_B)
        return self.out(self.norm(y).flatten(-2)), after

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        y, after = delta_step(*self._projected(x_BD), None, state)
        return self.out(self.norm(y).flatten(-2)), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v and β by heads."""
        q, k, v = functional.silu(self.project(x)).unflatten(-1, (3, self.heads, self.channels)).unbind(-3)
        return q, unit(k), v, self.strongest * torch.sigmoid(self.strength(x))

    def state_bytes(self, context: int) -> int:
        """H K^2 numbers, independent of the context."""
        return self.width * self.channels * self.out.weight.element_size()
