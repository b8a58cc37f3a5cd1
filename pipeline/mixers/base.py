"""The interface of a mixer: a map from a sequence to a sequence of the same shape; a causal one has a state.

Notation: B = batch size, T = sequence length, D = width, P = size of a projected input. A state is a pytree of tensors, batch first;
`pipeline.ops.state` has functions to select, fork and concatenate states.
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
    """A map from x_BTD to y_BTD, causal unless its config says otherwise. Rows are independent; a state passed in is never modified and may
    be reused."""

    decayed: ClassVar[tuple[str, ...]] = ()
    """Names of the module's own `nn.Parameter`s that weight decay applies to: matrices, not rates, step sizes, gains or biases. Torch's layers
    need not be listed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row from the initial state, one position at a time, following the equations of the paper.

        A slow reference for readers and tests: `forward` and `step` must agree with it. Every mixer of this package implements it.
        """
        raise NotImplementedError

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """Return the state before the first position, with the device and dtype of the weights."""

    @abstractmethod
    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return the outputs of a whole sequence and the state after it.

        reset_BT (bool): true where a position starts a new episode, which does not see earlier positions.
        length_B (int): lengths of right-padded rows; the returned state is that at each row's true end, later outputs are undefined.
        """

    @abstractmethod
    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Process one position. Where active_B (bool) is false, the row's state is unchanged and its output undefined."""

    @abstractmethod
    def state_bytes(self, context: int) -> int:
        """Return the size of the state in bytes per row after `context` positions."""

    def positions_held(self, state: State) -> int:
        """Return the number of positions that a state stores individually, the maximum over rows; 0 if its size is constant."""
        return 0

    def extra_repr(self) -> str:
        """Shown by print(network)."""
        return f"width={self.width}"


class WholeRowMixer(Mixer):
    """A map whose outputs depend on positions before and after them: it reads whole rows at once, without a state."""

    @abstractmethod
    def mix(self, x_BTD: Tensor, length_B: Tensor | None) -> Tensor:
        """Return y_BTD; length_B (int): lengths of right-padded rows, whose padding no other position may see; None: no row is padded."""

    def initial_state(self, batch: int) -> State:
        """Return an empty state."""
        return ()

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Mix whole rows; no state is carried into them, and none of their positions starts an episode."""
        assert (state is None or len(state) == 0) and reset_BT is None, "a whole row has neither a past nor episodes within"
        return self.mix(x_BTD, length_B), ()

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Not possible: an output depends on later positions too."""
        raise AssertionError("a mixer that reads whole rows has no step")

    def state_bytes(self, context: int) -> int:
        """Return zero."""
        return 0


class HiddenMixer(Mixer):
    """A recurrence h_t = advance(projected(x_t), h_{t-1}). State: h of shape (B, D), zero at first."""

    def projected(self, x: Tensor) -> Tensor:
        """Compute the part that does not depend on the state, for any number of positions: (..., D) to (..., P). By default the identity."""
        return x

    @abstractmethod
    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Return the state after one position."""

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Return the state after every position; a mixer with a faster algorithm than the loop overrides this."""
        return self.loop(x_BTD, h_BD, reset_BT)

    def loop(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Loop over positions, with the input projections computed for all of them at once."""
        return loop(lambda projected_BP, before: (self.advance(projected_BP, *before),), self.projected(x_BTD), (h_BD,), reset_BT)[0]

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return next(self.parameters()).new_zeros(batch, self.width)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run a whole sequence; see `Mixer.forward`."""
        start_BD = self.initial_state(x_BTD.shape[0]) if state is None else state
        y_BTD = self.sequence(x_BTD, start_BD, reset_BT)
        return y_BTD, at_end(y_BTD, length_B, start_BD)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        h_BD = self.advance(self.projected(x_BD), state)
        return h_BD, h_BD if active_B is None else torch.where(active_B.unsqueeze(1), h_BD, state)

    def state_bytes(self, context: int) -> int:
        """D numbers, independent of the context."""
        return self.width * next(self.parameters()).element_size()
