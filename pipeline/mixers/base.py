"""What every mixer does: map a sequence to a sequence of the same shape, carrying state.

Letters: B batch, T time, D width. A state is a pytree of tensors, batch first; `pipeline.mixers.state` selects, forks and joins states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.mixers.state import State


class Mixer(nn.Module, ABC):
    """A causal map from x_BTD to y_BTD. Rows are independent; a state given is never changed, and may be used again."""

    decayed: ClassVar[tuple[str, ...]] = ()
    """Which of the module's own `nn.Parameter`s weight decay applies to: matrices, not rates, step sizes, gains or biases. Layers of torch
    need no mention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

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


def is_ragged(length_B: Tensor | None, steps: int) -> bool:
    """Whether lengths are given and any row is shorter than `steps`."""
    return length_B is not None and bool((length_B < steps).any())


def at_end(y_BTD: Tensor, length_B: Tensor | None, initial_BD: Tensor) -> Tensor:
    """The value at each row's last true position; the initial one where a row is empty."""
    if length_B is None:
        return y_BTD[:, -1]
    last_B = (length_B - 1).clamp(min=0)
    end_BD = y_BTD[torch.arange(y_BTD.shape[0], device=y_BTD.device), last_B]
    return torch.where((length_B > 0).unsqueeze(1), end_BD, initial_BD)
