"""Weight decay shrinks matrices and nothing else: over every mixer in every network of the catalogue that it can be in."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.learners import Supervised
from pipeline.config.mixers import MIXERS, Lru
from pipeline.config.networks import NETWORKS, SequenceNetwork
from pipeline.learners.optimization import make_optimizer
from pipeline.mixers.lru import LRU
from pipeline.networks.build import build
from tests.learners.small import small_learner

SIZES: dict[str, dict[str, Any]] = {
    "sequence": {"vocabulary": 5, "classes": 4, "features": 2, "cells": 9},
    "recursive": {"vocabulary": 5, "classes": 4, "cells": 9},
    "actor_critic": {"observation": (3,), "actions": (2, 2)},
}
"""What a network of each name is made for."""

TABLES = {
    "mamba": {"A_log"},
    "rwkv7": {"shift_MD", "bonus_HK", "scale_HK", "offset_HK"},
    "relit": {"query_bias_HF", "constants_2HK"},
    "gtrxl": {"content_HE", "distance_HE"},
}
"""Parameters of two dimensions or more that are no matrices: rates of each channel, gains and biases of each head."""

OWN = [
    (network, mixer)
    for network in SIZES
    for mixer, kind in MIXERS.items()
    if kind.__module__.startswith("pipeline.") and (kind.causal or network != "actor_critic")
]


def config(**fields: Any) -> Supervised:
    return Supervised(**{"steps": 1, "optimizer": "adamw", "learning_rate": 1.0, "weight_decay": 0.1, "max_grad_norm": None, **fields})


def idle(network: nn.Module, steps: int = 20, **fields: Any) -> None:
    """Optimizer steps with gradients of zero: what changes is decay."""
    optimizer = make_optimizer(config(**fields), network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    for _ in range(steps):
        optimizer.step()


def is_matrix(name: str, value: Tensor) -> bool:
    return value.ndim >= 2 and not any(name.endswith(f".{table}") for tables in TABLES.values() for table in tables)


def test_every_network_of_the_catalogue_is_tested() -> None:
    assert {name for name, kind in NETWORKS.items() if kind.__module__.startswith("pipeline.")} == set(SIZES)


@pytest.mark.parametrize(("network", "mixer"), OWN)
def test_matrices_shrink_and_nothing_else_changes(network: str, mixer: str) -> None:
    kind: Any = NETWORKS[network]
    parts: dict[str, Any] = {"width": 16, "depth": 2, "feedforward": 1.0}
    if not kind.recursive:
        parts |= {"norm": "layer", "residual": "gru", "activation": "relu"}
        parts |= {"convolution": 2, "attention": {"at": [2]}} if MIXERS[mixer].causal else {}
    module = build(kind.model_validate({"mixer": mixer, **parts}), SIZES[network])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5)  # zeros would stay zeros
    before = copy.deepcopy(dict(module.named_parameters()))
    idle(module)
    for name, value in module.named_parameters():
        if is_matrix(name, value):
            torch.testing.assert_close(value, before[name] * 0.9**20, rtol=1e-5, atol=1e-7)
        else:
            assert value.equal(before[name]), name


@pytest.mark.parametrize("update", ["constant", "dense", "scalar", "sum", "delta"])
def test_the_gates_that_relit_learns_stay(update: Any) -> None:
    learner = small_learner({"name": "relit", "update": update}, optimizer="adamw", weight_decay=0.1)  # pyright: ignore[reportArgumentType]
    before = copy.deepcopy(dict(learner.network.named_parameters()))
    idle(learner.network)
    changed = {name for name, value in learner.network.named_parameters() if not value.equal(before[name])}
    assert changed == {name for name, value in before.items() if is_matrix(name, value)}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
def test_the_longest_time_constant_of_lru_stays(optimizer: Any) -> None:
    torch.manual_seed(3)
    mixer = LRU(Lru(), 128)

    def longest() -> float:
        return float((1 / mixer.nu_N.detach().double().exp()).max())  # |a| = exp(-exp(nu)): steps until h has fallen to 1 / e

    assert longest() == pytest.approx(656, abs=1)
    idle(mixer, steps=5000, optimizer=optimizer, learning_rate=1e-3)
    assert longest() == pytest.approx(656, abs=1)


def test_tied_and_frozen_embeddings() -> None:
    tied, frozen = (
        build(SequenceNetwork.model_validate({"width": 16, **fields}), {"vocabulary": 8, "classes": 8})
        for fields in ({"tie_embeddings": True}, {"embedding": "orthogonal"})
    )
    for network, factor in ((tied, 0.9), (frozen, 1.0)):
        weight = network.get_submodule("embedding").get_parameter("weight")
        before = weight.detach().clone()
        idle(network, steps=1)
        torch.testing.assert_close(weight.detach(), before * factor)


class Own(nn.Module):
    """A plugged-in module with a declared matrix, an undeclared one, and layers of torch."""

    decayed: tuple[str, ...] = ("matrix",)

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.table = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
        self.layers = nn.ModuleList([nn.Conv1d(2, 2, 2), nn.GRUCell(2, 2), nn.Bilinear(2, 2, 2), nn.LayerNorm([2, 2])])


def test_a_plain_parameter_is_left_alone_unless_its_module_says_otherwise() -> None:
    module = Own()
    before = copy.deepcopy(dict(module.named_parameters()))
    idle(module, steps=1)
    changed = {name for name, value in module.named_parameters() if not value.equal(before[name])}
    assert changed == {"matrix", "layers.0.weight", "layers.1.weight_ih", "layers.1.weight_hh", "layers.2.weight"}


def test_a_misspelt_declaration_is_found() -> None:
    module = Own()
    module.decayed = ("matrx",)
    with pytest.raises(AssertionError, match="Own: decayed names what is not there"):
        idle(module)


def test_without_decay_there_is_one_group_and_it_is_one_kernel() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert len(make_optimizer(config(weight_decay=0.0), network).param_groups) == 1
    groups = make_optimizer(config(), network).param_groups
    assert [(len(group["params"]), group["weight_decay"], group["fused"]) for group in groups] == [(1, 0.1, True), (3, 0.0, True)]
    assert len(make_optimizer(config(), nn.LayerNorm(2)).param_groups) == 1


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
def test_decayed_training_resumes_bit_by_bit(optimizer: Any) -> None:
    fields = {"mixer": "mamba", "optimizer": optimizer, "weight_decay": 0.1, "lr_schedule": "cosine", "warmup_steps": 2}
    whole, resumed = small_learner(**fields), small_learner(**fields)
    for _ in range(4):
        whole.update()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for _ in range(3):
        whole.update()
        resumed.update()
    for name, value in whole.network.state_dict().items():
        assert value.equal(resumed.network.state_dict()[name]), name
