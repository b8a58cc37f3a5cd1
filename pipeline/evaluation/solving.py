"""Solve puzzles: supervision steps of one or several attempts, and the choice among them.

Notation: B = puzzles of a batch, T = cells, C = classes, K = numbers of steps measured, A = attempts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.learners.cell_loss import cell_loss
from pipeline.learners.row_queue import Rows
from pipeline.learners.sampler import Batch
from pipeline.networks.recursive import HALT, Carry, RecursiveNetwork
from pipeline.ops.state import concatenate, select
from pipeline.storage.rng import derive_key


class Solved(NamedTuple):
    """Answers after each number of steps, of the chosen attempt; q, halting step and residual are NaN where there is none."""

    answer_BKT: np.ndarray  # uint8
    loss_BK: np.ndarray
    q_BK: np.ndarray
    halting_BK: np.ndarray
    residual_BK: np.ndarray
    attempt_BK: np.ndarray


class Trace(NamedTuple):
    """One attempt at every puzzle of a batch, after each number of steps."""

    answer_BKT: Tensor
    loss_BK: Tensor
    q_BK: Tensor
    halting_BK: Tensor
    residual_BK: Tensor


@torch.inference_mode()
def solve_batch(network: Any, batch: Batch, settings: Any, device: torch.device) -> Solved:
    """Try every puzzle of a batch `settings.chains` times; settings: a measurement `puzzles`."""
    rows = Rows.of(batch, device)
    if not isinstance(network, RecursiveNetwork):
        return _chosen([_one_pass(network, rows, len(settings.supervision))], "q")
    return _chosen([_attempt(network, rows, settings, number) for number in range(settings.chains)], settings.choose)


def _one_pass(network: Any, rows: Rows, count: int) -> Trace:
    """Answer once; the answer counts for every number of steps."""
    logits_BTC, _ = network(rows.tokens_BT, **rows.inputs)
    answer_BKT = logits_BTC.argmax(-1).unsqueeze(1).expand(-1, count, -1)
    loss_BK = _losses(logits_BTC, rows.labels_BT).unsqueeze(1).expand(-1, count)
    unknown_BK = torch.full_like(loss_BK, torch.nan)
    return Trace(answer_BKT, loss_BK, unknown_BK, unknown_BK, unknown_BK)


def _attempt(network: RecursiveNetwork, rows: Rows, settings: Any, number: int) -> Trace:
    """Take supervision steps up to the largest number measured. With `halt`, puzzles leave the batch at their first q above 0."""
    noise = RowNoise(rows.tokens_BT, number)
    carry, active_N = noise.start(network, number), torch.arange(len(rows.tokens_BT), device=rows.tokens_BT.device)
    halting_B = torch.full((len(active_N),), torch.nan, device=active_N.device)
    last: Trace | None = None
    found: list[Trace] = []
    for step in range(1, settings.supervision[-1] + 1):
        if len(active_N):
            before = noise.perturb(carry, settings.noise, active_N)
            now = rows if len(active_N) == len(rows.tokens_BT) else rows.at(active_N)
            logits_NTC, carry = network(now.tokens_BT, before, **now.inputs)
            q_N = carry.q_B2[:, HALT]
            fresh = Trace(logits_NTC.argmax(-1), _losses(logits_NTC, now.labels_BT), q_N, q_N, _change(before, carry))
            last = fresh if last is None else Trace(*(old.index_copy(0, active_N, new) for old, new in zip(last, fresh, strict=True)))
            first_N = (q_N > 0) & halting_B[active_N].isnan()
            halting_B[active_N[first_N]] = float(step)
            if settings.halt and bool(first_N.any()):
                keep_M = (~first_N).nonzero().squeeze(1)
                active_N, carry = active_N[keep_M], select(carry, keep_M)
        assert last is not None
        if step in settings.supervision:
            found.append(last._replace(halting_BK=halting_B.clone()))
    return Trace(*(torch.stack(parts, 1) for parts in zip(*found, strict=True)))


def _losses(logits_BTC: Tensor, labels_BT: Tensor) -> Tensor:
    return cell_loss(logits_BTC, labels_BT, "softmax").sum(1)


def _change(before: Carry, after: Carry) -> Tensor:
    """Return the root mean square of each row's change of all latents."""
    squares = [(new - old).square().flatten(1).mean(1) for old, new in zip(before.latents, after.latents, strict=True)]
    return torch.stack(squares).mean(0).sqrt()


def _chosen(traces: list[Trace], choose: str) -> Solved:
    """Select one attempt for every puzzle and number of steps."""
    parts = [np.stack([part.cpu().numpy() for part in attempts]) for attempts in zip(*traces, strict=True)]
    answer_ABKT, loss, q_ABK, halting_ABK, residual = parts
    attempt_BK = np.zeros(loss.shape[1:], np.int64)
    if len(traces) > 1:
        attempt_BK = _votes(answer_ABKT, q_ABK) if choose == "vote" else q_ABK.argmax(0)
        if choose == "first_to_halt":
            when = np.where(np.isnan(halting_ABK), np.inf, halting_ABK)
            attempt_BK = np.lexsort((-q_ABK, when), axis=0)[0]
    loss_BK, q_BK, halting_BK, residual_BK = (
        np.take_along_axis(part, attempt_BK[None], 0)[0] for part in (loss, q_ABK, halting_ABK, residual)
    )
    answer_BKT = np.take_along_axis(answer_ABKT, attempt_BK[None, ..., None], 0)[0]
    return Solved(answer_BKT.astype(np.uint8), loss_BK, q_BK, halting_BK, residual_BK, attempt_BK)


def _votes(answer_ABKT: np.ndarray, q_ABK: np.ndarray) -> np.ndarray:
    """Return, for every puzzle and number of steps, the attempt of highest q among those with the most frequent answer."""
    same_AABK = (answer_ABKT[:, None] == answer_ABKT[None]).all(-1)
    count_ABK = same_AABK.sum(1)
    return np.lexsort((-q_ABK, -count_ABK), axis=0)[0]


class RowNoise:
    """Random numbers of every puzzle, from its tokens and the attempt: they do not depend on the other puzzles of a batch."""

    def __init__(self, tokens_BT: Tensor, attempt: int) -> None:
        self.tokens_BT, self.attempt = tokens_BT, attempt
        self._generators: list[torch.Generator] | None = None

    @property
    def generators(self) -> list[torch.Generator]:
        """One per puzzle, on the CPU."""
        if self._generators is None:
            keys = [derive_key("attempt", row.astype(np.uint16).tobytes().hex(), self.attempt) for row in self.tokens_BT.cpu().numpy()]
            self._generators = [torch.Generator().manual_seed(key[0] >> 1 | key[1] << 31) for key in keys]
        return self._generators

    def start(self, network: RecursiveNetwork, attempt: int) -> Carry:
        """Return the latents before the first step."""
        rows, cells = self.tokens_BT.shape
        if network.settings.start != "random":
            return network.fresh(rows, cells, attempt)
        return concatenate([network.fresh(1, cells, attempt, generator) for generator in self.generators])

    def perturb(self, carry: Carry, std: float, active_N: Tensor) -> Carry:
        """Add noise to the latents of the puzzles still at work."""
        if not std:
            return carry
        some = [self.generators[place] for place in active_N.tolist()]
        latents = []
        for latent in carry.latents:
            noise = torch.stack([torch.randn(latent.shape[1:], generator=generator) for generator in some])
            latents.append(latent + std * noise.to(latent))
        return carry._replace(latents=tuple(latents))
