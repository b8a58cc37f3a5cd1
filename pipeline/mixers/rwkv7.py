"""Time mixing of RWKV-7 (Peng et al. 2025, "RWKV-7 Goose with expressive dynamic state evolution", arXiv 2503.14456).

Notation: B = batch size, T = sequence length, D = width, H = heads, K = D / H = channels per head, M = 6 = token-shifted inputs, S = state
of a head (K x K); r = receptance (the query), k = key, v = value, w = decay, a = in-context learning rate, g = output gate,
* = elementwise product.

Recurrent form, for every head, z^j_t = x_t + mu_j * (x_{t-1} - x_t) for each stream j of r, w, k, v, a, g:

    r, k, v = W_j z^j                                g = W_g2 sigmoid(W_g1 z^g)
    w = exp(-exp(-1/2) sigmoid(w0 + W_w2 tanh(W_w1 z^w)))                    a = sigmoid(a0 + W_a2 W_a1 z^a)
    e = unit(k * xi)                                 the key that is removed, normalised to length 1
    k' = k * (1 + (a - 1) * alpha)                   the key that is written
    S_t = (diag(w) - (a * e) e^T) S_{t-1} + k' v^T
    y_t = W (g * (norm(S_t^T r) + (r . (rho * k')) v))                       norm with mean, over each head's channels

Parameters have the paper's symbols (w0 is its lambda bias). Parallel form: S by `dplr`, the rest pointwise. The last input is part of the
state. Omitted from the paper's block: mixing each layer's values with those of the first layer, since a mixer only sees its own input, and
channel mixing, which is the network's feed-forward layer. mu, w0, xi, alpha are initialised as in the paper's first layer; matrices have
torch's initialisation, whereas the paper sets some to zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.delta_rule import unit
from pipeline.ops.dplr import dplr, dplr_step
from pipeline.ops.padding import at_end
from pipeline.ops.state import State, where

EPSILON = 64e-5
"""Added to variances by the norm."""
SHIFTS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
"""Exponents p by stream: channel n of D is initialised to mu = 1 - (n / D)^p."""
DECAYS = (-6.5, -1.5, 0.85)
"""(first, last, p): w0 goes from first to last as (n / (D - 1))^p over the channels n: time constants of 1100 to 9 positions."""


class RWKV7State(NamedTuple):
    """S and the last input."""

    matrix_BHKK: Tensor
    last_BD: Tensor


class Projected(NamedTuple):
    """Projections of the inputs, by heads, shape (..., H, K); `removed` is e, `key` is k'."""

    receptance: Tensor
    key: Tensor
    value: Tensor
    removed: Tensor
    rate: Tensor
    log_decay: Tensor
    gate: Tensor

    def of_rule(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v, a, b and log w for `dplr`."""
        return self.receptance, self.key, self.value, self.removed, self.rate * self.removed, self.log_decay


class RWKV7(Mixer):
    """State: RWKV7State."""

    def __init__(self, config: config.Rwkv7, width: int) -> None:
        super().__init__(width)
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.heads, self.channels = config.heads, width // config.heads
        self.shift_MD = nn.Parameter(torch.empty(len(SHIFTS), width))
        self.receptance, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.decay = nn.Sequential(nn.Linear(width, config.low_rank_dim, bias=False), nn.Tanh(), nn.Linear(config.low_rank_dim, width))
        self.rate = nn.Sequential(nn.Linear(width, config.low_rank_dim, bias=False), nn.Linear(config.low_rank_dim, width))
        self.gate = nn.Sequential(
            nn.Linear(width, config.gate_low_rank_dim, bias=False), nn.Sigmoid(), nn.Linear(config.gate_low_rank_dim, width, bias=False)
        )
        self.removed_D = nn.Parameter(torch.full((width,), 0.85))
        self.rated_D = nn.Parameter(torch.ones(width))
        self.bonus_HK = nn.Parameter(torch.zeros(self.heads, self.channels))
        self.scale_HK = nn.Parameter(torch.ones(self.heads, self.channels))
        self.offset_HK = nn.Parameter(torch.zeros(self.heads, self.channels))
        self._initialise()

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        xi, alpha, heads = self.removed_D, self.rated_D, (self.heads, self.channels, 1)
        S, previous, outputs = x_TD.new_zeros(self.heads, self.channels, self.channels), x_TD.new_zeros(self.width), []
        for x in x_TD:
            z_r, z_w, z_k, z_v, z_a, z_g = x + self.shift_MD * (previous - x)
            r, k, v, a, g = self.receptance(z_r), self.key(z_k), self.value(z_v), torch.sigmoid(self.rate(z_a)), self.gate(z_g)
            w = torch.exp(-math.exp(-0.5) * torch.sigmoid(self.decay(z_w)))
            e, k = k * xi, k * (1 + (a - 1) * alpha)
            r, w, e, k, v, a = (part.view(heads) for part in (r, w, e, k, v, a))
            e = unit(e.squeeze(-1)).unsqueeze(-1)
            S = w * S - (a * e) @ (e.mT @ S) + k @ v.mT
            normed = functional.layer_norm((S.mT @ r).squeeze(-1), (self.channels,), eps=EPSILON) * self.scale_HK + self.offset_HK
            bonus = (r * self.bonus_HK.unsqueeze(-1) * k).sum(1) * v.squeeze(-1)
            outputs.append(self.out(g * (normed + bonus).flatten()))
            previous = x
        return torch.stack(outputs)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise mu and w0 by channel, and a close to one half."""
        place_D = torch.arange(self.width, dtype=self.shift_MD.dtype, device=self.shift_MD.device)
        for mu_D, power in zip(self.shift_MD, SHIFTS.values(), strict=True):
            mu_D.copy_(1 - (place_D / self.width) ** power)
        slowest, fastest, power = DECAYS
        self.get_parameter("decay.2.bias").copy_(slowest + (fastest - slowest) * (place_D / (self.width - 1)) ** power)
        self.get_parameter("rate.1.bias").zero_()

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        zeros = self.out.weight.new_zeros
        return RWKV7State(zeros(batch, self.heads, self.channels, self.channels), zeros(batch, self.width))

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        start: RWKV7State = self.initial_state(len(x_BTD)) if state is None else state
        previous_BTD = torch.cat([start.last_BD.unsqueeze(1), x_BTD[:, :-1]], 1)
        if reset_BT is not None:
            previous_BTD = previous_BTD.masked_fill(reset_BT.unsqueeze(-1), 0.0)
        projected = self._projected(x_BTD, previous_BTD)
        y, matrix_BHKK = dplr(*projected.of_rule(), start.matrix_BHKK, reset_BT, length_B)
        return self._read(y, projected), RWKV7State(matrix_BHKK, at_end(x_BTD, length_B, start.last_BD))

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        projected = self._projected(x_BD, state.last_BD)
        y, matrix_BHKK = dplr_step(*projected.of_rule(), state.matrix_BHKK)
        after = RWKV7State(matrix_BHKK, x_BD)
        return self._read(y, projected), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor, previous: Tensor) -> Projected:
        change = previous - x
        of_r, of_w, of_k, of_v, of_a, of_g = (torch.addcmul(x, change, mu_D) for mu_D in self.shift_MD)
        rate, key = torch.sigmoid(self.rate(of_a)), self.key(of_k)
        log_decay = -math.exp(-0.5) * torch.sigmoid(self.decay(of_w))
        removed, written = key * self.removed_D, torch.lerp(key, key * rate, self.rated_D)
        by_heads = (self.receptance(of_r), written, self.value(of_v), removed, rate, log_decay, self.gate(of_g))
        found = Projected(*(part.unflatten(-1, (self.heads, self.channels)) for part in by_heads))
        return found._replace(removed=unit(found.removed))

    def _read(self, y: Tensor, projected: Projected) -> Tensor:
        normed = torch.addcmul(self.offset_HK, functional.layer_norm(y, (self.channels,), eps=EPSILON), self.scale_HK)
        bonus = torch.einsum("...hk,hk->...h", projected.receptance * projected.key, self.bonus_HK).unsqueeze(-1)
        return self.out((projected.gate * torch.addcmul(normed, bonus, projected.value)).flatten(-2))

    def state_bytes(self, context: int) -> int:
        """H K^2 + D numbers, independent of the context."""
        return self.width * (self.channels + 1) * self.out.weight.element_size()
