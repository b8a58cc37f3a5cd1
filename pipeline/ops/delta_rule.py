"""The delta rule: a matrix state that removes the value stored under a key before it writes a new one.

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T        S_{t-1} = 0 where t starts a new episode
        = a_t S_{t-1} + k_t u_t^T    with    u_t = b_t (v_t - a_t S_{t-1}^T k_t)
    y_t = S_t^T q_t

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value, S = state (K x V), C = positions
per chunk, N = chunks; a = decay per head, b = write strength. For |k| <= 1 and b in [0, 2] the transition is non-expansive.

Chunked form (Yang et al. 2024, "Parallelizing linear transformers with the delta rule over sequence length", arXiv 2406.06484, the WY
form; with decay: Yang et al. 2025, "Gated delta networks", arXiv 2412.06464, section 3.3): within a chunk the u are coupled
by a triangular matrix, L_ij = b_i (k_i . k_j) prod_{j < t <= i} a_t for j < i. With P_i = prod_{t <= i} a_t and S the state before the chunk,

    (I + L) U = diag(b) V - diag(b P) K S        one triangular solve per chunk, in the loop over chunks
    Y = diag(P) Q S + (Q K^T * decays) U         for all chunks at once, as in `linear_scan`

The papers solve for V and K before S is known, which doubles the cost of the solves: measured, a seventh of the time on the CPU.

Backends. `torch` is this form; `fla` computes it by `pipeline.ops.fla`, on CUDA. `c`: on the CPU, the recurrence above with the state in
cache throughout: 3 K V multiplications per position, fewer than a chunked form. It stores the state before each block of positions and
recomputes the others in the backward pass. With D_t = dL/dS_t, the sum of q_t dL/dy_t^T and the gradient passed back from position t + 1,
and e_t = -dL/dv_t,

    dL/dq_t = S_t dL/dy_t                     dL/du_t = D_t^T k_t    dL/dv_t = b_t dL/du_t    dL/db_t = dL/du_t . u_t / b_t
    dL/dk_t = D_t u_t + a_t S_{t-1} e_t       dL/da_t = <S_{t-1}, D_t + k_t e_t^T>            passed back: a_t (D_t + k_t e_t^T)
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pipeline.ops import backends, delta_rule_c, fla, native
from pipeline.ops.chunks import Chunks, spans
from pipeline.ops.padding import Padding

OPERATION = "delta_rule"
SIZE = 32
"""Positions per chunk of backend `torch`."""
EPSILON = 1e-6
"""Added to squared norms before the division."""


def delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    strength_BTH: Tensor,
    log_decay_BTH: Tensor | None,
    state_BHKV: Tensor,
    reset_BT: Tensor | None = None,
    length_B: Tensor | None = None,
    size: int = SIZE,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return outputs y_BTHV and the state at each row's true end; reset_BT and length_B as in `Mixer.forward`.

    strength_BTH: b. log_decay_BTH: log a <= 0; None for no decay, where values are only overwritten.
    size: positions per chunk of backend `torch`, a power of two; affects only speed and rounding.
    Raises UserError if an explicit backend is not available.
    """
    steps = q_BTHK.shape[1]
    padding = Padding(length_B, steps)
    k_BTHK, log_decay_BTH, reset_BT = padding.fill(k_BTHK), padding.fill(log_decay_BTH), padding.fill(reset_BT, False)
    candidates: dict[str, backends.UnavailableReason] = {
        "fla": partial(fla.unavailable_reason, k_BTHK),
        "c": partial(native.unavailable_reason, delta_rule_c.SOURCE, k_BTHK),
        "torch": lambda: None,
    }
    sequences = q_BTHK, k_BTHK, v_BTHV, strength_BTH
    match backends.choose(OPERATION, candidates, backend):
        case "fla":
            return fla.delta_rule(*sequences, log_decay_BTH, state_BHKV, reset_BT)
        case "c":
            kept_BTH = torch.ones_like(strength_BTH) if log_decay_BTH is None else log_decay_BTH.exp()
            if reset_BT is not None:
                kept_BTH = kept_BTH.masked_fill(reset_BT.unsqueeze(-1), 0.0)
            return delta_rule_c.run(*sequences, kept_BTH, state_BHKV)
        case _:
            return _chunked(*sequences, log_decay_BTH, state_BHKV, Chunks(steps, size, reset_BT))


def _chunked(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, strength_BTH: Tensor, log_decay_BTH: Tensor | None, state_BHKV: Tensor, chunks: Chunks
) -> tuple[Tensor, Tensor]:
    q, k, v, strength = (chunks.split(part) for part in (q_BTHK, k_BTHK, v_BTHV, strength_BTH.unsqueeze(-1)))
    weighted = strength * k
    reads, overlaps, reading, writing, kept = q @ k.mT, weighted @ k.mT, weighted, k, q.new_ones(len(q), 1, 1, 1, 1)
    if log_decay_BTH is None:
        reads, overlaps = chunks.causal(reads), chunks.causal(overlaps)
    else:
        decay = chunks.split(log_decay_BTH.unsqueeze(-1))
        span = spans(decay.squeeze(-1))
        before, between = (span[..., :1] + decay[..., :1, :]).exp(), chunks.causal(span.exp())
        reads, overlaps, q, reading = reads * between, overlaps * between, q * before, weighted * before
        writing, kept = k * span[..., -1, :].exp().unsqueeze(-1), before[..., -1:, :]
    kept = chunks.mask_decay(kept.expand(-1, *k.shape[1:3], -1, -1))
    starts, updates, state_BHKV = _carry(state_BHKV, kept, overlaps, strength * v, chunks.mask_reads(reading), chunks.mask_writes(writing))
    return chunks.join(reads @ updates + chunks.mask_reads(q) @ starts), state_BHKV


def delta_step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, strength_BH: Tensor, log_decay_BH: Tensor | None, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute one position of the recurrence: y_BHV and the new state."""
    kept = state_BHKV if log_decay_BH is None else state_BHKV * log_decay_BH.exp()[..., None, None]
    held_BHV = (k_BHK.unsqueeze(-2) @ kept).squeeze(-2)
    update_BHV = strength_BH.unsqueeze(-1) * (v_BHV - held_BHV)
    state_BHKV = kept + k_BHK.unsqueeze(-1) * update_BHV.unsqueeze(-2)
    return (q_BHK.unsqueeze(-2) @ state_BHKV).squeeze(-2), state_BHKV


def unit(x: Tensor) -> Tensor:
    """Normalise the last dimension of x to unit length; slightly less, so that zero stays zero and has a gradient."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPSILON)


def _carry(
    state_BHKV: Tensor, kept: Tensor, lower: Tensor, values: Tensor, reading: Tensor, writing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loop over chunks: the state before each chunk, (N, B, H, K, V), u at all positions, (N, B, H, C, V), and the final state."""
    starts, updates = [], []
    for kept_BH11, lower_BHCC, values_BHCV, reading_BHCK, writing_BHCK in zip(
        *(part.unbind() for part in (kept, lower, values, reading, writing)), strict=True
    ):
        starts.append(state_BHKV)
        missing_BHCV = values_BHCV - reading_BHCK @ state_BHKV
        # The solver assumes a unit diagonal and ignores the upper triangle.
        updates.append(torch.linalg.solve_triangular(lower_BHCC, missing_BHCV, upper=False, unitriangular=True))
        state_BHKV = torch.addcmul(writing_BHCK.mT @ updates[-1], state_BHKV, kept_BH11)
    return torch.stack(starts), torch.stack(updates), state_BHKV
