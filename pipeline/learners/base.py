"""What every update rule offers to the one training loop: updates, validation, weights to keep, and its whole state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor, nn

from pipeline.config.learners import Learner as LearnerConfig
from pipeline.config.tasks import Task
from pipeline.networks.mode import training
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows, Episodes

Weights = dict[str, Tensor]
"""Parameters and buffers by name."""


@dataclass(frozen=True)
class Problem:
    """What a learner learns from: the task, its stored training rows (none where data comes fresh), and validation rows.

    Of an environment, validation rows are episodes to play, and nothing is stored for training.
    """

    task: Task
    train: DatasetRows | None
    validation: DatasetRows | Episodes


class NotFiniteError(UserError):
    """Numbers that are not finite, and what may have made them; whoever knows the run puts its name before that."""


class Learner(ABC):
    """An update rule at work. Everything that changes while it learns is in `state_dict()`.

    An implementation is made as `Kind(config, network, problem, seed, device)`; the network is already on the device.
    Randomness that is not torch's global generator must be its own, follow from the seed, and be part of the state.
    """

    def __init__(self, config: LearnerConfig, network: nn.Module) -> None:
        self.config = config
        self.network = network.eval()
        self.steps = 0
        self.examples_seen = 0

    def update(self) -> dict[str, Tensor | float]:
        """Collect what the next update learns from, in evaluation mode, and learn from it, in training mode; figures by history column.

        Figures stay on the device: reading one would make the host wait for it at every step.
        """
        collected = self.collect()
        with training(self.network):
            return self.learn_from(collected)

    @abstractmethod
    def collect(self) -> Any:
        """What the next update learns from: a batch of rows, a rollout. In evaluation mode: dropout is off."""

    @abstractmethod
    def learn_from(self, collected: Any, /) -> dict[str, Tensor | float]:
        """Take the optimizer's steps of one update, in training mode: dropout is on."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Figures of the weights to keep on validation data: no side effect on weights or random generators."""

    def refuse(self, found: str) -> NoReturn:
        """Raise NotFiniteError, by what may have made such numbers: rows, observations and rewards have been looked at before."""
        if self.steps:
            raise NotFiniteError(
                f"step {self.steps}: {found}: training has diverged; lower learner.learning_rate, or set learner.max_grad_norm"
            )
        origin = f"the weights of {self.config.parent}, which it starts from," if self.config.parent else "the network as it is made"
        raise NotFiniteError(
            f"step 0: {found} before any update: {origin} give{'' if self.config.parent else 's'} them, not the learning rate"
        )

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists of tensors, arrays, numbers and texts, from which learning goes on bit by bit."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave for the same specification."""

    def own_state(self) -> dict[str, Any]:
        """What of the state differs between processes that share a training; of the others' only this is in a checkpoint. Empty: nothing."""
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take over, after `load_state_dict` of the first process's state, what `own_state` gave in this process."""
        assert not state

    @abstractmethod
    def merit(self, validation: dict[str, float]) -> float:
        """How good a validation result is, larger is better: what the checkpoint `best` maximises."""

    def weights(self) -> Weights:
        """What is validated and exported."""
        return self.network.state_dict()

    def further_files(self) -> dict[str, Weights]:
        """Weights besides the network's that belong to the trained model, by file stem: a critic, an adapter."""
        return {}

    def gauges(self) -> dict[str, float | int | None]:
        """Where the learner stands, by history column, without touching the device."""
        return {}

    def reached(self, validation: dict[str, float]) -> bool:
        """Whether a validation result is good enough to stop before the budget is used up."""
        return False

    @property
    def reproducible(self) -> bool:
        """Whether the same specification gives the same bits again, interrupted or not."""
        return self.config.seconds is None

    def progress(self, seconds: float) -> float:
        """Share of the budget used up after so many wall seconds of updates; 1 or more ends the run."""
        if self.config.seconds is not None:
            return seconds / self.config.seconds
        total = self.config.total_steps
        assert total is not None
        return self.steps / total
