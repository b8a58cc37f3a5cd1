"""Answers at scored positions, against plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline.learners.answers import Answers, answers
from pipeline.learners.sampler import Batch

LENGTHS = torch.tensor([3, 2])


class Says(nn.Module):
    """Answers from a table, whatever it reads."""

    def __init__(self, output_BTC: Tensor) -> None:
        super().__init__()
        self.output_BTC = output_BTC

    def forward(self, tokens_BT: Tensor, at_N: Tensor) -> tuple[Tensor, None]:
        return self.output_BTC.flatten(0, 1)[at_N], None


def said(output_BTC: Tensor, batch: Batch, tolerance: float | None) -> Answers:
    return answers(Says(output_BTC), batch, tolerance, torch.device("cpu"))


def batch_of(labels: list[list[float]], kind: torch.dtype) -> Batch:
    return Batch(torch.zeros(2, 3, dtype=torch.int64), torch.tensor(labels, dtype=kind), LENGTHS, {})


def test_classes_are_judged_by_cross_entropy() -> None:
    output_BTC = torch.tensor([[[9.0, 9.0], [2.0, 0.5], [0.0, 1.0]], [[0.0, 3.0], [9.0, 9.0], [9.0, 9.0]]])
    found = said(output_BTC, batch_of([[-100, 0, 0], [1, -100, -100]], torch.int64), None)
    expected = [math.log(1 + math.exp(-gap)) for gap in (1.5, -1.0, 3.0)]
    assert found.correct_N.tolist() == [True, False, True] and found.row_N.tolist() == [0, 0, 1]
    assert found.loss("none").tolist() == pytest.approx(expected, rel=1e-5)
    assert float(found.loss()) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_real_answers_are_judged_by_squared_error() -> None:
    output_BTC = torch.tensor([[[9.0], [0.5], [-99.75]], [[0.0], [9.0], [9.0]]])
    labels = [[math.nan, 0.625, -100.0], [0.0, math.nan, math.nan]]
    found = said(output_BTC, batch_of(labels, torch.float32), 0.125)
    assert found.correct_N.tolist() == [True, False, True] and found.row_N.tolist() == [0, 0, 1]
    assert found.loss("none").tolist() == [0.125**2, 0.25**2, 0.0]
    assert float(found.loss("sum")) == pytest.approx(0.078125) and float(found.loss()) == pytest.approx(0.078125 / 3)
