"""Right-padded rows: the mask of padding positions, and the values at each row's true end.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def padding_mask(length_B: Tensor, steps: int) -> Tensor:
    """Return the mask that is true at padding positions, shape (B, T, 1, 1)."""
    return (torch.arange(steps, device=length_B.device) >= length_B.unsqueeze(1))[:, :, None, None]
