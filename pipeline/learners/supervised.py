"""Supervised learning: cross-entropy, or squared error where answers are real numbers, on the scored positions of labelled rows.

Notation: B = rows of a batch, T = tokens of its longest row, N = scored positions, in row-major order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import learners
from pipeline.learners import parallel
from pipeline.learners.answers import Answers, answers, lengths
from pipeline.learners.base import MODEL, Problem
from pipeline.learners.curriculum import make_level
from pipeline.learners.from_rows import VALIDATION_BATCH, FromRows
from pipeline.learners.optimization import make_rules
from pipeline.learners.sampler import Batch, sequential_batches
from pipeline.networks.flops import StepCosts
from pipeline.storage.errors import UserError


class Supervised(FromRows):
    """Supervised learning on batches from shards or a stream, with optional curriculum and exponential moving average of the weights."""

    config: learners.Supervised

    def __init__(self, config: learners.Supervised, network: nn.Module, problem: Problem, seed: int, device: torch.device) -> None:
        column = config.curriculum.column if config.curriculum else None
        super().__init__(config, network, problem, seed, device, make_rules(config, network), column)
        self.tolerance = problem.task.tolerance
        self.level = make_level(config.curriculum, problem)
        if self.level:
            self.sampler.level = self.level.limit

    def collect(self) -> Batch:
        """Return the next batch."""
        return self.sampler.next()

    def learn_from(self, batch: Batch) -> dict[str, Tensor | float]:
        """Take one optimizer step on a batch."""
        self.optimizers.zero_grad()
        loss, row_N, correct_N = self._gradients(batch)
        if parallel.world_size() > 1:
            loss, row_N, correct_N = self._all_processes(batch, loss, correct_N)
        norm = self.optimizers.step(self.steps, flops=self.flops_seen)
        self._after_step(batch, row_N, correct_N)
        return {"train_loss": loss, "train_accuracy": correct_N.double().mean(), **norm}

    def count_flops(self, costs: StepCosts, batch: Batch) -> int:
        """Count forward and backward passes over every row of the batch, which is the same on all ranks, at its true length."""
        return costs.sequences(batch.length_B.numpy()).training

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Accumulate the gradients of this rank's shard of a batch.

        Returns the shard's part of the loss, and for each of its scored positions the row and whether the answer is correct.
        """
        positions, mine = int(batch.scored_BT.sum()), parallel.shard(len(batch.tokens_BT))
        if not positions:
            raise UserError(f"{self.rows_name}: a batch of {len(batch.tokens_BT)} rows has no scored token; expected at least one")
        first = mine.start
        losses, rows, right = [], [], []
        for part in batch.of(mine).parts(self.config.micro_batch_size):
            scored = self._answer(self.network, part)
            loss = scored.loss("mean" if len(scored.row_N) else "sum") * (len(scored.row_N) / positions)
            loss.backward()
            losses.append(loss.detach())
            rows.append(scored.row_N + first)
            right.append(scored.correct_N)
            first += len(part.tokens_BT)
        return torch.stack(losses).sum(), torch.cat(rows), torch.cat(right)

    def _all_processes(self, batch: Batch, loss: Tensor, correct_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum gradients and loss over all ranks; returns the loss, and row and correctness of all scored positions of the batch."""
        scored_BT = batch.scored_BT
        row_N = scored_BT.nonzero()[:, 0]
        first = int(scored_BT[: parallel.shard(len(scored_BT)).start].sum())
        whole_N = loss.new_zeros(len(row_N))
        whole_N[first : first + len(correct_N)] = correct_N.to(whole_N)
        self.share_gradients(batch.row_inputs.get("identifier"), loss, whole_N)
        return loss, row_N, whole_N > 0

    def _after_step(self, batch: Batch, row_N: Tensor, correct_N: Tensor) -> None:
        self.steps += 1
        self.examples_seen += len(batch.tokens_BT)
        if self.average:
            self.average.update()
        if self.level and self.config.curriculum:
            self.level.observe(batch.columns[self.config.curriculum.column], row_N, correct_N)
            if self.sampler.level != self.level.limit:
                self.sampler.level = self.level.limit

    def _answer(self, network: nn.Module, batch: Batch) -> Answers:
        return answers(network, batch, self.tolerance, self.device, **lengths(network, batch, self.device))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Compute loss per scored position, accuracy per position and per row, over all validation rows.

        The accuracy of a grid is that of whole rows: the share of puzzles that are solved.
        """
        loss, right, positions, flawless = 0.0, 0, 0, 0
        for batch in sequential_batches(
            self.validation, self.config.micro_batch_size or self.config.batch_size * VALIDATION_BATCH, self.inputs
        ):
            scored = self._answer(self.models()[MODEL], batch)
            correct_N = scored.correct_N.cpu()
            loss += float(scored.loss("sum"))
            right, positions = right + int(correct_N.sum()), positions + len(correct_N)
            flawless += len(batch.tokens_BT) - len(scored.row_N[~correct_N].unique())
        if not positions:
            raise UserError(f"{self.validation.name}: no row has a scored token; expected at least one")
        whole, accuracy = flawless / len(self.validation), right / positions
        if self.task.grid:
            return {"loss": loss / positions, "accuracy": whole, "cell_accuracy": accuracy}
        return {"loss": loss / positions, "accuracy": accuracy, "sequence_accuracy": whole}

    def metrics(self) -> dict[str, float | int | None]:
        """Return the curriculum's level and the learning rate of the next update."""
        return {"level": self.level.value if self.level else None, **super().metrics()}

    def state_dict(self) -> dict[str, Any]:
        """Add the curriculum."""
        return {**super().state_dict(), "level": self.level.state_dict() if self.level else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        super().load_state_dict(state)
        if self.level:
            self.level.load_state_dict(state["level"])
