"""The helpers that select, fork and join states."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pipeline.ops import state


class Pair(NamedTuple):
    """A state of two leaves."""

    first: Tensor
    second: Tensor


def nested(rows: int = 3, slots: int = 2) -> state.State:
    """A state of every kind of container."""
    numbers = torch.arange(rows * slots * 2.0).view(rows, slots, 2)
    return {"cache": Pair(numbers, torch.arange(rows)), "blocks": [numbers[:, 0], (numbers[:, :, 0],)], "empty": ()}


def test_containers_keep_their_kinds() -> None:
    found = state.select(nested(), torch.tensor([2, 0, 0]))
    assert isinstance(found["cache"], Pair) and isinstance(found["blocks"], list) and found["empty"] == ()
    assert found["cache"].second.tolist() == [2, 0, 0]
    assert torch.equal(found["blocks"][1][0], nested()["blocks"][1][0][[2, 0, 0]])


def test_leaves_are_found_in_order() -> None:
    assert [tuple(leaf.shape) for leaf in state.leaves(nested())] == [(3, 2, 2), (3,), (3, 2), (3, 2)]
    assert state.leaves(()) == []


def test_fork_puts_copies_side_by_side() -> None:
    assert state.fork(nested(), 2)["cache"].second.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_fork_owns_its_numbers() -> None:
    original = nested()
    forked = state.fork(original, 1)
    forked["cache"].first.zero_()
    assert bool(original["cache"].first.any())


def test_concatenate_pads_the_shorter_cache_with_zeros() -> None:
    joined = state.concatenate([nested(2, 1), nested(1, 3)])["cache"]
    assert joined.first.shape == (3, 3, 2) and joined.second.tolist() == [0, 1, 0]
    assert torch.equal(joined.first[:2, :1], nested(2, 1)["cache"].first) and not joined.first[:2, 1:].any()
    assert torch.equal(joined.first[2:], nested(1, 3)["cache"].first)


def test_where_chooses_rows() -> None:
    active, new, old = torch.tensor([True, False, True]), state.transform(torch.ones_like, nested()), nested(3, 4)
    mixed = state.where(active, new, old)["cache"]
    assert mixed.second.tolist() == [1, 1, 1] and mixed.first.shape == (3, 4, 2)
    assert torch.equal(mixed.first[1], old["cache"].first[1]) and bool((mixed.first[0, :2] == 1).all())


def test_states_of_different_structure_do_not_mix() -> None:
    with pytest.raises(ValueError, match="zip"):
        state.concatenate([(torch.ones(1),), (torch.ones(1), torch.ones(1))])


def test_a_cut_shares_memory() -> None:
    whole = nested()
    part = state.cut(whole, 1, 3)
    assert part["cache"].first.equal(whole["cache"].first[1:]) and part["blocks"][1][0].equal(whole["blocks"][1][0][1:])
    assert isinstance(part["cache"], Pair) and part["empty"] == ()
    assert part["cache"].second.data_ptr() == whole["cache"].second[1:].data_ptr()
