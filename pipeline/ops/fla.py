"""Backend `fla` of the recurrences with matrix states: Triton kernels of flash-linear-attention (Yang & Zhang 2024), on CUDA.

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value, G = segments: parts of a
row without a reset inside.

The kernels compute the recurrences of `linear_scan`, `delta_rule` and `dplr` with the same state layout. Two of the package's kernels are
not used: the delta rule without decay, which does not accept float32 (the kernel with decay is called with a decay of 1), and normalised
linear attention, since here the normaliser is a column of the state. Matrix products use full float32 precision, as in torch, not TF32,
Triton's default; set the environment variable TRITON_F32_DEFAULT=tf32 to trade precision for speed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHANNELS = (16, 256)
"""Smallest and largest number of key channels that the kernels support."""


def unavailable_reason(k_BTHK: Tensor) -> str | None:
    """Return why the kernels cannot process these keys; None if they can."""
    if k_BTHK.device.type != "cuda":
        return "needs tensors on a CUDA GPU"
    if k_BTHK.dtype != torch.float32:
        return f"it computes in float32 and got {k_BTHK.dtype}"
    if not CHANNELS[0] <= k_BTHK.shape[-1] <= CHANNELS[1]:
        return f"it takes {CHANNELS[0]} to {CHANNELS[1]} channels of a key and got {k_BTHK.shape[-1]}"
    return import_failure()


@functools.cache
def import_failure() -> str | None:
    """Return why the package cannot be imported; None if it can."""
    if importlib.util.find_spec("fla") is None:
        return "flash-linear-attention is not installed (extra cuda)"
    try:
        kernel("gla", "chunk_gla")
    except Exception as error:  # a broken installation may raise anything
        return f"flash-linear-attention cannot be imported ({type(error).__name__}: {error})"
    return None


def kernel(package: str, name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Import a function of fla.ops."""
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    return getattr(importlib.import_module(f"fla.ops.{package}"), name)


def linear_scan(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_decay: Tensor | None, state_BHKV: Tensor, reset_BT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Same as `pipeline.ops.linear_scan.linear_scan`, without lengths."""
    q_BTHK, k_BTHK = (part.expand(-1, -1, v_BTHV.shape[2], -1) for part in (q_BTHK, k_BTHK))
    sequences = {"q": q_BTHK, "k": k_BTHK, "v": v_BTHV}
    if log_decay is None:
        return _run(kernel("simple_gla", "chunk_simple_gla"), sequences, state_BHKV, reset_BT)
    if log_decay.shape[-1] == 1:
        return _run(kernel("simple_gla", "chunk_simple_gla"), {**sequences, "g": log_decay.squeeze(-1)}, state_BHKV, reset_BT)
    return _run(kernel("gla", "chunk_gla"), {**sequences, "g": log_decay}, state_BHKV, reset_BT)


def delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    strength_BTH: Tensor,
    log_decay_BTH: Tensor | None,
    state_BHKV: Tensor,
    reset_BT: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Same as `pipeline.ops.delta_rule.delta_rule`, without lengths."""
    decay_BTH = torch.zeros_like(strength_BTH) if log_decay_BTH is None else log_decay_BTH
    sequences = {"q": q_BTHK, "k": k_BTHK, "v": v_BTHV, "g": decay_BTH, "beta": strength_BTH}
    return _run(kernel("gated_delta_rule", "chunk_gated_delta_rule"), sequences, state_BHKV, reset_BT)


def dplr(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    log_decay_BTHK: Tensor,
    state_BHKV: Tensor,
    reset_BT: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Same as `pipeline.ops.dplr.dplr`, without lengths; the package's transition is diagonal plus rank one, ours diagonal minus."""
    sequences = {"q": q_BTHK, "k": k_BTHK, "v": v_BTHV, "a": -a_BTHK, "b": b_BTHK, "gk": log_decay_BTHK}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not support float32", category=RuntimeWarning)
        return _run(kernel("generalized_delta_rule", "chunk_dplr_delta_rule"), sequences, state_BHKV, reset_BT)


def _run(
    function: Callable[..., tuple[Tensor, Tensor]], sequences: dict[str, Tensor], state_BHKV: Tensor, reset_BT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run a kernel on whole rows or, if episodes start inside them, on all segments concatenated to one row (`cu_seqlens`)."""
    fixed: dict[str, Any] = {"scale": 1.0, "output_final_state": True}
    if reset_BT is None or not bool(reset_BT.any()):
        return function(**sequences, **fixed, initial_state=state_BHKV)
    (batch, steps), starts_BT = reset_BT.shape, reset_BT.clone()
    starts_BT[:, 0] = True
    place_G = starts_BT.flatten().nonzero().squeeze(1)
    row_G, fresh_G = place_G // steps, reset_BT.flatten()[place_G]
    state_GHKV = state_BHKV[row_G].masked_fill(fresh_G[:, None, None, None], 0.0)
    edges = torch.cat([place_G, place_G.new_tensor([batch * steps])])
    flat = {name: part.flatten(0, 1).unsqueeze(0) for name, part in sequences.items()}
    y, after_GHKV = function(**flat, **fixed, initial_state=state_GHKV, cu_seqlens=edges)
    return y.squeeze(0).unflatten(0, (batch, steps)), after_GHKV[starts_BT.sum(1).cumsum(0) - 1]
