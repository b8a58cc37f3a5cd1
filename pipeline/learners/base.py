"""The interface of a learner: updates, validation, networks to keep and export, and its whole state, for the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor, nn

from pipeline.config.learners import Learner as LearnerConfig
from pipeline.config.tasks import Task
from pipeline.learners.optimization import Optimizers
from pipeline.networks.mode import training
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows, Episodes

Weights = dict[str, Tensor]
"""The state_dict of a network: parameters and buffers by name."""
MODEL = "model"
"""The name of the network that evaluations measure."""


@dataclass(frozen=True)
class Problem:
    """What a learner learns from: the task, its stored training rows (None where they are generated, or come from acting), and validation data.

    For an environment, the validation data are episodes to play.
    """

    task: Task
    train: DatasetRows | None
    validation: DatasetRows | Episodes


class NotFiniteError(UserError):
    """Numbers that are not finite, and the likely cause. The caller that knows the run puts its name in front."""


class MismatchError(UserError):
    """Weights that do not fit a network. The caller that knows the folder puts it in front."""


class Learner(ABC):
    """An update rule with everything that changes while it learns, all of which is in `state_dict()`.

    Constructed as `Class(config, network, problem, seed, device)`, the network on the device already; networks of its own it makes with
    `pipeline.networks.build.build`. Random numbers come from torch's global generators, or from generators that follow from the seed and are
    part of the state.

    networks: those that are trained, by name; `model` is the one that evaluations measure. optimizers: their update rules.
    """

    def __init__(self, config: LearnerConfig, network: nn.Module, optimizers: Optimizers | None = None, **further: nn.Module) -> None:
        self.config = config
        self.networks = {name: module.eval() for name, module in {MODEL: network, **further}.items()}
        self.optimizers = optimizers or Optimizers()
        self.steps = 0
        self.examples_seen = 0

    @property
    def network(self) -> Any:
        """The network called `model`."""
        return self.networks[MODEL]

    def update(self) -> dict[str, Tensor | float]:
        """Collect data in evaluation mode, then learn from it in training mode; returns metrics by history column.

        Metrics stay on the device: reading one would make the host wait for it at every update.
        """
        collected = self.collect()
        with training(*self.networks.values()):
            return self.learn_from(collected)

    @abstractmethod
    def collect(self) -> Any:
        """The data of the next update: a batch of rows, a rollout. In evaluation mode, without dropout."""

    @abstractmethod
    def learn_from(self, collected: Any, /) -> dict[str, Tensor | float]:
        """Take the optimizer steps of one update, in training mode, and count it in `steps` and `examples_seen`."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics of the exported networks on validation data, without side effects on weights or random generators."""

    @abstractmethod
    def score(self, validation: dict[str, float]) -> float:
        """The number that the checkpoint `best` maximizes."""

    def is_good_enough(self, validation: dict[str, float]) -> bool:
        """Whether to stop before the budget is spent."""
        return False

    def models(self) -> dict[str, nn.Module]:
        """The networks that are validated, kept under labels and exported, by name: averaged ones in place of those that are trained.

        The names are those that the config's `models` declares. All were made by `pipeline.networks.build.build`.
        """
        return self.networks

    def adopt(self, parent: Mapping[str, Weights]) -> None:
        """Start from the weights of a parent's models: here, of every model that both have.

        Called before the first update. Override it to take over a part of a network. Raises MismatchError where they do not fit.
        """
        common = sorted(self.networks.keys() & parent.keys())
        if not common:
            raise MismatchError(f"found {', '.join(sorted(parent))}; expected one of {', '.join(sorted(self.networks))}")
        for name in common:
            load_weights(self.networks[name], parent[name], f"{name}.safetensors", "a parent must have the network of its child")

    def assets(self) -> dict[str, bytes]:
        """Further files beside the weights, by name: a tokenizer, an adapter's settings. The config's `assets` declares the names."""
        return {}

    def metrics(self) -> dict[str, float | int | None]:
        """Learning rates, levels and the like before the next update, by history column, without reading from the device."""
        return self.optimizers.learning_rates(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists of tensors, arrays, numbers, strings and `Replay` buffers. Override it to add to it."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": self.optimizers.state_dict(),
            "steps": self.steps,
            "examples_seen": self.examples_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned for the same specification: learning resumes with the same bits."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.optimizers.load_state_dict(state["optimizers"])
        self.steps, self.examples_seen = state["steps"], state["examples_seen"]

    def rank_state(self) -> dict[str, Any]:
        """The part of the state that differs between the processes of a shared training; empty if none does."""
        return {}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Restore this process's `rank_state`, after `load_state_dict` with the state of rank 0."""
        assert not state

    def raise_not_finite(self, found: str) -> NoReturn:
        """Raise NotFiniteError, naming the likely cause: data were checked before, so it is divergence or the initial weights."""
        if self.steps:
            raise NotFiniteError(
                f"step {self.steps}: {found}: training has diverged; lower learner.learning_rate, or set learner.max_grad_norm"
            )
        origin = f"the weights of its parent, {self.config.parent}," if self.config.parent else "the initial weights"
        raise NotFiniteError(f"step 0: {found} before any update: {origin} cause it, not the learning rate")

    @property
    def reproducible(self) -> bool:
        """Whether the same specification gives the same bits again, interrupted or not."""
        return self.config.seconds is None

    def progress(self, seconds: float) -> float:
        """Fraction of the budget spent after this many wall seconds of updates; 1 or more ends the run."""
        if self.config.seconds is not None:
            return seconds / self.config.seconds
        total = self.config.total_steps
        assert total is not None
        return self.steps / total


def load_weights(network: nn.Module, weights: Weights, file: str, why: str) -> None:
    """Load weights that must fit exactly. Raises MismatchError, naming the file and the first tensor that does not, and saying `why`."""
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            got, wanted = (shapes.get(name, "no such tensor") for shapes in (found, expected))
            raise MismatchError(f"{file}: {name}: got {got}, expected {wanted}: {why}")
    network.load_state_dict(weights)
