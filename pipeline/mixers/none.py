"""The memoryless baseline: y = 0. The score of a network with it requires no memory.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.state import State


class NoMixer(Mixer):
    """Zero output, no state, no parameters."""

    def __init__(self, config: config.NoMixer, width: int) -> None:
        super().__init__(width)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        return torch.zeros_like(x_TD)

    def initial_state(self, batch: int) -> State:
        """Return an empty state."""
        return ()

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return zeros for any input."""
        return torch.zeros_like(x_BTD), ()

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Return zeros for any input."""
        return torch.zeros_like(x_BD), ()

    def state_bytes(self, context: int) -> int:
        """Return zero."""
        return 0
