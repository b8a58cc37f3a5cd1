"""Supervised learning: cross-entropy, or squared error where answers are real numbers, on the scored positions of labelled rows.

N: scored positions of a batch, row after row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import learners
from pipeline.config.catalogue import implementation
from pipeline.learners import parallel
from pipeline.learners.answers import Answers, answers
from pipeline.learners.base import Learner, Problem, Weights
from pipeline.learners.curriculum import make_level
from pipeline.learners.optimization import WeightAverage, clip_gradients, learning_rate, make_optimizer
from pipeline.learners.sampler import Batch, ShardSampler, StreamSampler, sequential_batches
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows

VALIDATION_BATCH = 4
"""Validation batches are so many times larger: without gradients a network keeps far less in memory."""


class Supervised(Learner):
    """Stochastic gradient descent over rows from shards or a stream, with optional curriculum and averaged weights."""

    config: learners.Supervised

    def __init__(self, config: learners.Supervised, network: nn.Module, problem: Problem, seed: int, device: torch.device) -> None:
        super().__init__(config, network)
        assert isinstance(problem.validation, DatasetRows), "tokens are validated on rows"
        self.device = device
        self.tolerance = problem.task.tolerance
        self.validation = problem.validation
        self.rows_name = problem.train.name if problem.train else f"{problem.task.name} stream"
        self.optimizer = make_optimizer(network, config)
        self.average = WeightAverage(network, config.ema_decay) if config.ema_decay else None
        self.sampler = _sampler(config, problem, seed)
        self.level = make_level(config.curriculum, problem)
        if self.level:
            self.sampler.level = self.level.limit

    def collect(self) -> Batch:
        """The next batch."""
        return self.sampler.next()

    def learn_from(self, batch: Batch) -> dict[str, Tensor | float]:
        """One optimizer step on a batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss, row_N, right_N = self._gradients(batch)
        if parallel.size() > 1:
            loss, row_N, right_N = self._of_all(batch, loss, right_N)
        norm = clip_gradients(self.optimizer, self.config.max_grad_norm)
        self.optimizer.step()
        self._after_step(batch, row_N, right_N)
        return {"train_loss": loss, "train_accuracy": right_N.double().mean(), "gradient_norm": norm}

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Add up the gradients of a batch's parts, as many of its rows as are this process's.

        Their part of its loss, and of each of their scored positions the row and whether it was right.
        """
        positions, mine = int(batch.scored_BT.sum()), parallel.share(len(batch.tokens_BT))
        if not positions:
            raise UserError(f"{self.rows_name}: a batch of {len(batch.tokens_BT)} rows has nothing to learn from; expected scored tokens")
        first = mine.start
        losses, rows, right = [], [], []
        for part in batch.of(mine).parts(self.config.micro_batch_size):
            scored = self._answer(self.network, part)
            loss = scored.loss("mean" if len(scored.row_N) else "sum") * (len(scored.row_N) / positions)
            loss.backward()
            losses.append(loss.detach())
            rows.append(scored.row_N + first)
            right.append(scored.right_N)
            first += len(part.tokens_BT)
        return torch.stack(losses).sum(), torch.cat(rows), torch.cat(right)

    def _of_all(self, batch: Batch, loss: Tensor, right_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add up what all processes found: gradients, loss, and which scored positions of the whole batch were right, with their rows."""
        scored_BT = batch.scored_BT
        row_N = scored_BT.nonzero()[:, 0]
        first = int(scored_BT[: parallel.share(len(scored_BT)).start].sum())
        whole_N = loss.new_zeros(len(row_N))
        whole_N[first : first + len(right_N)] = right_N.to(whole_N)
        parallel.add_up([*parallel.gradients(self.network), loss, whole_N])
        return loss, row_N, whole_N > 0

    def _after_step(self, batch: Batch, row_N: Tensor, right_N: Tensor) -> None:
        self.steps += 1
        self.examples_seen += len(batch.tokens_BT)
        if self.average:
            self.average.update()
        if self.level and self.config.curriculum:
            self.level.observe(batch.columns[self.config.curriculum.column], row_N, right_N)
            if self.sampler.level != self.level.limit:
                self.sampler.level = self.level.limit

    def _answer(self, network: nn.Module, batch: Batch) -> Answers:
        # No lengths: what follows a row's end neither reaches its scored positions, mixers being causal, nor is the last state used.
        return answers(network, batch, self.tolerance, self.device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss per scored position, accuracy and share of faultless rows, over all validation rows."""
        network = self.average.network if self.average else self.network
        loss, right, positions, flawless = 0.0, 0, 0, 0
        for batch in sequential_batches(self.validation, self.config.micro_batch_size or self.config.batch_size * VALIDATION_BATCH):
            scored = self._answer(network, batch)
            right_N = scored.right_N.cpu()
            loss += float(scored.loss("sum"))
            right, positions = right + int(right_N.sum()), positions + len(right_N)
            flawless += len(batch.tokens_BT) - len(scored.row_N[~right_N].unique())
        if not positions:
            raise UserError(f"{self.validation.name}: no row has anything to answer; expected scored tokens")
        return {"loss": loss / positions, "accuracy": right / positions, "sequence_accuracy": flawless / len(self.validation)}

    def merit(self, validation: dict[str, float]) -> float:
        """Lower loss is better: accuracy ties too often."""
        return -validation["loss"]

    def reached(self, validation: dict[str, float]) -> bool:
        """Whether symbol accuracy has come to `stop_at`."""
        return self.config.stop_at is not None and validation["accuracy"] >= self.config.stop_at

    def weights(self) -> Weights:
        """The averaged weights where there are any."""
        return (self.average.network if self.average else self.network).state_dict()

    def gauges(self) -> dict[str, float | int | None]:
        """Curriculum level and the learning rate of the next update."""
        level = self.level.value if self.level else None
        return {"level": level, "learning_rate": learning_rate(self.config, self.steps)}

    def state_dict(self) -> dict[str, Any]:
        """Weights, average, optimizer, position in the data, curriculum, counters."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "level": self.level.state_dict() if self.level else None,
            "steps": self.steps,
            "examples_seen": self.examples_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self.network.load_state_dict(state["network"])
        if self.average:
            self.average.network.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        if self.level:
            self.level.load_state_dict(state["level"])
        self.steps, self.examples_seen = state["steps"], state["examples_seen"]


def _sampler(config: learners.Supervised, problem: Problem, seed: int) -> ShardSampler | StreamSampler:
    column = config.curriculum.column if config.curriculum else None
    if config.data == "stream":
        return StreamSampler(implementation(problem.task)(problem.task), config.batch_size, seed, column)
    assert problem.train is not None
    return ShardSampler(problem.train, config.batch_size, seed, column)
