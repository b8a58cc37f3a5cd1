"""The matrix LSTM, xLSTM's mLSTM (Beck et al. 2024, "xLSTM: extended long short-term memory", arXiv 2405.04517, equations 19 to 27).

Not to be confused with the multiplicative LSTM of Krause et al. 2016, which has the same short name.

Notation: B = batch size, T = sequence length, D = width, H = heads, K = D / H = channels per head, V = K + 1 = channels of a value and the
normaliser; q, k, v = query, key and value, i and f = input and forget gate of a head, o = output gate, C = matrix memory, n = normaliser,
m = log scale.

Recurrent form, for every head:

    C_t = f_t C_{t-1} + i_t k_t v_t^T / sqrt(K)        i = exp(w_i . x + b_i), f = sigmoid(w_f . x + b_f)
    n_t = f_t n_{t-1} + i_t k_t / sqrt(K)
    y_t = W (sigmoid(o_t) * norm(C_t^T q_t / max(|n_t . q_t|, 1)))        norm over each head's channels

With a last channel of ones in v, n is the last column of C. Since i may overflow, the state is C exp(-m) with

    m_t = max(log f_t + m_{t-1}, log i_t, 0)           then f' = exp(log f_t + m_{t-1} - m_t), i' = exp(log i_t - m_t), 1' = exp(-m_t)

none of which exceeds one. The paper's m has no lower bound of zero; the bound changes no output and keeps exp(-m) from overflowing.
Parallel form: m by a scan by doubling, the rest by `linear_scan`. The paper's block around the cell (convolution, up-projection) is omitted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.linear_scan import linear_scan, linear_step
from pipeline.ops.padding import Padding
from pipeline.ops.state import State, where

EPSILON = 1e-5
"""Added to variances by the norm."""
FORGET_BIASES = (3.0, 6.0)
"""Initial forget-gate biases, evenly spaced over the heads: time constants of 21 to 404 positions. Initial input gates are 1."""


class MatrixLSTMState(NamedTuple):
    """C exp(-m), whose last column is n exp(-m); and m."""

    matrix_BHKV: Tensor
    log_scale_BH: Tensor


class MatrixLSTM(Mixer):
    """State: MatrixLSTMState."""

    def __init__(self, config: config.MatrixLstm, width: int) -> None:
        super().__init__(width)
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.heads, self.channels = config.heads, width // config.heads
        self.project = nn.Linear(width, 4 * width, bias=False)
        self.gates = nn.Linear(width, 2 * config.heads)
        self.norm = nn.RMSNorm(self.channels, eps=EPSILON)
        self.out = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            self.gates.bias[: config.heads] = 0.0
            self.gates.bias[config.heads :] = torch.linspace(*FORGET_BIASES, config.heads)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        C, n, outputs = *x_TD.new_zeros(self.heads, self.channels, self.channels + 1).split([self.channels, 1], -1), []
        for x in x_TD:
            q, k, v, o = self.project(x).view(4, self.heads, self.channels, 1)
            i, f = self.gates(x).view(2, -1, 1, 1)
            i, f, k = torch.exp(i), torch.sigmoid(f), k / math.sqrt(self.channels)
            C, n = f * C + i * k @ v.mT, f * n + i * k
            h = C.mT @ q / torch.clamp((n.mT @ q).abs(), min=1)
            outputs.append(self.out((torch.sigmoid(o).squeeze(-1) * self.norm(h.squeeze(-1))).flatten()))
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        zeros = self.out.weight.new_zeros
        return MatrixLSTMState(zeros(batch, self.heads, self.channels, self.channels + 1), zeros(batch, self.heads))

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        q, k, v, log_input, log_forget, gate = self._projected(x_BTD)
        start: MatrixLSTMState = self.initial_state(len(x_BTD)) if state is None else state
        padding = Padding(length_B, x_BTD.shape[1])
        log_input, log_forget, reset_BT = padding.fill(log_input), padding.fill(log_forget), padding.fill(reset_BT, False)
        scale, previous = log_scales(log_forget, log_input, start.log_scale_BH, reset_BT)
        k = k * (log_input - scale).exp().unsqueeze(-1)
        log_decay = (log_forget + previous - scale).unsqueeze(-1)
        y, matrix_BHKV = linear_scan(q, k, v, log_decay, start.matrix_BHKV, reset_BT, length_B)
        return self._read(y, scale, gate), MatrixLSTMState(matrix_BHKV, scale[:, -1])

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        q, k, v, log_input, log_forget, gate = self._projected(x_BD)
        scale_BH = torch.maximum(log_forget + state.log_scale_BH, log_input.clamp(min=0))
        k = k * (log_input - scale_BH).exp().unsqueeze(-1)
        log_decay = (log_forget + state.log_scale_BH - scale_BH).unsqueeze(-1)
        y, matrix_BHKV = linear_step(q, k, v, log_decay, state.matrix_BHKV)
        after = MatrixLSTMState(matrix_BHKV, scale_BH)
        return self._read(y, scale_BH, gate), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return q, k / sqrt(K), v with a last channel of ones, log i, log f and the output gate before activation, by heads."""
        q, k, v, gate = self.project(x).unflatten(-1, (4, self.heads, self.channels)).unbind(-3)
        log_input, forget = self.gates(x).chunk(2, -1)
        return q, k / math.sqrt(self.channels), functional.pad(v, (0, 1), value=1.0), log_input, functional.logsigmoid(forget), gate

    def _read(self, y: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        normaliser = torch.maximum(y[..., -1:].abs(), (-scale).exp().unsqueeze(-1))
        return self.out((torch.sigmoid(gate) * self.norm(y[..., :-1] / normaliser)).flatten(-2))

    def state_bytes(self, context: int) -> int:
        """H (K V + 1) numbers, independent of the context."""
        return (self.width * (self.channels + 1) + self.heads) * self.out.weight.element_size()


def log_scales(log_forget_BTH: Tensor, log_input_BTH: Tensor, start_BH: Tensor, reset_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return m_t and m_{t-1} of all positions; the latter is zero at a reset.

    Computes m_t = max(a_t + m_{t-1}, b_t) by doubling: a and b of spans of 1, 2, 4, ... positions, in log T rounds.
    """
    a, b = log_forget_BTH, log_input_BTH.clamp(min=0)
    if reset_BT is not None:
        a = a.masked_fill(reset_BT.unsqueeze(-1), -torch.inf)
    span, steps = 1, a.shape[1]
    while span < steps:
        later_a, later_b = a[:, span:], b[:, span:]
        b = torch.cat([b[:, :span], torch.maximum(later_a + b[:, :-span], later_b)], 1)
        a = torch.cat([a[:, :span], later_a + a[:, :-span]], 1)
        span *= 2
    scale_BTH = torch.maximum(a + start_BH.unsqueeze(1), b)
    previous_BTH = torch.cat([start_BH.unsqueeze(1), scale_BTH[:, :-1]], 1)
    return scale_BTH, previous_BTH if reset_BT is None else previous_BTH.masked_fill(reset_BT.unsqueeze(-1), 0.0)
