"""A loop over positions in plain torch, for cells without a parallel form.

Notation: B = batch size, T = sequence length, G = size of the projected input, D = width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

States = tuple[Tensor, ...]
"""States of a cell, each of shape (B, D)."""


def loop(advance: Callable[[Tensor, States], States], projected_BTG: Tensor, states: States, reset_BT: Tensor | None) -> States:
    """Return the states after every position, each of shape (B, T, D); `advance` maps one projected input and the states before it.

    Uses `unbind`, because indexing x[:, t] makes the backward pass quadratic in time.
    """
    resets = reset_BT.unsqueeze(-1).unbind(1) if reset_BT is not None and bool(reset_BT.any()) else [None] * projected_BTG.shape[1]
    found = []
    for projected_BG, reset_B1 in zip(projected_BTG.unbind(1), resets, strict=True):
        if reset_B1 is not None:
            states = tuple(state.masked_fill(reset_B1, 0) for state in states)
        states = advance(projected_BG, states)
        found.append(states)
    return tuple(torch.stack(parts, 1) for parts in zip(*found, strict=True))
