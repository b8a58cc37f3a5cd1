"""Mamba (Gu & Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces", arXiv 2312.00752).

Notation: B = batch size, T = sequence length, D = width, E = inner channels (`expand` times D), N = states per channel (`d_state`),
R = earlier inputs seen by the convolution. In equations, the paper's symbols: Δ = step sizes, A = state matrix, B and C = input and output
matrices, which depend on the input, D = skip.

Recurrent form:

    u_t, z_t = W_in x_t
    v_t = silu(convolution(u)_t)                              depthwise, over the last few u
    r_t, B_t, C_t = W_x v_t                                   r has `dt_rank` channels
    Δ_t = softplus(W_Δ r_t + b_Δ)
    h_t = exp(Δ_t A) * h_{t-1} + Δ_t B_t v_t                  for each of the E channels; A = -exp(A_log)
    y_t = W_out (silu(z_t) * (C_t . h_t + D v_t))

Parallel form: `selective_scan`. Parameters have the names, shapes and initialisation of the authors' package mamba-ssm, so that weights
are interchangeable.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers
from pipeline.mixers.base import Mixer
from pipeline.mixers.short_convolution import ShortConvolution
from pipeline.ops.selective_scan import Operands, selective_scan, selective_step
from pipeline.ops.state import State, where

STEP_SIZES = (0.001, 0.1)
"""softplus(b_Δ) is initialised log-uniformly in this range."""
SMALLEST = 1e-4
"""Smallest initial step size."""


class MambaState(NamedTuple):
    """The convolution's last inputs, and h."""

    inputs_BRE: Tensor
    state_BEN: Tensor


class Mamba(Mixer):
    """State: MambaState."""

    def __init__(self, config: mixers.Mamba, width: int) -> None:
        super().__init__(width)
        self.inner, self.states = config.expand * width, config.d_state
        self.rank = config.dt_rank or math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=False)
        self.conv1d = ShortConvolution(mixers.ShortConvolution(kernel_size=config.d_conv), self.inner)
        self.x_proj = nn.Linear(self.inner, self.rank + 2 * self.states, bias=False)
        self.dt_proj = nn.Linear(self.rank, self.inner)
        self.A_log = nn.Parameter(torch.arange(1.0, self.states + 1).log().repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)
        self._initialise()

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        A, h, outputs = -torch.exp(self.A_log), x_TD.new_zeros(self.inner, self.states), []
        u, z = self.in_proj(x_TD).chunk(2, -1)
        for v, gate in zip(functional.silu(self.conv1d.recurrence(u)), functional.silu(z), strict=True):
            r, B, C = self.x_proj(v).split([self.rank, self.states, self.states])
            delta = functional.softplus(self.dt_proj(r)).unsqueeze(-1)
            h = torch.exp(delta * A) * h + delta * B * v.unsqueeze(-1)
            outputs.append(self.out_proj(gate * (h @ C + self.D * v)))
        return torch.stack(outputs)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise W_Δ to preserve the variance of its input, and b_Δ to the initial step sizes."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        self.dt_proj.bias.copy_(step_biases(self.inner))

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return MambaState(self.conv1d.initial_state(batch), self.D.new_zeros(batch, self.inner, self.states))

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        inputs, state_BEN = (None, None) if state is None else state
        u_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, -1)
        v_BTE, inputs_BRE = self.conv1d(u_BTE, inputs, reset_BT, length_B)
        y_BTE, state_BEN = selective_scan(self._operands(functional.silu(v_BTE)), state_BEN, reset_BT, length_B)
        return self.out_proj(functional.silu(gate_BTE) * y_BTE), MambaState(inputs_BRE, state_BEN)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        u_BE, gate_BE = self.in_proj(x_BD).chunk(2, -1)
        v_BE, inputs_BRE = self.conv1d.step(u_BE, state.inputs_BRE)
        y_BE, state_BEN = selective_step(self._operands(functional.silu(v_BE)), state.state_BEN)
        after = MambaState(inputs_BRE, state_BEN)
        return self.out_proj(functional.silu(gate_BE) * y_BE), after if active_B is None else where(active_B, after, state)

    def _operands(self, v: Tensor) -> Operands:
        """Return the inputs of the scan, for any number of positions."""
        rank, write, read = self.x_proj(v).split([self.rank, self.states, self.states], -1)
        return Operands(v, functional.softplus(self.dt_proj(rank)), -self.A_log.exp(), write, read, self.D)

    def state_bytes(self, context: int) -> int:
        """E (R + N) numbers, independent of the context."""
        return self.inner * (self.conv1d.back + self.states) * self.D.element_size()


def step_biases(count: int) -> Tensor:
    """Sample initial b_Δ: the inverse softplus of random step sizes; sampled on the CPU for any device."""
    smallest, largest = (math.log(size) for size in STEP_SIZES)
    sizes = torch.empty(count, device="cpu").uniform_(smallest, largest).exp().clamp(min=SMALLEST)
    return sizes + torch.log(-torch.expm1(-sizes))
