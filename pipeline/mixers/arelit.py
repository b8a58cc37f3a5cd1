"""AReLiT, later named AGaLiTe (Pramanik et al. 2023, "Recurrent linear transformers", arXiv 2310.15719): no matrix state.

Notation: B = batch size, T = sequence length, D = width, H = heads, E = channels per head, N = scales (`eta`), K = N E = features of a
key, R = oscillators (`r`); q, k, v = query, key and value, (x) = outer product flattened to a vector, * = elementwise product.

The recurrence that is approximated, for every head:

    k_t, q_t = relu(.) (x) relu(.)                  b_t = sigmoid(.), E channels        c_t = sigmoid(.) (x) sigmoid(.), K features
    C_t = (1 - b_t)(1 - c_t)^T * C_{t-1} + (b_t * v_t)(c_t * k_t)^T
    y_t = W (C_t q_t / (z_t . q_t + epsilon)) + bias        z_t = (1 - c_t) * z_{t-1} + c_t * k_t

Since its decay is an outer product too, C is a sum over past positions i of a decayed b_i * v_i times a decayed c_i * k_i. Recurrent
form: R sums of each factor, weighted by oscillators w_r(i),

    V_t^r = (1 - b_t) * V_{t-1}^r + w_r(t) b_t * v_t
    K_t^r = (1 - c_t) * K_{t-1}^r + w_r(t) c_t * k_t
    C_t q_t ~ sum_r V_t^r (K_t^r . q_t)             the pair (i, j) has weight sum_r w_r(i) w_r(j), ideally 1 if i = j, else 0

    oscillators    w_r(t), t counted from 0 within the episode
    rotation       1 where t = r modulo R, else 0: pairs whose distance is not a multiple of R have weight 0. This is the discrete Fourier
                   transform of R complex sums rotated by exp(2 pi i r / R) per step, read out as Re sum_r V^r conj(K^r) / R
    upstream       cos(f_r (t + 2)), f evenly spaced from -pi to pi, and z multiplied by 2 R, as published. R = 2 then equals R = 1

The published counter starts at 1 and is incremented before it is used, so the first phase is 2 f_r. The published
code never resets it, so phases continue across episodes; here every episode starts at t = 0.

Parallel form: the sums by `gated_scan`. Each row counts t as an integer, so that phases never lose precision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.feature_maps import outer, outer_gate
from pipeline.ops.gate_init import OPEN, slow_biases
from pipeline.ops.gated_scan import gated_scan
from pipeline.ops.padding import at_end
from pipeline.ops.state import State, where

EPSILON = {"rotation": 0.1, "upstream": 1e-5}
"""Default of epsilon, added to the normaliser: 0.1 for the same reason as in ReLiT, 1e-5 as published."""
FIRST = 2
"""Value of the published counter at the first position, for `oscillators: upstream`."""


class AReLiTState(NamedTuple):
    """The sums K followed by z, the sums V, and t of the next position."""

    keys_BSHK: Tensor
    values_BRHE: Tensor
    tick_B: Tensor


class SumInputs(NamedTuple):
    """Terms that each position adds to the sums, and their decays, shapes (..., S, H, K), (..., 1, H, K), (..., R, H, E), (..., 1, H, E)."""

    keys: Tensor
    keys_kept: Tensor
    values: Tensor
    values_kept: Tensor


class AReLiT(Mixer):
    """State: AReLiTState, with S = R + 1."""

    def __init__(self, config: config.Arelit, width: int) -> None:
        super().__init__(width)
        self.heads, self.channels = config.heads, config.head_dim or width // config.heads
        self.eta, self.r, self.oscillators = config.eta, config.r, config.oscillators
        self.epsilon = EPSILON[config.oscillators] if config.epsilon is None else config.epsilon
        self.project = nn.Linear(width, 5 * self.heads * self.channels)
        self.scales = nn.Linear(width, 3 * self.heads * self.eta)
        self.out = nn.Linear(self.heads * self.channels, width)
        self._initialise(config)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        V, K, z = x_TD.new_zeros(self.r, self.heads, self.channels), *self.initial_state(1).keys_BSHK[0].split([self.r, 1])
        scale, outputs = 2 * self.r if self.oscillators == "upstream" else 1, []
        for t, x in enumerate(x_TD):
            k, q, v, b, c = self.project(x).view(self.heads, 5, self.channels).unbind(1)
            k_scale, q_scale, c_scale = self.scales(x).view(self.heads, 3, self.eta).unbind(1)
            k, q = outer(torch.relu(k_scale), torch.relu(k)), outer(torch.relu(q_scale), torch.relu(q))
            b, c = torch.sigmoid(b), outer(torch.sigmoid(c_scale), torch.sigmoid(c))
            w = self.waves(torch.tensor(t, device=x.device), x.dtype).view(-1, 1, 1)
            V, K, z = (1 - b) * V + w * b * v, (1 - c) * K + w * c * k, (1 - c) * z + c * k
            y = (V * (K * q).sum(-1, keepdim=True)).sum(0) / (scale * (z[0] * q).sum(-1, keepdim=True) + self.epsilon)
            outputs.append(self.out(y.flatten()))
        return torch.stack(outputs)

    @torch.no_grad()
    def _initialise(self, config: config.Arelit) -> None:
        """Initialise each head's maps, or whole layers (`orthogonal: joint`), orthogonally with gain sqrt(2); biases to zero, except slow gates."""
        for layer, size in ((self.project, self.channels), (self.scales, self.eta), (self.out, self.width)):
            nn.init.zeros_(layer.bias)
            for part in layer.weight.split(len(layer.weight) if config.orthogonal == "joint" else size):
                nn.init.orthogonal_(part, math.sqrt(2))
        if config.init == "slow":
            gates_HGE = self.project.bias.view(self.heads, 5, self.channels)[:, 3:]
            gates_HGE.copy_(slow_biases(gates_HGE.shape, config.horizon))
            self.scales.bias.view(self.heads, 3, self.eta)[:, 2] = OPEN

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        keys = self.out.weight.new_zeros(batch, self.r + 1, self.heads, self.eta * self.channels)
        values = self.out.weight.new_zeros(batch, self.r, self.heads, self.channels)
        return AReLiTState(keys, values, torch.zeros(batch, dtype=torch.int64, device=keys.device))

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        start: AReLiTState = self.initial_state(len(x_BTD)) if state is None else state
        tick_BT = _ticks(start.tick_B, x_BTD.shape[1], reset_BT)
        q, terms = self._projected(x_BTD, tick_BT)
        keys, keys_after = _summed(terms.keys, terms.keys_kept, start.keys_BSHK, reset_BT, length_B)
        values, values_after = _summed(terms.values, terms.values_kept, start.values_BRHE, reset_BT, length_B)
        tick_B = at_end(tick_BT.unsqueeze(-1) + 1, length_B, start.tick_B.unsqueeze(-1)).squeeze(-1)
        return self._read(q, keys, values), AReLiTState(keys_after, values_after, tick_B)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        q, terms = self._projected(x_BD, state.tick_B)
        keys = torch.addcmul(terms.keys, terms.keys_kept, state.keys_BSHK)
        values = torch.addcmul(terms.values, terms.values_kept, state.values_BRHE)
        after = AReLiTState(keys, values, state.tick_B + 1)
        return self._read(q, keys, values), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor, tick: Tensor) -> tuple[Tensor, SumInputs]:
        """Return q of shape (..., H, K), and the inputs of the sums."""
        k, q, v, b, c = self.project(x).unflatten(-1, (self.heads, 5, self.channels)).unbind(-2)
        key_scale, query_scale, gate_scale = self.scales(x).unflatten(-1, (self.heads, 3, self.eta)).unbind(-2)
        c, keys_kept = outer_gate(gate_scale, c)
        k, q = outer(torch.relu(key_scale), torch.relu(k)), outer(torch.relu(query_scale), torch.relu(q))
        wave = self.waves(tick, x.dtype)[..., None, None]
        keys, values = (c * k).unsqueeze(-3), wave * (torch.sigmoid(b) * v).unsqueeze(-3)
        return q, SumInputs(torch.cat([wave * keys, keys], -3), keys_kept.unsqueeze(-3), values, torch.sigmoid(-b).unsqueeze(-3))

    def waves(self, tick: Tensor, dtype: torch.dtype) -> Tensor:
        """Return w_r at integers t, shape (..., R). The phases f_r (t + 2) are reduced modulo a full turn in integers."""
        if self.oscillators == "rotation":
            return functional.one_hot(tick % self.r, self.r).to(dtype)
        half_turn = max(self.r - 1, 1)
        speed_R = torch.arange(1 - self.r, self.r, 2, device=tick.device) if self.r > 1 else tick.new_tensor([-1])
        return torch.cos((speed_R * (tick + FIRST).unsqueeze(-1) % (2 * half_turn)).double() * (math.pi / half_turn)).to(dtype)

    def _read(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Compute y from the sums (..., S, H, K) and (..., R, H, E)."""
        reads = (keys * q.unsqueeze(-3)).sum(-1)
        weight, total = reads[..., :-1, :], reads[..., -1, :]
        normaliser = (2 * self.r * total if self.oscillators == "upstream" else total) + self.epsilon
        mixed = (values * weight.unsqueeze(-1)).sum(-3) / normaliser.unsqueeze(-1)
        return self.out(mixed.flatten(-2))

    def state_bytes(self, context: int) -> int:
        """H ((R + 1) K + R E) numbers and t, independent of the context."""
        numbers = self.heads * self.channels * ((self.r + 1) * self.eta + self.r)
        return numbers * self.out.weight.element_size() + 8


def _summed(added: Tensor, kept: Tensor, start_BSHK: Tensor, reset_BT: Tensor | None, length_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sums after every position, shape (B, T, S, H, K), and at each row's true end."""
    start = start_BSHK.flatten(1)
    sums = gated_scan(kept.expand_as(added).flatten(2), added.flatten(2), start, reset_BT)
    return sums.view(added.shape), at_end(sums, length_B, start).view(start_BSHK.shape)


def _ticks(tick_B: Tensor, steps: int, reset_BT: Tensor | None) -> Tensor:
    """Return t of every position."""
    tick_BT = tick_B.unsqueeze(1) + torch.arange(steps, device=tick_B.device)
    if reset_BT is None:
        return tick_BT
    return tick_BT - torch.where(reset_BT, tick_BT, 0).cummax(1).values
