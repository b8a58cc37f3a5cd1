"""The recursive network against the published equations: outputs, gradients, which updates are constants, sizes, starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config.networks import RecursiveNetwork as Config
from pipeline.networks.build import build, count_parameters
from pipeline.networks.recursive import INITIAL_Q, Carry, RecursiveNetwork, perturb
from pipeline.storage.errors import UserError
from tests.networks import trm_oracle as oracle

ROWS, CELLS, VOCABULARY, CLASSES, IDENTIFIERS = 3, 9, 6, 5, 4
SMALL: dict[str, Any] = {"width": 16, "mixer": {"name": "full_attention", "heads": 2}, "depth": 2, "outer": 3, "inner": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "attention": {"registers": 16},
    "one register": {"registers": 1},
    "no registers": {},
    "token mixing": {"mixer": "token_mixing", "registers": 2},
    "one latent": {"latents": 1},
    "seven latents": {"latents": 7, "inner": 6, "registers": 1},
    "more latents than turns": {"latents": 4},
    "two networks": {"separate": True, "registers": 1},
    "damping": {"damping": 0.3},
    "gate_norm": {"gate_norm": True},
    "gate_convolution": {"gate_convolution": 3},
    "an even convolution of normalised gates": {"gate_convolution": 4, "gate_norm": True, "registers": 1},
}


def made(identifiers: int = IDENTIFIERS, classes: int = CLASSES, **fields: Any) -> RecursiveNetwork:
    """A network in float64; halting weights and identifiers, which start at zero, are random, so that they count."""
    sizes = {"vocabulary": VOCABULARY, "classes": classes, "cells": CELLS, "identifiers": identifiers}
    network = build(Config.model_validate({**SMALL, **fields}), sizes)
    assert isinstance(network, RecursiveNetwork)
    network.double()
    torch.manual_seed(1)
    with torch.no_grad():
        network.q_head.weight.normal_()
        if network.identifiers is not None:
            network.identifiers.weight.normal_()
    return network


def inputs(network: RecursiveNetwork) -> tuple[Tensor, Tensor | None, Carry]:
    """Tokens, identifiers, latents in the middle of a row's work."""
    torch.manual_seed(2)
    tokens = torch.randint(VOCABULARY, (ROWS, CELLS))
    identifiers = torch.tensor([3, 1, 3]) if network.identifiers is not None else None
    return tokens, identifiers, perturb(network.fresh(ROWS, CELLS), 1.0)


def published(network: RecursiveNetwork) -> tuple[oracle.Model, dict[str, Tensor]]:
    """The oracle's model of the same weights, and its leaves by our names."""
    leaf = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    config: Any = network.settings

    def block(prefix: str) -> oracle.Weights:
        gate, up = leaf[f"{prefix}.feedforward.into.weight"].chunk(2)
        found = {"gate": gate, "up": up, "down": leaf[f"{prefix}.feedforward.out.weight"]}
        if config.gate_convolution:
            found |= {
                "kernel": leaf[f"{prefix}.feedforward.convolution.weight"][:, 0],
                "shift": leaf[f"{prefix}.feedforward.convolution.bias"],
            }
        if config.mixer.name == "token_mixing":
            gate, up = leaf[f"{prefix}.mixer.into.weight"].chunk(2)
            return {**found, "row_gate": gate, "row_up": up, "row_down": leaf[f"{prefix}.mixer.out.weight"]}
        q, k, v = leaf[f"{prefix}.mixer.project.weight"].chunk(3)
        return {**found, "query": q, "key": k, "value": v, "join": leaf[f"{prefix}.mixer.out.weight"]}

    networks = [[block(f"blocks.{place}.{depth}") for depth in range(config.depth)] for place in range(len(network.blocks))]
    model = oracle.Model(
        embedding=leaf["embedding.weight"],
        answering=networks[0],
        reasoning=networks[-1],
        head=leaf["head.weight"],
        halting=leaf["q_head.weight"],
        halting_bias=leaf["q_head.bias"],
        registers=config.registers,
        heads=getattr(config.mixer, "heads", 0),
        table=leaf.get("identifiers.weight"),
        kept=config.damping,
        gate_norm=config.gate_norm,
    )
    return model, leaf


def assert_equal_to_oracle(network: RecursiveNetwork, gradient: int = 1, **how: Any) -> None:
    """Logits, q, latents and the gradients of all weights."""
    tokens, identifiers, carry = inputs(network)
    model, leaf = published(network)
    config = network.settings
    how = {"graded": gradient, **how}
    expected = oracle.supervision_step(model, tokens, identifiers, list(carry.latents), config.outer, config.inner, **how)
    logits, after = network(tokens, carry, identifier_B=identifiers, gradient=gradient)
    for mine, theirs in zip([logits, after.q_B2, *after.latents], [*expected[:2], *expected[2]], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    weight = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
    for logits_BTC, q_B2 in ((logits, after.q_B2), expected[:2]):
        ((logits_BTC * weight).sum() + q_B2[:, 0].sum() - 2 * q_B2[:, 1].square().sum()).backward()
    for name, parameter in network.named_parameters():
        theirs = leaf[name].grad
        if theirs is None:  # a network that no constant update leaves to be trained
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.to_dense(), theirs, rtol=1e-7, atol=1e-9, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_is_that_of_the_equations(variant: str) -> None:
    assert_equal_to_oracle(made(**VARIANTS[variant]))


@pytest.mark.parametrize("gradient", [2, 3, 7])
@pytest.mark.parametrize("variant", ["attention", "one latent", "two networks"])
def test_gradients_pass_through_the_last_cycles(variant: str, gradient: int) -> None:
    """7: all three, and no more."""
    assert_equal_to_oracle(made(**VARIANTS[variant]), gradient, graded=min(gradient, 3))


@pytest.mark.parametrize("variant", ["attention", "seven latents", "two networks"])
def test_gradients_of_the_last_updates_only(variant: str) -> None:
    """HRM: one call of f_L and one of f_H."""
    assert_equal_to_oracle(made(**VARIANTS[variant]), 0, graded=1, one_step=True)


@pytest.mark.parametrize(("gradient", "calls"), [(0, 2), (1, 3), (2, 6), (3, 9)])
def test_the_updates_that_are_recorded(gradient: int, calls: int) -> None:
    network, found = made(), []
    network.blocks[0].register_forward_hook(lambda module, given, out: found.append(out.requires_grad))
    tokens, identifiers, carry = inputs(network)
    network(tokens, carry, identifier_B=identifiers, gradient=gradient)
    assert found == [False] * (9 - calls) + [True] * calls
    with torch.no_grad():
        assert not network(tokens, carry, identifier_B=identifiers, gradient=gradient)[0].requires_grad


@pytest.mark.parametrize(
    ("fields", "cells", "parameters"),
    [
        ({"mixer": {"name": "full_attention", "heads": 8}, "feedforward": 3.0}, 81, 6_828_034),
        ({"mixer": {"name": "token_mixing", "multiple_of": 256}, "feedforward": 3.0}, 81, 5_028_866),
    ],
    ids=["attention", "token mixing"],
)
def test_the_published_numbers_of_parameters(fields: dict[str, Any], cells: int, parameters: int) -> None:
    with torch.device("meta"):
        network = RecursiveNetwork(Config(width=512, registers=16, start="zeros", **fields), vocabulary=11, classes=11, cells=cells)
    assert count_parameters(network) == parameters


@pytest.mark.parametrize("registers", [0, 3])
def test_the_width_is_solved_for(registers: int) -> None:
    sizes = {"vocabulary": 11, "classes": 11, "cells": 81}
    config = Config.model_validate({**SMALL, "width": "auto", "parameters": 100_000, "registers": registers})
    network: Any = build(config, sizes)
    assert count_parameters(network) == pytest.approx(100_000, rel=0.03) and network.width % 4 == 0
    assert network.config.width == network.width == network.settings.width


def test_the_halting_head_starts_at_no() -> None:
    network = build(Config.model_validate(SMALL), {"vocabulary": 6, "classes": 5, "cells": 9})
    _, carry = network(torch.randint(6, (4, 9)))
    assert INITIAL_Q == -5 and carry.q_B2.tolist() == [[-5.0, -5.0]] * 4


def test_starts() -> None:
    """Zeros; a vector for all rows and cells, another one for every latent and attempt, that is no parameter; noise anew for every row."""
    assert not any(latent.any() for latent in made().fresh(2, CELLS).latents)
    fixed = made(start="fixed", starts=3, latents=2, registers=1)
    before = [fixed.fresh(2, CELLS, attempt).latents for attempt in range(4)]
    assert all(bool((latent == latent[0, 0]).all()) and latent.shape == (2, CELLS + 1, 16) for latents in before for latent in latents)
    rows = torch.stack([latent[0, 0] for latents in before[:3] for latent in latents])
    assert len(rows.unique(dim=0)) == 6 and before[3][0].equal(before[0][0])
    assert not any("start" in name for name, _ in fixed.named_parameters()) and "start_KLD" in fixed.state_dict()
    logits, _ = fixed(*inputs(fixed)[:1], identifier_B=torch.zeros(ROWS, dtype=torch.int64))
    logits.sum().backward()
    assert fixed.fresh(2, CELLS).latents[0].equal(before[0][0])
    random = made(start="random")
    y, z = random.fresh(2, CELLS, 0, torch.Generator().manual_seed(0)).latents
    assert not y[0].equal(y[1]) and not y.equal(z)
    assert random.fresh(2, CELLS, 1, torch.Generator().manual_seed(0)).latents[0].equal(y)


def test_fixed_starts_are_as_published() -> None:
    """A truncated normal distribution of standard deviation one."""
    start = made(width=512, start="fixed", starts=64, depth=1, mixer="none").start_KLD
    assert isinstance(start, Tensor)
    assert float(start.std()) == pytest.approx(1, abs=0.01) and 2.2 < float(start.abs().max()) < 2.28


def test_identifiers_fill_the_first_register_only() -> None:
    network = made(registers=3)
    read = network._read(torch.zeros(2, CELLS, dtype=torch.int64), torch.tensor([0, 2]))
    assert network.identifiers is not None
    assert read[:, 0].equal(4 * network.identifiers.weight[[0, 2]]) and not read[:, 1:3].any()
    assert read[:, 3:].equal(4 * network.embedding.weight[0].expand(2, CELLS, 16))


def test_outputs_at_some_positions() -> None:
    network = made(registers=2)
    tokens, identifiers, carry = inputs(network)
    at = torch.tensor([0, 5, 26])
    whole, some = (network(tokens, carry, identifier_B=identifiers, at_N=chosen)[0] for chosen in (None, at))
    torch.testing.assert_close(some, whole.flatten(0, 1)[at])


def test_fewer_cycles() -> None:
    """A step of one cycle three times is a step of three."""
    network = made(registers=1)
    tokens, identifiers, carry = inputs(network)
    whole, after = network(tokens, carry, identifier_B=identifiers)
    for _ in range(3):
        parts, carry = network(tokens, carry, identifier_B=identifiers, outer=1)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(carry.latents, after.latents)


def test_noise() -> None:
    carry = made().fresh(2, CELLS)
    assert perturb(carry, 0.0) is carry
    torch.manual_seed(0)
    noisy = perturb(Carry(tuple(torch.zeros(40, 40, 40) for _ in range(2)), carry.q_B2), 0.5)
    assert [float(latent.std()) for latent in noisy.latents] == pytest.approx([0.5, 0.5], rel=0.02) and noisy.q_B2 is carry.q_B2
    assert not noisy.latents[0].equal(noisy.latents[1])


def test_a_row_longer_than_the_context() -> None:
    network = made(context=9)
    with pytest.raises(UserError, match="network: got a row of 10 tokens; expected at most its context of 9"):
        network(torch.zeros(1, 10, dtype=torch.int64), identifier_B=torch.zeros(1, dtype=torch.int64))


def test_the_bytes_that_a_row_carries() -> None:
    network = made(registers=2, latents=3).float()
    carry = network.fresh(1, CELLS)
    assert network.state_bytes(CELLS) == sum(part[0].numel() * 4 for part in (*carry.latents, carry.q_B2))


def test_tasks_it_is_not_made_for() -> None:
    with pytest.raises(UserError, match="expected a task without real numbers"):
        build(Config.model_validate(SMALL), {"vocabulary": 6, "classes": 1, "features": 1, "cells": 9})
