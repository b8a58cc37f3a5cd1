"""Two causal mixers, one from the first position to the last and one back (Schuster & Paliwal 1997, bidirectional recurrent networks).

Notation: B = batch size, T = sequence length, D = width.

    y = f(x) + reverse(b(reverse(x)))        f and b: mixers of one kind, each with weights of its own

A padded row is reversed within its length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import mixers as config
from pipeline.config.catalogue import implementation
from pipeline.mixers.base import WholeRowMixer
from pipeline.ops.padding import is_ragged


class BothWays(WholeRowMixer):
    """The sum of a causal mixer's outputs and of another's that reads each row from its end."""

    def __init__(self, config: config.BothWays, width: int) -> None:
        super().__init__(width)
        self.config = config.mixer
        kind = implementation(config.mixer)
        self.forwards, self.backwards = kind(config.mixer, width), kind(config.mixer, width)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equation above."""
        return self.forwards.recurrence(x_TD) + self.backwards.recurrence(x_TD.flip(0)).flip(0)

    def mix(self, x_BTD: Tensor, length_B: Tensor | None) -> Tensor:
        """Run both over all positions; see `WholeRowMixer.mix`. Both are causal, so that they need not know where padding starts."""
        y_BTD, _ = self.forwards(x_BTD)
        back_BTD, _ = self.backwards(reversed_rows(x_BTD, length_B))
        return y_BTD + reversed_rows(back_BTD, length_B)


def reversed_rows(x_BTD: Tensor, length_B: Tensor | None) -> Tensor:
    """Reverse every row within its length; padding stays where it is."""
    steps = x_BTD.shape[1]
    if length_B is None or not is_ragged(length_B, steps):
        return x_BTD.flip(1)
    t_T, length_B1 = torch.arange(steps, device=x_BTD.device), length_B.unsqueeze(1)
    place_BT = torch.where(t_T < length_B1, length_B1 - 1 - t_T, t_T)
    return x_BTD.gather(1, place_BT.unsqueeze(-1).expand_as(x_BTD))
