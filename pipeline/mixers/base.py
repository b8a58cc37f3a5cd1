"""What every mixer does: map a sequence to a sequence of the same shape, carrying state.

Notation: B = batch size, T = sequence length, D = width, P = size of what `projected` makes of an input. A state
is a pytree of tensors, batch first; `pipeline.ops.state` selects, forks and joins states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.ops.loop import loop
from pipeline.ops.padding import at_end
from pipeline.ops.state import State


class Mixer(nn.Module, ABC):
    """A causal map from x_BTD to y_BTD. Rows are independent; a state given is never changed, and may be used again."""

    decayed: ClassVar[tuple[str, ...]] = ()
    """Which of the module's own `nn.Parameter`s weight decay applies to: matrices, not rates, step sizes, gains or biases. Layers of torch
    need no mention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Outputs y_TD of one row from the initial state, one position at a time in the mathematics of the paper.

        Slow, for readers and tests: `forward` and `step` must agree with it. Every mixer of this package has one.
        """
        raise NotImplementedError

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state before the first position, on the device and of the number type of the weights."""

    @abstractmethod
    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs of a whole sequence and the state after it.

        reset_BT (bool): true where a position starts a new episode, which sees nothing of what came before.
        length_B (int): rows are right-padded; the state returned is the one at each row's true end, outputs beyond it mean nothing.
        """

    @abstractmethod
    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """One position. Where active_B (bool) is false the row's state stays as it was and its output means nothing."""

    @abstractmethod
    def state_bytes(self, context: int) -> int:
        """Bytes carried per row after `context` positions."""

    def positions_held(self, state: State) -> int:
        """How many positions a state holds one by one, of the row that holds most; 0 where its size is constant."""
        return 0

    def extra_repr(self) -> str:
        """Shown by print(network)."""
        return f"width={self.width}"


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
