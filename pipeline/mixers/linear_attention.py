"""Linear attention (Katharopoulos et al. 2020, "Transformers are RNNs", arXiv 2006.16236).

Notation: B = batch size, T = sequence length, D = width, H = heads, K = D / H = channels of a key, V = K + 1 = channels of a value and
the normaliser, S = state of a head (K x V); q, k, v = query, key and value.

Recurrent form, for every head, phi(x) = elu(x) + 1 > 0:

    S_t = S_{t-1} + phi(k_t) v_t^T
    z_t = z_{t-1} + phi(k_t)
    y_t = W (S_t^T phi(q_t) / z_t . phi(q_t))

With a last channel of ones in v, z is the last column of S. Parallel form: `linear_scan`. There is no position encoding or decay: all
positions have equal weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.feature_maps import elu_plus_one
from pipeline.ops.linear_scan import linear_scan, linear_step
from pipeline.ops.state import State, where

EPSILON = 1e-6
"""Added to the normaliser, so that the output is zero before anything is written."""


class LinearAttention(Mixer):
    """State: S_BHKV, with the normaliser as its last column."""

    def __init__(self, config: config.LinearAttention, width: int) -> None:
        super().__init__(width)
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.heads, self.channels = config.heads, width // config.heads
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        S, z, outputs = *x_TD.new_zeros(self.heads, self.channels, self.channels + 1).split([self.channels, 1], -1), []
        for x in x_TD:
            q, k, v = self.project(x).view(3, self.heads, self.channels, 1)
            phi_q, phi_k = functional.elu(q) + 1, functional.elu(k) + 1
            S, z = S + phi_k @ v.mT, z + phi_k
            outputs.append(self.out((S.mT @ phi_q / (z.mT @ phi_q + EPSILON)).flatten()))
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return self.out.weight.new_zeros(batch, self.heads, self.channels, self.channels + 1)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        start = self.initial_state(len(x_BTD)) if state is None else state
        y, after = linear_scan(*self._projected(x_BTD), None, start, reset_BT, length_B)
        return self._read(y), after

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        y, after = linear_step(*self._projected(x_BD), None, state)
        return self._read(y), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return phi(q), phi(k), and v with a last channel of ones, by heads."""
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, self.channels)).unbind(-3)
        return elu_plus_one(q), elu_plus_one(k), functional.pad(v, (0, 1), value=1.0)

    def _read(self, y: Tensor) -> Tensor:
        return self.out((y[..., :-1] / (y[..., -1:] + EPSILON)).flatten(-2))

    def state_bytes(self, context: int) -> int:
        """H K V numbers, independent of the context."""
        return self.width * (self.channels + 1) * self.out.weight.element_size()
