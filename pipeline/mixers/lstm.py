"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

Notation: B = batch size, T = sequence length, D = width; i = input gate, f = forget gate, g = candidate, o = output gate, h = hidden state,
c = cell state.

Recurrent form, W and U of shape (4 D, D) in the order i, f, g, o, as torch keeps them:

    i, f, o = sigmoid(W x_t + U h_{t-1} + b)      g = tanh(W x_t + U h_{t-1} + b)
    c_t = f c_{t-1} + i g                         h_t = o tanh(c_t)          y_t = h_t

There is no parallel form. A whole sequence uses torch's fused kernel (oneDNN on the CPU, cuDNN on a GPU); a single step computes the cell
directly with the same weights, since the fused kernel repacks them at every call, which costs more than the step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.gate_init import init_gates, init_recurrence, weights_of
from pipeline.ops.padding import at_end, is_ragged
from pipeline.ops.state import State, where

SATURATED = 1e4
"""Large enough that a sigmoid is exactly 0 or 1 in any dtype."""

Pair = tuple[Tensor, Tensor]
"""h and c."""


class LSTM(Mixer):
    """One layer of D LSTM units. State: {"hidden": h, "cell": c}, both of shape (B, D)."""

    def __init__(self, config: config.Lstm, width: int) -> None:
        super().__init__(width)
        self.layer = nn.LSTM(width, width, batch_first=True)
        _, recurrent, bias, other_bias = weights_of(self.layer)
        init_recurrence(recurrent, config)
        init_gates(bias, other_bias, config, keep=slice(width, 2 * width), write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        W, U, b, other_b = weights_of(self.layer)
        h, c, outputs = x_TD.new_zeros(self.width), x_TD.new_zeros(self.width), []
        for x in x_TD:
            i, f, g, o = (W @ x + U @ h + b + other_b).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        zeros = weights_of(self.layer)[0].new_zeros
        return {"hidden": zeros(batch, self.width), "cell": zeros(batch, self.width)}

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Use the fused kernel if no episode starts inside the sequence, else a loop; see `Mixer.forward`."""
        before = self.initial_state(x_BTD.shape[0]) if state is None else state
        pair = (before["hidden"], before["cell"])
        if reset_BT is not None and bool(reset_BT.any()):
            y_BTD, (h_BD, c_BD) = self._loop(x_BTD, pair, reset_BT, length_B)
        elif not is_ragged(length_B, x_BTD.shape[1]):
            y_BTD, (h_BD, c_BD) = _without_layers(self.layer(x_BTD, _with_layers(pair)))
        else:
            assert length_B is not None
            y_BTD, (h_BD, c_BD) = self._ragged(x_BTD, pair, length_B)
        return y_BTD, {"hidden": h_BD, "cell": c_BD}

    def _ragged(self, x_BTD: Tensor, pair: Pair, length_B: Tensor) -> tuple[Tensor, Pair]:
        """Run rows of different lengths. The CPU has no fused kernel for packed sequences; there, padding is made to keep the cell state."""
        if x_BTD.is_cuda:
            return self._packed(x_BTD, pair, length_B)
        inputs, weights = _held(x_BTD, length_B, weights_of(self.layer))
        y_BTD, _, c_LBD = torch.lstm(inputs, _with_layers(pair), weights, True, 1, 0.0, self.training, False, True)
        return y_BTD, (at_end(y_BTD, length_B, pair[0]), c_LBD[0])

    def _packed(self, x_BTD: Tensor, pair: Pair, length_B: Tensor) -> tuple[Tensor, Pair]:
        """Run packed sequences; an empty row is run as one of length 1 and keeps its state."""
        packed = pack_padded_sequence(x_BTD, length_B.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        sequence, ends = self.layer(packed, _with_layers(pair))
        y_BTD, _ = pad_packed_sequence(sequence, batch_first=True, total_length=x_BTD.shape[1])
        h_BD, c_BD = where(length_B > 0, (ends[0][0], ends[1][0]), pair)
        return y_BTD, (h_BD, c_BD)

    def _loop(self, x_BTD: Tensor, pair: Pair, reset_BT: Tensor, length_B: Tensor | None) -> tuple[Tensor, Pair]:
        """Loop over positions, with the input projections computed for all of them at once; `unbind`, because indexing x[:, t] makes
        the backward pass quadratic in time."""
        resets = reset_BT.unsqueeze(-1).unbind(1)
        active = [None] * x_BTD.shape[1] if length_B is None else _running(length_B, x_BTD.shape[1])
        outputs, (h_BD, c_BD) = [], pair
        for projected, reset, running in zip(self._projected(x_BTD).unbind(1), resets, active, strict=True):
            new = self._advance(projected, h_BD.masked_fill(reset, 0), c_BD.masked_fill(reset, 0))
            outputs.append(new[0])
            h_BD, c_BD = new if running is None else where(running, new, (h_BD, c_BD))
        return torch.stack(outputs, 1), (h_BD, c_BD)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        h_BD, c_BD = self._advance(self._projected(x_BD), state["hidden"], state["cell"])
        new = {"hidden": h_BD, "cell": c_BD}
        return h_BD, new if active_B is None else where(active_B, new, state)

    def _projected(self, x: Tensor) -> Tensor:
        into, _, bias, other_bias = weights_of(self.layer)
        return functional.linear(x, into, bias + other_bias)

    def _advance(self, projected: Tensor, h_BD: Tensor, c_BD: Tensor) -> Pair:
        i, f, g, o = torch.addmm(projected, h_BD, weights_of(self.layer)[1].t()).chunk(4, 1)
        c_BD = torch.sigmoid(f) * c_BD + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c_BD), c_BD

    def state_bytes(self, context: int) -> int:
        """2 D numbers, independent of the context."""
        return 2 * self.width * weights_of(self.layer)[0].element_size()


def _held(x_BTD: Tensor, length_B: Tensor, weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Add an input channel that is 1 on padding: it opens the forget gate and closes the input gate, so that the cell state is kept exactly."""
    into = weights[0]
    padding_BT1 = (torch.arange(x_BTD.shape[1], device=x_BTD.device) >= length_B.unsqueeze(1)).to(x_BTD.dtype).unsqueeze(-1)
    gates = into.new_tensor([-SATURATED, SATURATED, 0.0, 0.0]).repeat_interleave(into.shape[1]).unsqueeze(1)
    return torch.cat([x_BTD, padding_BT1], -1), [torch.cat([into, gates], 1), *weights[1:]]


def _running(length_B: Tensor, steps: int) -> tuple[Tensor, ...]:
    return (torch.arange(steps, device=length_B.device).unsqueeze(1) < length_B).unbind(0)


def _with_layers(pair: Pair) -> Pair:
    return pair[0].unsqueeze(0), pair[1].unsqueeze(0)


def _without_layers(result: tuple[Tensor, Pair]) -> tuple[Tensor, Pair]:
    y_BTD, (h_LBD, c_LBD) = result
    return y_BTD, (h_LBD[0], c_LBD[0])
