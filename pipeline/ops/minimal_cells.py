"""Common code of minGRU and minLSTM: h_t = a_t h_{t-1} + u_t with gates that depend only on the input.

Notation: B = batch size, T = sequence length, D = width, G = linear maps of the input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.ops.gated_scan import gated_scan

POSITIONS = 4096
"""Positions processed together on the CPU, 2 MB per tensor at width 128: half as many, and all at once, were slower."""


def scan_by_rows(gates: Callable[[Tensor], tuple[Tensor, Tensor]], x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
    """Compute h_BTD by `gated_scan`. gates: maps x, at any number of positions, to a and u.

    On the CPU, processes a few rows at a time, so that a and u are still in cache for the scan.
    """
    batch, steps, _ = x_BTD.shape
    rows = max(1, POSITIONS // steps) if x_BTD.device.type == "cpu" else batch
    resets = [None] * -(-batch // rows) if reset_BT is None else reset_BT.split(rows)
    parts = zip(x_BTD.split(rows), h_BD.split(rows), resets, strict=True)
    return torch.cat([gated_scan(*gates(x), h, reset) for x, h, reset in parts])


def separately(layer: nn.Linear, x: Tensor) -> list[Tensor]:
    """Compute the G outputs (..., D) of a layer of G D rows by one product each: splitting one large output, and joining its gradient, is slower."""
    parts = (parameter.split(layer.in_features) for parameter in (layer.weight, layer.bias))
    return [functional.linear(x, weight_DD, bias_D) for weight_DD, bias_D in zip(*parts, strict=True)]


def candidate(c: Tensor, positive: bool) -> Tensor:
    """Return the candidate state: c, or if positive, g(c) = c + 1/2 where c > 0 and sigmoid(c) elsewhere (Feng et al. 2024, appendix B)."""
    return torch.relu(c) + torch.sigmoid(c.clamp(max=0)) if positive else c
