"""A network's answers at the scored positions of a batch, with their losses and whether they are correct.

For classes, the loss is cross-entropy in nats and the answer is the most likely class. For real numbers, the loss is squared error, and an
answer within the task's tolerance is correct.

Notation: B = rows of a batch, T = tokens of its longest row, C = outputs: one per class, or a single real number, N = scored positions, in
row-major order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from pipeline.learners.sampler import Batch
from pipeline.ops.padding import is_ragged


class Answers(NamedTuple):
    """Outputs and labels at the scored positions. `tolerance`: None if answers are classes."""

    output_NC: Tensor
    labels_N: Tensor
    row_N: Tensor  # on the CPU: row of the batch
    tolerance: float | None

    @property
    def correct_N(self) -> Tensor:
        """Whether each answer is correct: the most likely class is the label, or the number is within the tolerance."""
        if self.tolerance is None:
            return self.output_NC.argmax(-1) == self.labels_N
        return (self.output_NC.squeeze(-1) - self.labels_N).abs() <= self.tolerance

    def loss(self, reduction: str = "mean") -> Tensor:
        """Compute cross-entropy in nats, or squared error; `reduction`: mean, sum, or none for one value per position."""
        if self.tolerance is None:
            return cross_entropy(self.output_NC, self.labels_N, reduction=reduction)
        return mse_loss(self.output_NC.squeeze(-1), self.labels_N, reduction=reduction)


def answers(network: nn.Module, batch: Batch, tolerance: float | None, device: torch.device, **inputs: Tensor) -> Answers:
    """Compute the network's answers at the scored positions of a batch, on the device; `inputs` are further arguments of the network.
    The positions are computed on the CPU, where the labels are: on the device, the host would have to synchronise for their number.
    """
    position_N = batch.scored_BT.flatten().nonzero().squeeze(1)
    labels_N = batch.labels_BT.flatten()[position_N].to(device, non_blocking=True)
    output_NC, _ = network(**batch.inputs(device), at_N=position_N.to(device, non_blocking=True), **inputs)
    return Answers(output_NC, labels_N, position_N // batch.labels_BT.shape[1], tolerance)


def lengths(network: Any, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Return the argument `length_B` of a network that sees later positions, if any row is padded.

    A causal network needs none: padding does not affect the scored positions before it.
    """
    config = getattr(network, "config", None)
    if config is None or config.causal or not is_ragged(batch.length_B, batch.tokens_BT.shape[1]):
        return {}
    return {"length_B": batch.length_B.to(device, non_blocking=True)}
