"""Right-padded rows: the mask of padding positions, and the values at each row's true end.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Operand = TypeVar("Operand", Tensor, Tensor | None)


def is_ragged(length_B: Tensor | None, steps: int) -> bool:
    """Whether lengths are given and any row is shorter than `steps`."""
    return length_B is not None and bool((length_B < steps).any())


def at_end(y_BTD: Tensor, length_B: Tensor | None, initial_BD: Tensor) -> Tensor:
    """Return the value at each row's last true position; the initial value if a row is empty."""
    if length_B is None:
        return y_BTD[:, -1]
    last_B = (length_B - 1).clamp(min=0)
    end_BD = y_BTD[torch.arange(y_BTD.shape[0], device=y_BTD.device), last_B]
    return torch.where((length_B > 0).unsqueeze(1), end_BD, initial_BD)


class Padding:
    """The padding of a batch of rows: every position at or after a row's length."""

    def __init__(self, length_B: Tensor | None, steps: int) -> None:
        """length_B: the rows' lengths, at most `steps`; None if no row is padded."""
        self.mask_BT: Tensor | None = None
        if length_B is not None and is_ragged(length_B, steps):
            self.mask_BT = torch.arange(steps, device=length_B.device) >= length_B.unsqueeze(1)

    def fill(self, operand: Operand, value: float = 0.0) -> Operand:
        """Return the operand, shape (B, T, ...), with `value` at every padded position; None for None."""
        if operand is None or self.mask_BT is None:
            return operand
        return operand.masked_fill(self.mask_BT.view(*self.mask_BT.shape, *[1] * (operand.dim() - 2)), value)
