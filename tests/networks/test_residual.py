"""How what a block computes joins its stream, and the blocks of GTrXL as a whole.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pipeline.config import networks
from pipeline.networks.build import build
from pipeline.networks.residual import GRUGate, make_residual
from pipeline.networks.sequence import SequenceNetwork
from pipeline.networks.stack import PlainFeedForward

WIDTH = 16
GATED = {"depth": 2, "feedforward": 1.5, "activation": "relu", "norm": "layer", "residual": "gru"}


def network(**fields: Any) -> SequenceNetwork:
    """A small network in float64, every parameter away from its start."""
    config: Any = networks.SequenceNetwork
    made = build(config(**{"width": WIDTH, **GATED, **fields}), {"vocabulary": 11, "classes": 8}).double()
    assert isinstance(made, SequenceNetwork)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return made


def test_a_gate_without_weights_lets_the_stream_pass() -> None:
    gate, x = GRUGate(5), torch.randn(3, 5)
    with torch.no_grad():
        for layer in (gate.W_rzg, gate.U_rz, gate.U_g):
            layer.weight.zero_()
    passed = 1 / (1 + math.exp(-2.0))
    torch.testing.assert_close(gate(x, torch.randn(3, 5)), passed * x)
    assert abs(passed - 0.8808) < 1e-4


@torch.no_grad()
def test_a_gate_is_a_gated_recurrent_unit_over_the_depth() -> None:
    gate, x, y = GRUGate(6).double(), torch.randn(4, 6).double(), torch.randn(4, 6).double()
    w_r, w_z, w_c = gate.W_rzg.weight.split(6)
    u_r, u_z = gate.U_rz.weight.split(6)
    new = y.relu()
    r = torch.sigmoid(new @ w_r.T + x @ u_r.T)
    z = torch.sigmoid(new @ w_z.T + x @ u_z.T - gate.b_g)
    c = torch.tanh(new @ w_c.T + (r * x) @ gate.U_g.weight.T)
    torch.testing.assert_close(gate(x, y), (1 - z) * x + z * c)
    for matrix in (w_r, w_z, w_c, u_r, u_z, gate.U_g.weight):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(6).double(), rtol=0, atol=1e-6)


def test_outputs_replace_or_are_added() -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(make_residual(False, 3)(x, y), y) and torch.equal(make_residual(True, 3)(x, y), x + y)


@torch.no_grad()
def test_blocks_with_gates_are_those_of_the_paper() -> None:
    model, tokens_BT = network(mixer="gtrxl", final_norm="none"), torch.randint(11, (2, 9))
    x_BTD = model.embedding(tokens_BT)
    for block in model._blocks():
        assert block.feedforward is not None and block.feedforward_residual is not None
        mixed_BTD, _ = block.mixer(block.norm(x_BTD))
        x_BTD = block.residual(x_BTD, mixed_BTD)
        norm, layers = block.feedforward
        assert isinstance(layers, PlainFeedForward)
        x_BTD = block.feedforward_residual(x_BTD, layers[2](layers[0](norm(x_BTD)).relu()))
    assert model.head is not None
    torch.testing.assert_close(model(tokens_BT)[0], model.head(x_BTD))


@pytest.mark.parametrize("mixer", ["arelit", "relit", "gtrxl", "gru", "none"])
@torch.no_grad()
def test_gates_join_steps_as_they_join_sequences(mixer: str) -> None:
    model, tokens_BT = network(mixer=mixer), torch.randint(11, (3, 12))
    logits_BTC, _ = model(tokens_BT)
    carried, stepped = model.initial_state(3), []
    for token_B in tokens_BT.unbind(1):
        logits_BC, carried = model.step(token_B, carried)
        stepped.append(logits_BC)
    torch.testing.assert_close(torch.stack(stepped, 1), logits_BTC, rtol=1e-10, atol=1e-10)
    chosen = torch.tensor([7, 30])
    torch.testing.assert_close(model(tokens_BT, at_N=chosen)[0], logits_BTC.flatten(0, 1)[chosen], rtol=1e-12, atol=1e-12)


def test_every_weight_of_a_gated_block_learns() -> None:
    model = network(mixer="gru")
    model(torch.randint(11, (2, 9)))[0].square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
