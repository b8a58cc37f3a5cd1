"""What every learner inherits: taking over a parent's weights, and what reaches the network besides tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.config.catalogue import implementation
from pipeline.config.tasks import Copy
from pipeline.evaluation.measurements.tokens import forced
from pipeline.learners.base import MismatchError, load_weights
from pipeline.learners.supervised import Supervised
from pipeline.networks.sequence import SequenceNetwork
from tests.learners.small import small_learner


def weights(learner: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.network.state_dict().items()}


def other(learner: Any) -> Any:
    """A learner of the same kind, all of whose weights differ."""
    with torch.no_grad():
        for value in learner.network.parameters():
            value += 1
    return learner


def test_a_child_takes_the_models_that_both_have() -> None:
    child, parent = small_learner(), other(small_learner())
    started = weights(child)
    child.adopt({"model": weights(parent), "critic": {}})
    assert all(torch.equal(value, weights(parent)[name]) for name, value in weights(child).items())
    assert any(not torch.equal(value, started[name]) for name, value in weights(child).items())


def test_a_parent_without_a_common_model_or_of_another_shape_is_refused() -> None:
    child = small_learner()
    with pytest.raises(MismatchError, match="found critic; expected one of model"):
        child.adopt({"critic": weights(child)})
    with pytest.raises(MismatchError, match=r"model.safetensors: \S+: got \(.*\), expected \("):
        child.adopt({"model": weights(small_learner(network={"width": 8}))})


class PartOfAPolicy(Supervised):
    """Starts from the embedding of a network of another depth."""

    def adopt(self, parent: Any) -> None:
        load_weights(self.network.embedding, {"weight": parent["model"]["embedding.weight"]}, "model.safetensors", "widths must agree")


def test_a_learner_may_take_over_a_part_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.learners.supervised.Supervised", PartOfAPolicy)
    child, parent = small_learner(network={"depth": 1}), other(small_learner())
    before = weights(child)
    child.adopt({"model": weights(parent)})
    changed = {name for name, value in weights(child).items() if not torch.equal(value, before[name])}
    assert changed == {"embedding.weight"} and torch.equal(weights(child)["embedding.weight"], weights(parent)["embedding.weight"])


class ReadsDelay(SequenceNetwork):
    """Reads each row's delay: the row's logits are moved by it, so that a wrong one shows."""

    seen: list[list[int]]

    def forward(self, tokens_BT: torch.Tensor, *rest: Any, delay_B: torch.Tensor, **inputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.seen.append(delay_B.tolist())

        assert delay_B.dtype == torch.int32 and len(delay_B) == len(tokens_BT)
        return super().forward(tokens_BT, *rest, **inputs)


def test_row_inputs_reach_the_network_in_training_validation_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Copy, "inputs", ("delay",))
    monkeypatch.setattr("pipeline.networks.sequence.SequenceNetwork", ReadsDelay)
    learner: Any = small_learner()
    learner.network.seen = []
    batches: list[Any] = []
    take = learner.sampler.take

    def kept(count: int) -> Any:
        batches.append(take(count))
        return batches[-1]

    monkeypatch.setattr(learner.sampler, "take", kept)
    learner.update()
    assert learner.network.seen == [batches[0].columns["delay"].tolist()]
    learner.network.seen.clear()
    learner.validate()
    expected = sorted(learner.validation.columns["delay"].tolist())
    assert sorted(delay for batch in learner.network.seen for delay in batch) == expected
    learner.network.seen.clear()
    task = Copy(symbols=3, delay=4)
    forced(learner.network, implementation(task)(task), learner.validation, torch.device("cpu"))
    assert sorted(delay for batch in learner.network.seen for delay in batch) == expected
