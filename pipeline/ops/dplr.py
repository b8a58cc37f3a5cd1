"""The generalised delta rule: a transition that is diagonal minus rank one (DPLR), with one decay per channel of the key.

    S_t = (diag(w_t) - b_t a_t^T) S_{t-1} + k_t v_t^T        S_{t-1} = 0 where t starts a new episode
        = diag(w_t) S_{t-1} + k_t v_t^T - b_t u_t^T    with    u_t = S_{t-1}^T a_t
    y_t = S_t^T q_t

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value, S = state (K x V), C = positions
per chunk, N = chunks; w = decay, a = key that is read, b = key under which the value read is removed. The delta rule with write strength e is
a = k, b = e k, w = 1.

Chunked form (as in `delta_rule`; for this transition: Peng et al. 2025, "RWKV-7 Goose with expressive dynamic state evolution",
arXiv 2503.14456): with P_i = prod_{t <= i} w_t, S the state before the chunk, and A(x, y)_ij = sum_K x_i y_j P_i / P_j,

    (I + A(a / w, b)) U = (a P / w) S + A(a / w, k) V        both A for j < i: one triangular solve per chunk, in the loop over chunks
    Y = (q P) S + A(q, k) V - A(q, b) U                      for j <= i: for all chunks at once

P_i / P_j is split into the factors P_i and 1 / P_j, so that each A is one matrix product. This is accurate as long as P stays in the range of
the dtype: w >= `LOWEST` keeps it above 1e-9 over SIZE positions. P starts anew with each episode, so that not even the rounding error of a
gradient crosses a reset. Backends: `torch` is this form; `fla` computes it by `pipeline.ops.fla`, on CUDA.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from pipeline.ops import backends, fla
from pipeline.ops.chunks import Chunks
from pipeline.ops.padding import Padding

SIZE = 32
"""Positions per chunk."""
LOWEST = math.exp(-math.exp(-0.5))
"""The smallest decay factor of one position, 0.545."""


def dplr(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    log_decay_BTHK: Tensor,
    state_BHKV: Tensor,
    reset_BT: Tensor | None = None,
    length_B: Tensor | None = None,
    size: int = SIZE,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return outputs y_BTHV and the state at each row's true end; reset_BT and length_B as in `Mixer.forward`.

    log_decay_BTHK: log w, between log `LOWEST` and zero.
    size: positions per chunk of backend `torch`, a power of two up to `SIZE`; affects only speed and rounding.
    Raises UserError if an explicit backend is not available.
    """
    steps = q_BTHK.shape[1]
    padding = Padding(length_B, steps)
    k_BTHK, b_BTHK, log_decay_BTHK = map(padding.fill, (k_BTHK, b_BTHK, log_decay_BTHK))
    reset_BT = padding.fill(reset_BT, False)
    candidates: dict[str, backends.UnavailableReason] = {"fla": partial(fla.unavailable_reason, k_BTHK), "torch": lambda: None}
    if backends.choose("dplr", candidates, backend) == "fla":
        return fla.dplr(q_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK, log_decay_BTHK, state_BHKV, reset_BT)
    chunks = Chunks(steps, size, reset_BT)
    v, log_decay, (q, k, a, b) = chunks.split(v_BTHV), chunks.split(log_decay_BTHK), map(chunks.cut, (q_BTHK, k_BTHK, a_BTHK, b_BTHK))
    sums = chunks.sums(log_decay)
    grown, shrunk = sums.neg().exp_(), sums.exp()
    reading, recalling, writing, removing = shrunk * q, (sums - log_decay).exp_() * a, grown * k, grown * b
    kept = shrunk[..., -1, :].unsqueeze(-1)
    parts = (
        chunks.causal(reading @ writing.mT) @ v,
        chunks.causal(reading @ removing.mT),
        chunks.mask_reads(reading),
        chunks.causal(recalling @ writing.mT, -1) @ v,
        chunks.causal(recalling @ removing.mT, -1),
        chunks.mask_reads(recalling),
        chunks.mask_writes(writing).mT @ v,
        chunks.mask_writes(removing).mT,
        kept,
        chunks.mask_decay(kept),
    )
    y, state_BHKV = _carry(state_BHKV, *parts)
    return chunks.join(y), state_BHKV


def dplr_step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, a_BHK: Tensor, b_BHK: Tensor, log_decay_BHK: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute one position of the recurrence: y_BHV and the new state."""
    u_BH1V = a_BHK.unsqueeze(-2) @ state_BHKV
    kept = state_BHKV * log_decay_BHK.exp().unsqueeze(-1)
    state_BHKV = kept + k_BHK.unsqueeze(-1) * v_BHV.unsqueeze(-2) - b_BHK.unsqueeze(-1) * u_BH1V
    return (q_BHK.unsqueeze(-2) @ state_BHKV).squeeze(-2), state_BHKV


def _carry(state_BHKV: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
    """Loop over chunks: outputs, shape (N, B, H, C, V), and the final state."""
    outputs, state = [], state_BHKV.flatten(0, 1)
    for own, y_of_u, reading, held, u_of_u, recalling, written, removing, kept, carried in zip(
        *(part.flatten(1, 2).unbind() for part in parts), strict=True
    ):
        # The solver assumes a unit diagonal and ignores the upper triangle.
        u = torch.linalg.solve_triangular(u_of_u, torch.baddbmm(held, recalling, state), upper=False, unitriangular=True)
        outputs.append(torch.baddbmm(own, reading, state).baddbmm_(y_of_u, u, alpha=-1))
        state = torch.addcmul(kept * torch.baddbmm(written, removing, u, alpha=-1), carried, state)
    return torch.stack(outputs).unflatten(1, state_BHKV.shape[:2]), state.unflatten(0, state_BHKV.shape[:2])
