"""Linear recurrent unit (Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences", arXiv 2303.06349).

Notation: B = batch size, T = sequence length, D = width, N = complex states, S = 2 N = their real parts, then their imaginary parts. In
equations, the paper's symbols: Λ = diagonal state matrix, B = input matrix, C = output matrix, D = skip, γ = input normalisation.

Recurrent form, h complex:

    Λ = exp(-exp(ν) + i exp(θ))                 |Λ| < 1 for any ν
    h_t = Λ h_{t-1} + γ B x_t                   log γ is learned; γ is initialised to sqrt(1 - |Λ|^2), for unit variance of h
    y_t = Re(C h_t) + D x_t

Parallel form: `diagonal`, since Λ does not depend on the input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.diagonal_scan import diagonal, rotated
from pipeline.ops.state import State

SQUARED = (1e-12, 1 - 2**-24)
"""Range of initial squared moduli in float32: at 0 and 1, ν would be infinite and its gradient NaN."""


class LRU(Mixer):
    """The recurrence and its linear readout; nonlinearity is left to the network's feed-forward layers."""

    decayed = ("into_SD", "out_DS")

    def __init__(self, config: config.Lru, width: int) -> None:
        super().__init__(width)
        self.states = config.d_state or width
        self.nu_N = nn.Parameter(torch.empty(self.states))
        self.theta_N = nn.Parameter(torch.empty(self.states))
        self.gamma_N = nn.Parameter(torch.empty(self.states))
        self.into_SD = nn.Parameter(torch.empty(2 * self.states, width))
        self.out_DS = nn.Parameter(torch.empty(width, 2 * self.states))
        self.skip_D = nn.Parameter(torch.empty(width))
        self._initialise(config)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        Lambda = torch.exp(torch.complex(-torch.exp(self.nu_N), torch.exp(self.theta_N)))
        gamma, D, (C_real, C_minus_imaginary) = torch.exp(self.gamma_N), self.skip_D, self.out_DS.chunk(2, 1)
        B, C = torch.complex(*self.into_SD.chunk(2)), torch.complex(C_real, -C_minus_imaginary)
        h, outputs = torch.zeros_like(Lambda), []
        for x in x_TD:
            h = Lambda * h + gamma * (B @ x.to(B.dtype))
            outputs.append((C @ h).real + D * x)
        return torch.stack(outputs)

    @torch.no_grad()
    def _initialise(self, config: config.Lru) -> None:
        """Initialise eigenvalues uniformly on a ring in the unit disc (the paper's lemma 3.2), weights with unit gain.

        out_DS holds Re C and -Im C. Eigenvalues are sampled on the CPU for any device.
        """
        smallest, largest = config.r_min, config.r_max
        squared_N = torch.empty(self.states, device="cpu").uniform_(smallest**2, largest**2).clamp(*SQUARED)
        self.nu_N.copy_(torch.log(-0.5 * torch.log(squared_N)))
        self.theta_N.copy_(torch.log(torch.empty(self.states, device="cpu").uniform_(1e-6, 1) * config.max_phase))
        self.gamma_N.copy_(0.5 * torch.log1p(-squared_N))
        self.into_SD.normal_(std=1 / math.sqrt(2 * self.width))
        self.out_DS.normal_(std=1 / math.sqrt(self.states))
        self.skip_D.normal_()

    def decay(self) -> Tensor:
        """Return the real and imaginary part of Λ, shape (2, N)."""
        modulus_N, phase_N = torch.exp(-torch.exp(self.nu_N)), torch.exp(self.theta_N)
        return torch.stack([modulus_N * torch.cos(phase_N), modulus_N * torch.sin(phase_N)])

    def initial_state(self, batch: int) -> State:
        """Return h = 0, shape (B, S)."""
        return self.skip_D.new_zeros(batch, 2 * self.states)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        state_BS = self.initial_state(x_BTD.shape[0]) if state is None else state
        into_SD = self.into_SD * torch.exp(self.gamma_N).repeat(2).unsqueeze(1)
        return diagonal(x_BTD, into_SD, self.decay(), self.out_DS, self.skip_D, state_BS, reset_BT, length_B)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        scale_S = torch.exp(self.gamma_N).repeat(2)
        h_BS = torch.addcmul(rotated(state, self.decay()), x_BD @ self.into_SD.t(), scale_S)
        y_BD = torch.addcmul(h_BS @ self.out_DS.t(), x_BD, self.skip_D)
        return y_BD, h_BS if active_B is None else torch.where(active_B.unsqueeze(1), h_BS, state)

    def state_bytes(self, context: int) -> int:
        """2 N numbers, independent of the context."""
        return 2 * self.states * self.skip_D.element_size()
