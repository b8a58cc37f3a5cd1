"""States: pytrees (dict, list, tuple, named tuple) of tensors whose first dimension is the batch. One place to select, fork and join them.

Leaves may differ in length along later dimensions, as caches of keys do that grew to different sizes; the shorter one is padded with zeros,
which its owner ignores because it carries its own lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

State = Any
"""A nested dict, list or tuple of tensors, batch first. Empty where nothing is carried."""


def transform(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """Apply a function to each leaf, together with the same leaf of the other states."""
    if isinstance(state, Tensor):
        return function(state, *others)
    if isinstance(state, dict):
        return {key: transform(function, value, *(other[key] for other in others)) for key, value in state.items()}
    items = [transform(function, *leaves) for leaves in zip(state, *others, strict=True)]
    return type(state)(*items) if hasattr(state, "_fields") else type(state)(items)


def leaves(state: State) -> list[Tensor]:
    """Every tensor of a state, in a fixed order."""
    found: list[Tensor] = []
    transform(lambda leaf: found.append(leaf) or leaf, state)
    return found


def select(state: State, indices: Tensor) -> State:
    """The rows at `indices` (int), in that order; a row may be taken more than once."""
    return transform(lambda leaf: leaf.index_select(0, indices), state)


def cut(state: State, start: int, stop: int) -> State:
    """The rows from `start` up to `stop`, sharing memory with the state."""
    return transform(lambda leaf: leaf[start:stop], state)


def fork(state: State, copies: int) -> State:
    """Each row `copies` times, its copies side by side: what several continuations of one prefix start from."""
    return transform(lambda leaf: leaf.repeat_interleave(copies, 0), state)


def concatenate(states: Sequence[State]) -> State:
    """The rows of all states, one state after the other."""
    return transform(lambda *parts: torch.cat(_aligned(parts)), *states)


def where(active_B: Tensor, new: State, old: State) -> State:
    """Rows of `new` where active_B (bool) is true, of `old` elsewhere."""

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
