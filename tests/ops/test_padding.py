"""Padding: what stands after a row's end is replaced, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from pipeline.ops.padding import Padding


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2), (3, 5, 2, 4)])
def test_what_stands_after_a_rows_end_is_replaced(shape: tuple[int, ...]) -> None:
    operand = torch.randn(shape)
    filled = Padding(torch.tensor([5, 0, 3]), 5).fill(operand, 7.0)
    for row, length in enumerate((5, 0, 3)):
        assert torch.equal(filled[row, :length], operand[row, :length])
        assert (filled[row, length:] == 7).all()


def test_resets_in_the_padding_are_none() -> None:
    reset_BT = torch.ones(2, 3, dtype=torch.bool)
    assert Padding(torch.tensor([1, 3]), 3).fill(reset_BT, False).tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("length_B", [None, torch.tensor([4, 4])])
def test_without_padding_an_operand_is_the_same_object(length_B: torch.Tensor | None) -> None:
    operand = torch.randn(2, 4)
    assert Padding(length_B, 4).fill(operand) is operand
    assert Padding(torch.tensor([1, 2]), 4).fill(None) is None
