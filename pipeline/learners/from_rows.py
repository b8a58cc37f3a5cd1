"""Common code of learners of labelled rows: the sampler, the moving average of the weights, and their state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import learners
from pipeline.config.catalogue import implementation
from pipeline.learners import parallel
from pipeline.learners.base import MODEL, Learner, Problem, Weights
from pipeline.learners.optimization import Optimizers, Rule, WeightAverage, table_of
from pipeline.learners.sampler import ShardSampler, StreamSampler
from pipeline.storage.loader import DatasetRows

VALIDATION_BATCH = 4
"""Factor on the batch size in validation, which needs much less memory without gradients."""


class FromRows(Learner):
    """A learner of rows from shards or a stream, with an optional exponential moving average of the weights."""

    config: learners.FromRows

    def __init__(
        self,
        config: learners.FromRows,
        network: nn.Module,
        problem: Problem,
        seed: int,
        device: torch.device,
        rules: Mapping[str, Rule],
        column: str | None = None,
    ) -> None:
        """Column: the metadata column that a curriculum bounds."""
        super().__init__(config, network, Optimizers(**rules))
        assert isinstance(problem.validation, DatasetRows), "tokens are validated on rows"
        self.device, self.seed = device, seed
        self.task, self.inputs, self.validation = problem.task, problem.task.inputs, problem.validation
        self.rows_name = problem.train.name if problem.train else f"{problem.task.name} stream"
        self.average = WeightAverage(network, config.ema_decay) if config.ema_decay else None
        self.sampler = _sampler(config, problem, seed, column)

    def score(self, validation: dict[str, float]) -> float:
        """Return the negated loss: accuracies tie too often."""
        return -validation["loss"]

    def is_good_enough(self, validation: dict[str, float]) -> bool:
        """Return whether the accuracy has reached `stop_at`."""
        return self.config.stop_at is not None and validation["accuracy"] >= self.config.stop_at

    def models(self) -> dict[str, nn.Module]:
        """Return the averaged network in place of the trained one, if there is one."""
        return {MODEL: self.average.network} if self.average else self.networks

    def adopt(self, parent: Mapping[str, Weights]) -> None:
        """Initialise the moving average from the parent's weights too."""
        super().adopt(parent)
        if self.average:
            self.average.restart()

    def share_gradients(self, identifier_B: Tensor | None, *figures: Tensor) -> None:
        """Sum gradients and figures over all ranks, those of a table of identifiers by row of the table. identifier_B: of the whole batch."""
        if parallel.world_size() == 1:
            return
        parallel.all_reduce_sum([*(gradient for gradient in parallel.gradients(self.network) if not gradient.is_sparse), *figures])
        if identifier_B is not None:
            for weight in table_of(self.network):
                weight.grad = _summed(weight, identifier_B.to(self.device, torch.int64).unique())

    def state_dict(self) -> dict[str, Any]:
        """Add the moving average and the position in the data."""
        return {
            **super().state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "sampler": self.sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        super().load_state_dict(state)
        if self.average:
            self.average.load_state_dict(state["average"])
        self.sampler.load_state_dict(state["sampler"])


def _summed(weight: Tensor, used_N: Tensor) -> Tensor:
    """Return the gradient of a table summed over all ranks. used_N: the rows of the table that the whole batch uses, ascending."""
    total_ND = weight.new_zeros(len(used_N), weight.shape[1])
    if weight.grad is not None:
        own = weight.grad.coalesce()
        total_ND.index_copy_(0, torch.searchsorted(used_N, own.indices()[0]), own.values())
    parallel.all_reduce_sum([total_ND])
    return torch.sparse_coo_tensor(used_N.unsqueeze(0), total_ND, weight.shape, check_invariants=False)


def _sampler(config: learners.FromRows, problem: Problem, seed: int, column: str | None) -> ShardSampler | StreamSampler:
    if config.data == "stream":
        return StreamSampler(implementation(problem.task)(problem.task), config.batch_size, seed, column, problem.task.inputs)
    assert problem.train is not None
    return ShardSampler(problem.train, config.batch_size, seed, column, problem.task.inputs)
