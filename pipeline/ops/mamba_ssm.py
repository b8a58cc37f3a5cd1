"""Backend `mamba_ssm` of the selective scan: the CUDA kernel of the authors' package mamba-ssm (Gu & Dao 2023).

Notation: B = batch size, T = sequence length, E = channels, N = states per channel.

The kernel supports neither an initial state nor resets, and has no gradient with respect to the final state: such calls are not accepted,
and a gradient that reaches the final state raises an error instead of being zero.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from pipeline.storage.errors import UserError

STATES = 256
"""Largest number of states per channel that the kernel supports."""


def unavailable_reason(x_BTE: Tensor, states: int, state_BEN: Tensor | None, reset_BT: Tensor | None) -> str | None:
    """Return why the kernel cannot run this call; None if it can."""
    if x_BTE.device.type != "cuda":
        return "needs tensors on a CUDA GPU"
    if x_BTE.dtype != torch.float32:
        return f"it computes in float32 and got {x_BTE.dtype}"
    if states > STATES:
        return f"it takes up to {STATES} states of a channel and got {states}"
    if state_BEN is not None:
        return "it starts from zeros and got a state"
    if reset_BT is not None and bool(reset_BT.any()):
        return "it knows no episodes and got resets"
    return import_failure()


@functools.cache
def import_failure() -> str | None:
    """Return why the kernel cannot be imported; None if it can."""
    try:
        importlib.import_module("selective_scan_cuda")
        _interface()
    except Exception as error:  # a broken installation may raise anything
        return f"mamba-ssm with its CUDA extension cannot be imported ({type(error).__name__}: {error})"
    return None


def _interface() -> Any:
    return importlib.import_module("mamba_ssm.ops.selective_scan_interface")


def selective_scan(
    x_BTE: Tensor, step_BTE: Tensor, rate_EN: Tensor, write_BTN: Tensor, read_BTN: Tensor, skip_E: Tensor
) -> tuple[Tensor, Tensor]:
    """Same as `pipeline.ops.selective_scan.selective_scan` from a zero state; the kernel has time as its last dimension."""
    sequences = (tensor.mT.contiguous() for tensor in (x_BTE, step_BTE))
    maps = (tensor.mT.contiguous() for tensor in (write_BTN, read_BTN))
    y_BET, state_BEN = _interface().selective_scan_fn(*sequences, rate_EN.contiguous(), *maps, skip_E, return_last_state=True)
    return y_BET.mT, _WithoutGradient.apply(state_BEN.contiguous(), y_BET)  # pyright: ignore[reportReturnType]


class _WithoutGradient(torch.autograd.Function):
    """Identity on the state that raises an error in the backward pass, where the kernel's gradient would be zero."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        return arguments[0].view_as(arguments[0])

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[None, None]:
        raise UserError("selective_scan: backend mamba_ssm gives no gradient of the last state; expected RECURLAB_BACKEND=torch for that")
