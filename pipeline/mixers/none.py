"""The memoryless control: y = 0. What a network with it scores needs no memory.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.state import State


class NoMixer(Mixer):
    """Output zero, nothing carried, no parameters."""

    def __init__(self, config: config.NoMixer, width: int) -> None:
        super().__init__(width)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """y_TD of one row, as the formulas above say it; see `Mixer.recurrence`."""
        return torch.zeros_like(x_TD)

    def initial_state(self, batch: int) -> State:
        """Nothing."""
        return ()

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Zeros, whatever the input."""
        return torch.zeros_like(x_BTD), ()

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Zeros, whatever the input."""
        return torch.zeros_like(x_BD), ()

    def state_bytes(self, context: int) -> int:
        """Nothing."""
        return 0
