"""Solve puzzles: supervision steps of one or several attempts at each, and the choice among the attempts.

All attempts at a puzzle are rows of one batch. Their random numbers are functions of the puzzle and of the attempt's number, so that an
answer depends neither on the other puzzles of a batch nor on how many attempts there are.

Notation: B = puzzles of a batch, A = attempts, R = B * A rows, those of a puzzle side by side, N = rows still at work, T = cells, C = classes,
K = numbers of steps measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.learners.cell_loss import cell_loss
from pipeline.learners.row_queue import Rows
from pipeline.learners.sampler import Batch
from pipeline.networks.recursive import HALT, Carry, RecursiveNetwork
from pipeline.ops.state import concatenate, cut, select
from pipeline.storage.rng import derive_key

PART_CELLS = 65_536
"""Most cells that a network reads at once: many attempts at a large puzzle are answered in parts."""


class Answers(NamedTuple):
    """The chosen attempt at every puzzle after one step; q, halting step and residual are NaN where there is none."""

    answer_BT: np.ndarray  # uint8
    loss_B: np.ndarray
    q_B: np.ndarray
    halting_B: np.ndarray
    residual_B: np.ndarray
    attempt_B: np.ndarray


class Solved(NamedTuple):
    """The same after each of several numbers of steps."""

    answer_BKT: np.ndarray
    loss_BK: np.ndarray
    q_BK: np.ndarray
    halting_BK: np.ndarray
    residual_BK: np.ndarray
    attempt_BK: np.ndarray


class Trace(NamedTuple):
    """All attempts after one step."""

    answer_RT: Tensor
    loss_R: Tensor
    q_R: Tensor
    halting_R: Tensor
    residual_R: Tensor


@torch.inference_mode()
def solve_batch(network: Any, batch: Batch, settings: Any, device: torch.device) -> Solved:
    """Try every puzzle `settings.chains` times, with each number of steps in `settings.supervision`; settings: a measurement `puzzles`."""
    traces = enumerate(_traces(network, Rows.of(batch, device), settings), 1)
    answers = [_chosen(trace, len(batch.tokens_BT), settings.choose) for step, trace in traces if step in settings.supervision]
    return Solved(*(np.stack(parts, 1) for parts in zip(*answers, strict=True)))


@torch.inference_mode()
def solve_steps(network: Any, batch: Batch, settings: Any, device: torch.device) -> Iterator[Answers]:
    """Yield the answers after every step, up to the largest number in `settings.supervision`: those that `solve_batch` gives there."""
    for trace in _traces(network, Rows.of(batch, device), settings):
        yield _chosen(trace, len(batch.tokens_BT), settings.choose)


def _traces(network: Any, rows: Rows, settings: Any) -> Iterator[Trace]:
    if isinstance(network, RecursiveNetwork):
        yield from _supervised(network, rows, settings)
    else:
        trace = _one_pass(network, rows)
        yield from (trace for _ in range(settings.supervision[-1]))


def _one_pass(network: Any, rows: Rows) -> Trace:
    """Answer once, as a network without recursion does: more steps and attempts change nothing."""
    logits_BTC, _ = network(rows.tokens_BT, **rows.inputs)
    loss_B = _losses(logits_BTC, rows.labels_BT)
    unknown_B = torch.full_like(loss_B, torch.nan)
    return Trace(logits_BTC.argmax(-1), loss_B, unknown_B, unknown_B, unknown_B)


def _supervised(network: RecursiveNetwork, puzzles: Rows, settings: Any) -> Iterator[Trace]:
    """Take supervision steps. With `halt`, attempts leave the batch at their first q above 0, and keep the answer that they have then."""
    rows, noise = puzzles.repeated(settings.chains), RowNoise(puzzles.tokens_BT, settings.chains)
    carry, active_N = noise.start(network), torch.arange(len(rows.tokens_BT), device=rows.tokens_BT.device)
    halting_R = torch.full((len(active_N),), torch.nan, device=active_N.device)
    last: Trace | None = None
    for step in range(1, settings.supervision[-1] + 1):
        if len(active_N):
            before = noise.perturb(carry, settings.noise, active_N)
            now = rows if len(active_N) == len(rows.tokens_BT) else rows.at(active_N)
            logits_NTC, carry = _step(network, now, before)
            q_N = carry.q_B2[:, HALT]
            fresh = Trace(logits_NTC.argmax(-1), _losses(logits_NTC, now.labels_BT), q_N, q_N, _change(before, carry))
            last = fresh if last is None else Trace(*(old.index_copy(0, active_N, new) for old, new in zip(last, fresh, strict=True)))
            first_N = (q_N > 0) & halting_R[active_N].isnan()
            halting_R[active_N[first_N]] = float(step)
            if settings.halt and bool(first_N.any()):
                keep_M = (~first_N).nonzero().squeeze(1)
                active_N, carry = active_N[keep_M], select(carry, keep_M)
        assert last is not None
        yield last._replace(halting_R=halting_R.clone())


def _step(network: RecursiveNetwork, rows: Rows, carry: Carry) -> tuple[Tensor, Carry]:
    """Take one supervision step of all rows."""
    count, cells = rows.tokens_BT.shape
    size = max(1, PART_CELLS // cells)
    if size >= count:
        return network(rows.tokens_BT, carry, **rows.inputs)
    parts = [(rows.part(slice(first, first + size)), cut(carry, first, first + size)) for first in range(0, count, size)]
    logits, carries = zip(*(network(part.tokens_BT, state, **part.inputs) for part, state in parts), strict=True)
    return torch.cat(logits), concatenate(carries)


def _losses(logits_BTC: Tensor, labels_BT: Tensor) -> Tensor:
    return cell_loss(logits_BTC, labels_BT, "softmax").sum(1)


def _change(before: Carry, after: Carry) -> Tensor:
    """Return the root mean square of each row's change of all latents."""
    squares = [(new - old).square().flatten(1).mean(1) for old, new in zip(before.latents, after.latents, strict=True)]
    return torch.stack(squares).mean(0).sqrt()


def _chosen(trace: Trace, puzzles: int, choose: str) -> Answers:
    """Select one attempt at every puzzle."""
    parts = [part.cpu().numpy().reshape(puzzles, -1, *part.shape[1:]) for part in trace]
    answer_BAT, _, q_BA, halting_BA, _ = parts
    if choose == "vote":
        attempt_B = np.lexsort((-q_BA, -_votes(answer_BAT)), axis=1)[:, 0]
    elif choose == "first_to_halt":
        attempt_B = np.lexsort((-q_BA, np.where(np.isnan(halting_BA), np.inf, halting_BA)), axis=1)[:, 0]
    else:
        attempt_B = q_BA.argmax(axis=1)
    answer_BT, loss_B, q_B, halting_B, residual_B = (part[np.arange(puzzles), attempt_B] for part in parts)
    return Answers(answer_BT.astype(np.uint8), loss_B, q_B, halting_B, residual_B, attempt_B)


def _votes(answer_BAT: np.ndarray) -> np.ndarray:
    """Return how many attempts at its puzzle give each attempt's answer."""
    counts = []
    for answer_AT in answer_BAT:
        _, kind_A, count = np.unique(answer_AT, axis=0, return_inverse=True, return_counts=True)
        counts.append(count[kind_A.reshape(-1)])
    return np.stack(counts)


class RowNoise:
    """Random numbers of every attempt, from the puzzle's tokens and the attempt's number."""

    def __init__(self, tokens_BT: Tensor, attempts: int) -> None:
        self.tokens_BT, self.attempts = tokens_BT, attempts
        self._generators: list[torch.Generator] | None = None

    @property
    def generators(self) -> list[torch.Generator]:
        """One per attempt, on the CPU."""
        if self._generators is None:
            names = [row.astype(np.uint16).tobytes().hex() for row in self.tokens_BT.cpu().numpy()]
            keys = [derive_key("attempt", name, number) for name in names for number in range(self.attempts)]
            self._generators = [torch.Generator().manual_seed(key[0] >> 1 | key[1] << 31) for key in keys]
        return self._generators

    def start(self, network: RecursiveNetwork) -> Carry:
        """Return the latents before the first step."""
        puzzles, cells = self.tokens_BT.shape
        numbers = list(range(self.attempts)) * puzzles
        if network.settings.start == "random":
            parts = [network.fresh(1, cells, generator=generator) for generator in self.generators]
        elif network.settings.starts > 1:
            parts = [network.fresh(1, cells, number) for number in numbers]
        else:
            return network.fresh(len(numbers), cells)
        return concatenate(parts)

    def perturb(self, carry: Carry, std: float, active_N: Tensor) -> Carry:
        """Add noise to the latents of the attempts still at work."""
        if not std:
            return carry
        some = [self.generators[place] for place in active_N.tolist()]
        latents = []
        for latent in carry.latents:
            noise = torch.stack([torch.randn(latent.shape[1:], generator=generator) for generator in some])
            latents.append(latent + std * noise.to(latent))
        return carry._replace(latents=tuple(latents))
