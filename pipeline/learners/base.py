"""The interface of a learner to the training loop: updates, validation, networks to save and export, and its complete state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor, nn

from pipeline.config.learners import Learner as LearnerConfig
from pipeline.config.tasks import Task
from pipeline.learners.optimization import Optimizers
from pipeline.networks.flops import StepCosts
from pipeline.networks.mode import training
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows, Episodes

Weights = dict[str, Tensor]
"""The state_dict of a network: parameters and buffers by name."""
MODEL = "model"
"""Name of the network that is evaluated."""


@dataclass(frozen=True)
class Problem:
    """Task and data of a learner: stored training rows (None if they are generated or collected by acting), and validation data.

    For an environment, the validation data are held-out episodes to play.
    """

    task: Task
    train: DatasetRows | None
    validation: DatasetRows | Episodes


class NotFiniteError(UserError):
    """NaN or infinite values, with the likely cause. The caller prepends the name of the run."""


class DivergedError(NotFiniteError):
    """Values that are not finite after the first update: training has diverged at `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class MismatchError(UserError):
    """Weights that do not match a network. The caller prepends the folder."""


class Learner(ABC):
    """A learning algorithm with all state that changes during training, which is in `state_dict()`.

    Constructed as `Class(config, network, problem, seed, device)`, with the network already on the device; further networks are built with
    `pipeline.networks.build.build`. Random numbers come from torch's global generators, or from generators derived from the seed that are
    part of the state.

    networks: the trained networks by name; `model` is the one that is evaluated. optimizers: their update rules. flops_seen: floating-point
    operations so far, counted only if they are the budget.
    """

    def __init__(self, config: LearnerConfig, network: nn.Module, optimizers: Optimizers | None = None, **further: nn.Module) -> None:
        self.config = config
        self.networks = {name: module.eval() for name, module in {MODEL: network, **further}.items()}
        self.optimizers = optimizers or Optimizers()
        self.steps = 0
        self.examples_seen = 0
        self.flops_seen = 0
        self.costs = StepCosts(self.network) if config.flops is not None else None

    @property
    def network(self) -> Any:
        """The network named `model`."""
        return self.networks[MODEL]

    def update(self) -> dict[str, Tensor | float]:
        """Collect data in evaluation mode, then learn from it in training mode; returns metrics by history column.

        Metrics stay on the device: reading one would synchronise the host with it at every update.
        """
        collected = self.collect()
        with training(*self.networks.values()):
            metrics = self.learn_from(collected)
        if self.costs:
            self.flops_seen += self.count_flops(self.costs, collected)
        return metrics

    @abstractmethod
    def collect(self) -> Any:
        """Return the data of the next update, a batch of rows or a rollout. Called in evaluation mode, without dropout."""

    @abstractmethod
    def learn_from(self, collected: Any, /) -> dict[str, Tensor | float]:
        """Take the optimizer steps of one update, in training mode, and count it in `steps` and `examples_seen`."""

    def count_flops(self, costs: StepCosts, collected: Any, /) -> int:
        """Count the FLOPs of the update that learned from `collected`, of all ranks together, given what the network's steps cost.

        Called after it, in evaluation mode, if the budget is in FLOPs, which the config's `budgets` must allow.
        """
        raise NotImplementedError

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Compute metrics of the exported networks on validation data, without side effects on weights or random generators."""

    @abstractmethod
    def score(self, validation: dict[str, float]) -> float:
        """Return the score that the checkpoint `best` maximizes."""

    def is_good_enough(self, validation: dict[str, float]) -> bool:
        """Return whether to stop early, before the budget is spent."""
        return False

    def models(self) -> dict[str, nn.Module]:
        """Return the networks that are validated, saved and exported, by name: averaged ones in place of the trained ones.

        Names are those declared by the config's `models`. All must be built by `pipeline.networks.build.build`.
        """
        return self.networks

    def adopt(self, parent: Mapping[str, Weights]) -> None:
        """Initialise from the weights of a parent's models: by default, of every model that both have.

        Called before the first update. Override it to load only part of a network. Raises MismatchError if weights do not match.
        """
        common = sorted(self.networks.keys() & parent.keys())
        if not common:
            raise MismatchError(f"found {', '.join(sorted(parent))}; expected one of {', '.join(sorted(self.networks))}")
        for name in common:
            load_weights(self.networks[name], parent[name], f"{name}.safetensors", "a parent must have the network of its child")

    def assets(self) -> dict[str, bytes]:
        """Return further files to save with the weights, by name, such as a tokenizer. The config's `assets` declares the names."""
        return {}

    def metrics(self) -> dict[str, float | int | None]:
        """Return learning rates, curriculum levels and the like for the next update, by history column, without reading from the device."""
        counted: dict[str, float | int | None] = {"flops": self.flops_seen} if self.costs else {}
        return counted | self.optimizers.learning_rates(self.steps, self.flops_seen)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as nested dicts and lists of tensors, arrays, numbers, strings and `Replay` buffers. Override to extend it."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": self.optimizers.state_dict(),
            "steps": self.steps,
            "examples_seen": self.examples_seen,
            "flops_seen": self.flops_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict` for the same specification; training then resumes bit-exactly."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.optimizers.load_state_dict(state["optimizers"])
        self.steps, self.examples_seen = state["steps"], state["examples_seen"]
        self.flops_seen = state.get("flops_seen", 0)

    def rank_state(self) -> dict[str, Any]:
        """Return the part of the state that differs between ranks; empty if none does."""
        return {}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Restore this rank's `rank_state`, after `load_state_dict` with the state of rank 0."""
        assert not state

    def raise_not_finite(self, found: str) -> NoReturn:
        """Raise DivergedError, or before any update NotFiniteError: the data were checked, so the initial weights are the cause.

        Every rank must raise it at the same step. `validate` runs on rank 0 only and returns numbers as they are: the loop checks them.
        """
        if self.steps:
            message = f"step {self.steps}: {found}: training has diverged; lower learner.learning_rate, or set learner.max_grad_norm"
            raise DivergedError(message, self.steps)
        origin = f"the weights of its parent, {self.config.parent}," if self.config.parent else "the initial weights"
        raise NotFiniteError(f"step 0: {found} before any update: {origin} cause it, not the learning rate")

    @property
    def reproducible(self) -> bool:
        """Whether training the same specification again is bit-reproducible, with or without interruption."""
        return self.config.seconds is None

    def progress(self, seconds: float) -> float:
        """Return the fraction of the budget spent, given the wall-clock seconds of updates; at 1 or more, training ends."""
        if self.config.seconds is not None:
            return seconds / self.config.seconds
        if self.config.flops is not None:
            return self.flops_seen / self.config.flops
        total = self.config.total_steps
        assert total is not None
        return self.steps / total


def load_weights(network: nn.Module, weights: Weights, file: str, why: str) -> None:
    """Load weights that must match exactly. Raises MismatchError with the file, the first mismatched tensor, and `why` they must match."""
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            got, wanted = (shapes.get(name, "no such tensor") for shapes in (found, expected))
            raise MismatchError(f"{file}: {name}: got {got}, expected {wanted}: {why}")
    network.load_state_dict(weights)
