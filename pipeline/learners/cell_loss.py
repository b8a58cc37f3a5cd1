"""Cross-entropy of every cell's answer, with softmax or stablemax probabilities.

Stablemax (Prieto et al. 2025, "Grokking at the edge of numerical stability"): p_i = s(a_i) / sum_j s(a_j), with s(a) = a + 1 for a >= 0 and
1 / (1 - a) below, which grows linearly. In logarithms: log s(a) = log1p(a) for a >= 0, and -log1p(-a) below, exact in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from pipeline.config.learners import CellLoss


def cell_loss(logits_BTC: Tensor, labels_BT: Tensor, loss: CellLoss, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy in nats, of shape (B, T), with zeros where a label is negative.

    smoothing: share of the label that is spread evenly over all classes.
    """
    log_p_BTC = log_stablemax(logits_BTC) if loss == "stablemax" else log_softmax(logits_BTC, -1)
    labelled_BT = labels_BT >= 0
    nats_BT = -log_p_BTC.gather(-1, labels_BT.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    if smoothing:
        nats_BT = torch.lerp(nats_BT, -log_p_BTC.mean(-1), smoothing)
    return nats_BT.masked_fill(~labelled_BT, 0.0)


def log_stablemax(a: Tensor) -> Tensor:
    """Return the logarithms of stablemax probabilities over the last dimension."""
    log_s = torch.where(a >= 0, torch.log1p(a.clamp(min=0)), -torch.log1p(-a.clamp(max=0)))  # not by |a|, whose slope at 0 is 0
    return log_s - log_s.logsumexp(-1, keepdim=True)
