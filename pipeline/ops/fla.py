"""Backend `fla` of the matrix states: the Triton kernels of flash-linear-attention (Yang & Zhang 2024) on a CUDA device.

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value, G = segments: pieces of a row
without a reset inside.

The kernels compute the recurrences of `linear_scan`, `delta_rule` and `dplr` as they are stated there, from states of the same layout.
Two of theirs are not used: the delta rule without decay, which refuses float32 (the one with decay is given decays of one), and the
normalised linear attention, since our normaliser is a column of the state. Products are rounded as float32, like torch's own, not as
TF32, which is Triton's default; the environment variable TRITON_F32_DEFAULT=tf32 gives exactness away for speed.
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
"""The smallest and the largest number of channels of a key that the kernels are made for."""


def refusal(k_BTHK: Tensor) -> str | None:
    """Why the kernels cannot work on such keys; None where they can."""
    if k_BTHK.device.type != "cuda":
        return f"it runs on CUDA and got a tensor on {k_BTHK.device.type}"
    if k_BTHK.dtype != torch.float32:
        return f"it computes in float32 and got {k_BTHK.dtype}"
    if not CHANNELS[0] <= k_BTHK.shape[-1] <= CHANNELS[1]:
        return f"it takes {CHANNELS[0]} to {CHANNELS[1]} channels of a key and got {k_BTHK.shape[-1]}"
    return missing()


@functools.cache
def missing() -> str | None:
    """Why the package cannot be imported; None where it can."""
    if importlib.util.find_spec("fla") is None:
        return "flash-linear-attention is not installed (extra cuda)"
    try:
        kernel("gla", "chunk_gla")
    except Exception as error:  # whatever an installation that does not fit raises
        return f"flash-linear-attention cannot be imported ({type(error).__name__}: {error})"
    return None


def kernel(package: str, name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function of fla.ops."""
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    return getattr(importlib.import_module(f"fla.ops.{package}"), name)


def linear_scan(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_decay: Tensor | None, state_BHKV: Tensor, reset_BT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `pipeline.ops.linear_scan.linear_scan`, without lengths."""
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
    """As `pipeline.ops.delta_rule.delta_rule`, without lengths."""
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
    """As `pipeline.ops.dplr.dplr`, without lengths; theirs is diagonal plus rank one, ours minus."""
    sequences = {"q": q_BTHK, "k": k_BTHK, "v": v_BTHV, "a": -a_BTHK, "b": b_BTHK, "gk": log_decay_BTHK}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not support float32", category=RuntimeWarning)
        return _run(kernel("generalized_delta_rule", "chunk_dplr_delta_rule"), sequences, state_BHKV, reset_BT)


def _run(
    function: Callable[..., tuple[Tensor, Tensor]], sequences: dict[str, Tensor], state_BHKV: Tensor, reset_BT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A kernel on whole rows; or, where episodes start within them, on all segments laid end to end as one row."""
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
