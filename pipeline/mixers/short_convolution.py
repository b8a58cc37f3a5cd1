"""Short depthwise convolution: each channel is a weighted sum of its last few inputs. A weak baseline, and a part of many modern mixers.

Notation: B = batch size, T = sequence length, D = width, K = taps (`kernel_size`), R = K - 1 = earlier positions that are read.

    y_t = b + sum_{r = 0..R} w_{R - r} x_{t - r}         inputs before the first position or of another episode are zero

Parameter names and initialisation are those of a depthwise `torch.nn.Conv1d`. Source: Fu et al. 2023, "Hungry Hungry Hippos", arXiv 2212.14052
(its shift); Arora et al. 2024, "Zoology", arXiv 2312.04927 (before every mixer).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.state import State


class ShortConvolution(Mixer):
    """State: the last R inputs, shape (B, R, D), newest last."""

    decayed = ("weight",)

    def __init__(self, config: config.ShortConvolution, width: int) -> None:
        super().__init__(width)
        self.back = config.kernel_size - 1
        start = nn.Conv1d(width, width, config.kernel_size, groups=width)
        assert start.bias is not None
        self.weight, self.bias = start.weight, start.bias

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        w, past = self.weight.squeeze(1).t(), torch.cat([x_TD.new_zeros(self.back, x_TD.shape[1]), x_TD])
        return torch.stack([self.bias + (w * past[t : t + self.back + 1]).sum(0) for t in range(len(x_TD))])

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return self.weight.new_zeros(batch, self.back, self.width)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        batch, steps, _ = x_BTD.shape
        seen = torch.cat([self.initial_state(batch) if state is None else state, x_BTD], 1)
        end_B = torch.full((batch,), steps, device=x_BTD.device) if length_B is None else length_B
        time_BR = end_B.unsqueeze(1) + torch.arange(-self.back, 0, device=x_BTD.device)
        after = seen.gather(1, (time_BR + self.back).unsqueeze(2).expand(-1, -1, self.width))
        if reset_BT is None or not bool(reset_BT.any()):
            return self._weigh(seen), after
        since_BT = _since_start(reset_BT, self.back)
        known_B = functional.pad(since_BT + 1, (1, 0), value=self.back).gather(1, end_B.unsqueeze(1))
        forgotten_BR = torch.arange(self.back, 0, -1, device=x_BTD.device) > known_B
        return self._weigh_apart(seen, since_BT), after.masked_fill(forgotten_BR.unsqueeze(2), 0.0)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        seen = torch.cat([state, x_BD.unsqueeze(1)], 1)
        after = seen[:, 1:] if active_B is None else torch.where(active_B[:, None, None], seen[:, 1:], state)
        return (seen * self.weight.squeeze(1).t()).sum(1) + self.bias, after

    def state_bytes(self, context: int) -> int:
        """R inputs, independent of the context."""
        return self.back * self.width * self.weight.element_size()

    def _weigh(self, seen: Tensor) -> Tensor:
        """Convolve R + T positions as an image one pixel high: conv2d accepts the channels-last layout without a copy."""
        return functional.conv2d(seen.mT.unsqueeze(2), self.weight.unsqueeze(2), self.bias, groups=self.width).squeeze(2).mT

    def _weigh_apart(self, seen: Tensor, since_BT: Tensor) -> Tensor:
        """Convolve tap by tap, masking the inputs of earlier episodes."""
        y, steps = self.bias, since_BT.shape[1]
        for tap, weight_D in enumerate(self.weight.squeeze(1).unbind(1)):
            known_BT1 = (since_BT >= self.back - tap).unsqueeze(2)
            y = y + seen[:, tap : tap + steps].where(known_BT1, 0.0) * weight_D
        return y


def _since_start(reset_BT: Tensor, far: int) -> Tensor:
    """Return the number of positions since the episode's first, shape (B, T); `far` is added if it began before the sequence."""
    time_T = torch.arange(reset_BT.shape[1], device=reset_BT.device)
    return time_T - torch.where(reset_BT, time_T, -far).cummax(1).values
