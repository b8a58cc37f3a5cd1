"""What mixers share whose state is one vector of the network's width, and whose output is that state.

Letters: B batch, T time, D width, P what `projected` makes of an input.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from pipeline.mixers.base import Mixer, at_end
from pipeline.mixers.loop import loop
from pipeline.mixers.state import State


class HiddenMixer(Mixer):
    """A recurrence h_t = advance(projected(x_t), h_{t-1}). State: h of shape (B, D), zero at first."""

    def projected(self, x: Tensor) -> Tensor:
        """What does not wait for the state, at any number of positions at once: (..., D) to (..., P). Here nothing."""
        return x

    @abstractmethod
    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """The state after one position."""

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """The state after every position; a mixer with a faster way than the loop overrides this."""
        return self.loop(x_BTD, h_BD, reset_BT)

    def loop(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """One position after the other, the input's products done for all at once."""
        return loop(lambda projected_BP, before: (self.advance(projected_BP, *before),), self.projected(x_BTD), (h_BD,), reset_BT)[0]

    def initial_state(self, batch: int) -> State:
        """Zero."""
        return next(self.parameters()).new_zeros(batch, self.width)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`."""
        start_BD = self.initial_state(x_BTD.shape[0]) if state is None else state
        y_BTD = self.sequence(x_BTD, start_BD, reset_BT)
        return y_BTD, at_end(y_BTD, length_B, start_BD)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """One position; see `Mixer.step`."""
        h_BD = self.advance(self.projected(x_BD), state)
        return h_BD, h_BD if active_B is None else torch.where(active_B.unsqueeze(1), h_BD, state)

    def state_bytes(self, context: int) -> int:
        """D numbers, whatever the context."""
        return self.width * next(self.parameters()).element_size()
