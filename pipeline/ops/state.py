"""States: pytrees (dict, list, tuple, named tuple) of tensors with the batch as first dimension; functions to select, fork and concatenate.

Leaves may differ in size along later dimensions, as key caches of different lengths do; smaller ones are zero-padded, and the padding is
ignored because such a state stores its lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

State = Any
"""A nested dict, list or tuple of tensors, batch first; empty for a module without state."""


def transform(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """Apply a function to each leaf and the corresponding leaves of the other states."""
    if isinstance(state, Tensor):
        return function(state, *others)
    if isinstance(state, dict):
        return {key: transform(function, value, *(other[key] for other in others)) for key, value in state.items()}
    items = [transform(function, *leaves) for leaves in zip(state, *others, strict=True)]
    return type(state)(*items) if hasattr(state, "_fields") else type(state)(items)


def leaves(state: State) -> list[Tensor]:
    """Return all tensors of a state, in a fixed order."""
    found: list[Tensor] = []
    transform(lambda leaf: found.append(leaf) or leaf, state)
    return found


def select(state: State, indices: Tensor) -> State:
    """Select the rows at `indices` (int), in that order, with repetition."""
    return transform(lambda leaf: leaf.index_select(0, indices), state)


def cut(state: State, start: int, stop: int) -> State:
    """Slice the rows from `start` to `stop`, sharing memory with the state."""
    return transform(lambda leaf: leaf[start:stop], state)


def fork(state: State, copies: int) -> State:
    """Repeat each row `copies` times, next to each other, to start several continuations of one prefix."""
    return transform(lambda leaf: leaf.repeat_interleave(copies, 0), state)


def concatenate(states: Sequence[State]) -> State:
    """Concatenate the rows of all states. A single one is returned as it is."""
    return states[0] if len(states) == 1 else transform(lambda *parts: torch.cat(_aligned(parts)), *states)


def where(active_B: Tensor, new: State, old: State) -> State:
    """Take the rows of `new` where active_B (bool) is true, of `old` elsewhere."""

    def choose(*pair: Tensor) -> Tensor:
        present, past = _aligned(pair)
        return torch.where(active_B.view(-1, *[1] * (present.dim() - 1)), present, past)

    return transform(choose, new, old)


def _aligned(parts: Sequence[Tensor]) -> list[Tensor]:
    longest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    return [_padded(part, longest) for part in parts]


def _padded(leaf: Tensor, sizes: list[int]) -> Tensor:
    missing = [size - have for size, have in zip(sizes, leaf.shape[1:], strict=True)]
    if not any(missing):
        return leaf
    return functional.pad(leaf, [end for amount in reversed(missing) for end in (0, amount)])
