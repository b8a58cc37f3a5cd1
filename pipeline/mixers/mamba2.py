"""Mamba-2 (Dao & Gu 2024, "Transformers are SSMs: ... structured state space duality", arXiv 2405.21060).

Notation: B = batch size, T = sequence length, D = width, E = inner channels (`expand` times D), H = heads, P = E / H = channels per head,
N = states per channel (`d_state`), R = earlier inputs seen by the convolution. In equations, the paper's symbols: Δ = step size and
A = state matrix (one number per head), B and C = input and output matrices, shared by all heads, D = skip, h = state of a head (N x P).

Recurrent form:

    z_t, u_t, r_t = W_in x_t                                  E, E + 2 N and H channels
    v_t, B_t, C_t = silu(convolution(u)_t)                    depthwise, over the last few u
    Δ_t = softplus(r_t + b_Δ)
    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t v_t^T                  for each head; A = -exp(A_log)
    y_t = W_out norm(silu(z_t) * (h_t^T C_t + D v_t))         norm over all E channels

Parallel form: `linear_scan` with C as query and B as key, the paper's duality. Parameters have the names, shapes and initialisation of
the authors' package mamba-ssm, so that weights are interchangeable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers
from pipeline.mixers.base import Mixer
from pipeline.mixers.mamba import step_biases
from pipeline.mixers.short_convolution import ShortConvolution
from pipeline.ops.linear_scan import linear_scan, linear_step
from pipeline.ops.state import State, where

EPSILON = 1e-5
"""Added to variances by the norm."""
LARGEST_RATE = 16.0
"""-A is initialised uniformly in [1, LARGEST_RATE]."""


class Mamba2State(NamedTuple):
    """The convolution's last inputs, and h."""

    inputs: Tensor
    state_BHNP: Tensor


class Mamba2(Mixer):
    """State: Mamba2State."""

    def __init__(self, config: mixers.Mamba2, width: int) -> None:
        super().__init__(width)
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.inner, self.states, self.heads = config.expand * width, config.d_state, config.heads
        self.mixed = self.inner + 2 * self.states
        self.in_proj = nn.Linear(width, self.inner + self.mixed + self.heads, bias=False)
        self.conv1d = ShortConvolution(mixers.ShortConvolution(kernel_size=config.d_conv), self.mixed)
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(self.inner, eps=EPSILON)
        self.out_proj = nn.Linear(self.inner, width, bias=False)
        self._initialise()

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        A, D, outputs = -torch.exp(self.A_log).view(-1, 1, 1), self.D.unsqueeze(-1), []
        h = x_TD.new_zeros(self.heads, self.states, self.inner // self.heads)
        z, xBC, dt = self.in_proj(x_TD).split([self.inner, self.mixed, self.heads], -1)
        deltas = functional.softplus(dt + self.dt_bias)
        for gate, u, delta in zip(functional.silu(z), functional.silu(self.conv1d.recurrence(xBC)), deltas, strict=True):
            x, B, C = u.split([self.inner, self.states, self.states])
            x, delta = x.view(self.heads, -1), delta.view(-1, 1, 1)
            h = torch.exp(delta * A) * h + delta * B.unsqueeze(-1) * x.unsqueeze(-2)
            outputs.append(self.out_proj(self.norm(gate * (C @ h + D * x).flatten())))
        return torch.stack(outputs)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise b_Δ and A; sampled on the CPU for any device."""
        self.dt_bias.copy_(step_biases(self.heads))
        self.A_log.copy_(torch.empty(self.heads, device="cpu").uniform_(1, LARGEST_RATE).log())

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        state_BHNP = self.D.new_zeros(batch, self.heads, self.states, self.inner // self.heads)
        return Mamba2State(self.conv1d.initial_state(batch), state_BHNP)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        start: Mamba2State = self.initial_state(len(x_BTD)) if state is None else state
        gate, u, rate = self._projected(x_BTD)
        mixed, inputs = self.conv1d(u, start.inputs, reset_BT, length_B)
        v, terms = self._terms(mixed, rate)
        y, state_BHNP = linear_scan(*terms, start.state_BHNP, reset_BT, length_B)
        return self._read(y, v, gate), Mamba2State(inputs, state_BHNP)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        gate, u, rate = self._projected(x_BD)
        mixed, inputs = self.conv1d.step(u, state.inputs)
        v, terms = self._terms(mixed, rate)
        y, state_BHNP = linear_step(*terms, state.state_BHNP)
        after = Mamba2State(inputs, state_BHNP)
        return self._read(y, v, gate), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z, u and r."""
        gate, u, rate = self.in_proj(x).split([self.inner, self.mixed, self.heads], -1)
        return gate, u, rate

    def _terms(self, mixed: Tensor, rate: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return v by heads, shape (..., H, P), and query, key, value and log decay for `linear_scan`."""
        v, key, query = functional.silu(mixed).split([self.inner, self.states, self.states], -1)
        v, size = v.unflatten(-1, (self.heads, -1)), functional.softplus(rate + self.dt_bias).unsqueeze(-1)
        log_decay = -size * self.A_log.exp().unsqueeze(-1)
        return v, (query.unsqueeze(-2), key.unsqueeze(-2), v * size, log_decay)

    def _read(self, y: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        mixed = torch.addcmul(y, v, self.D.unsqueeze(-1)).flatten(-2)
        return self.out_proj(self.norm(functional.silu(gate) * mixed))

    def state_bytes(self, context: int) -> int:
        """(E + 2 N) R + E N numbers, independent of the context."""
        return (self.mixed * self.conv1d.back + self.inner * self.states) * self.D.element_size()
