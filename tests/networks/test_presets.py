"""The networks of the retrieval and control studies have as many trainable weights as the studies' own; the formulas below say of what.

Notation: D = width, F = inner width of the feed-forward layer, L = blocks, H = heads, E = channels per head.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import networks
from pipeline.config.expand import read_preset
from pipeline.config.networks import SequenceNetwork
from pipeline.mixers.attention import capacity
from pipeline.networks import sequence
from pipeline.networks.actor_critic import ActorCritic
from pipeline.networks.build import build, count_parameters
from pipeline.networks.stack import make_blocks

TRANSFORMERS = {
    "125k": (32, 128, 8, 131_616),
    "250k": (32, 128, 16, 263_200),
    "0.5m": (64, 256, 8, 525_376),
    "1m": (64, 256, 16, 1_050_688),
    "2m": (128, 256, 12, 1_969_280),
    "3m": (128, 512, 12, 3_148_928),
    "5m": (128, 512, 20, 5_248_128),
    "7m": (192, 768, 12, 7_082_688),
    "9m": (192, 768, 16, 9_443_520),
}
"""D, F, L and the trainable weights."""
RECURRENT = {"0.5m": (64, 16, 523_328), "1m": (128, 10, 1_166_208), "2m": (128, 18, 2_099_072)}
"""D, L, weights."""
HYBRIDS = {"0.5m": (64, 256, 12, 458_176), "1m": (128, 256, 7, 980_480), "2m": (128, 256, 14, 1_796_736)}
"""D, F, blocks of Mamba, weights."""
CONTROL = {
    "arelit4": (1_740_608, 0, 4 * (3584 * 4 + 8)),
    "arelit8": (1_765_376, 0, 4 * (6656 * 4 + 8)),
    "relit": (1_792_736, 0, 4 * 33_280 * 4),
    **{f"gtrxl_{memory}": (1_584_256, 512, 4 * (memory * 512 * 4 + 8)) for memory in (32, 64, 128, 256)},
}
"""Published weights of encoder and blocks, how many more ours have, and the state's bytes."""
ENCODER = 16 * 128 + 128
"""Weights of the T-Maze's encoder, which the network's has too."""
VOCABULARY = 80


def decoder(d: int, f: int) -> int:
    """A block of a transformer: four maps of attention, three of the feed-forward layer, two norms."""
    return 4 * d * d + 3 * d * f + 2 * d


def mamba(d: int) -> int:
    """A block of Mamba: map in, convolution, x_proj, dt_proj, A, D, map out, norm."""
    rank = math.ceil(d / 16)
    return 4 * d * d + 10 * d + 2 * d * (rank + 32) + 2 * d * (rank + 1) + 32 * d + 2 * d + 2 * d * d + d


def made(name: str) -> tuple[SequenceNetwork, Any]:
    """A preset's config, and its network without memory for weights."""
    block = read_preset(name)
    config = SequenceNetwork.model_validate(block)
    with torch.device("meta"):
        return config, sequence.SequenceNetwork(config, VOCABULARY, VOCABULARY)


@pytest.mark.parametrize("size", TRANSFORMERS)
def test_transformers(size: str) -> None:
    d, f, depth, published = TRANSFORMERS[size]
    config, network = made(f"{size}_transformer")
    assert (config.width, config.depth) == (d, depth)
    assert count_parameters(network) == depth * decoder(d, f) + d == published
    assert network.state_bytes(100) == depth * (2 * capacity(100) * d * 4 + 16)


@pytest.mark.parametrize("size", RECURRENT)
def test_recurrent_networks(size: str) -> None:
    d, depth, published = RECURRENT[size]
    _, network = made(f"{size}_rnn")
    assert count_parameters(network) == depth * mamba(d) + d == published
    assert network.state_bytes(9999) == depth * 2 * d * (16 + 3) * 4


@pytest.mark.parametrize("size", HYBRIDS)
def test_hybrids(size: str) -> None:
    d, f, depth, published = HYBRIDS[size]
    config, network = made(f"{size}_hybrid")
    assert [mixer.name for mixer, _ in config.blocks] == ["mamba"] * depth + ["attention"]
    assert count_parameters(network) == depth * mamba(d) + d + decoder(d, f) == published


@pytest.mark.parametrize("name", ["0.5m_transformer", "0.5m_rnn", "0.5m_hybrid"])
def test_tokens_are_fixed_codes_that_the_head_reads_back(name: str) -> None:
    config, network = made(name)
    assert config.embedding == "sinusoid" and config.tie_embeddings and network.head is None
    assert [key for key, value in network.named_parameters() if not value.requires_grad] == ["embedding.weight"]


def gated(d: int) -> int:
    """What every block of the control study has: two norms, two gates, two maps as wide as the network."""
    return 4 * d + 2 * (6 * d * d + d) + 2 * (d * d + d)


def linear(inputs: int, outputs: int) -> int:
    """A map with a bias."""
    return inputs * outputs + outputs


def mixing(name: str, d: int = 128, heads: int = 4, e: int = 64) -> int:
    """The mixer of a block."""
    inner = heads * e
    if name.startswith("arelit"):
        return linear(d, 5 * inner) + linear(d, 3 * heads * int(name[-1])) + linear(inner, d)
    if name == "relit":
        return heads * (linear(d, 5 * e + 2 * 2) + linear(e, e + 2)) + linear(inner, d)
    return linear(d, inner) + linear(d, 2 * inner) + d * inner + 2 * inner + linear(inner, d)


@pytest.mark.parametrize("name", CONTROL)
def test_control_networks(name: str) -> None:
    """GTrXL's: the published four blocks share u and w, 2 x 256 weights, which here each block has (+ 1536); and their maps of distances
    have biases, 256 each, which add the same to every score of a query and so do nothing (- 1024)."""
    config = networks.ActorCritic.model_validate(read_preset(name))
    published, more, state = CONTROL[name]
    with torch.device("meta"):
        blocks, acting = make_blocks(config), ActorCritic(config, [16], [4])
    assert count_parameters(blocks) == 4 * (gated(128) + mixing(name))
    assert count_parameters(blocks) + ENCODER == published + more
    assert count_parameters(acting.encoder) == ENCODER
    assert count_parameters(acting.policy) + count_parameters(acting.critic) == 2 * linear(128, 128) + linear(128, 4) + linear(128, 1)
    assert sum(block.mixer.state_bytes(9999) for block in acting._blocks()) == state


def singular(weight: torch.Tensor) -> np.ndarray:
    """The singular values of a matrix, by numpy: all the gain where it is orthogonal of that gain."""
    return np.linalg.svd(weight.detach().double().numpy(), compute_uv=False)


def parts_of(name: str, block: Any, e: int = 64) -> list[torch.Tensor]:
    """What the published layers draw as one orthogonal matrix each: of AReLiT's mixer all five maps together, of ReLiT's each of each head."""
    mixer = block.mixer
    gates = [part for layer in (block.residual, block.feedforward_residual) for part in (layer.W_rzg, layer.U_rz, layer.U_g)]
    matrices = [matrix for part in gates for matrix in part.weight.split(128)]
    matrices += [layer.weight for layer in (block.feedforward[1][0], block.feedforward[1][2], mixer.out)]
    if name.startswith("arelit"):
        return [*matrices, mixer.project.weight, mixer.scales.weight]
    heads = [*mixer.project.weight.chunk(4)]
    return [
        *matrices,
        *(part for head in heads for part in head.split([e, 2, e, e, e, e, 2])),
        *(q.split([e, 2])[0] for q in mixer.query_HFE),
    ]


@pytest.mark.parametrize("name", ["arelit4", "arelit8", "relit"])
def test_control_networks_start_as_published(name: str) -> None:
    """Every matrix is orthogonal of gain sqrt 2, biases but those of gates zero. So AReLiT's 1280 maps of 128 inputs have a norm of
    sqrt(2 x 128 / 1280) = 0.447 each, where separate ones would have 1.414."""
    acting: Any = build(networks.ActorCritic.model_validate(read_preset(name)), {"observation": [16], "actions": [4]})
    matrices = [
        acting.encoder.layers[0].weight,
        *(acting.get_submodule(f"{head}.{at}").weight for head in ("policy", "critic") for at in (0, 2)),
    ]
    matrices += [part for block in acting._blocks() for part in parts_of(name, block)]
    for matrix in matrices:
        np.testing.assert_allclose(singular(matrix), math.sqrt(2), rtol=1e-5)
    assert all(not bias.any() for key, bias in acting.named_parameters() if key.endswith(".bias") and "norm" not in key)
    assert all(bool((gate.b_g == 2).all()) for block in acting._blocks() for gate in (block.residual, block.feedforward_residual))
    assert {module.eps for module in acting.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}
    mixer = acting._blocks()[0].mixer
    assert mixer.epsilon == (1e-10 if name == "relit" else 1e-5)
    if name != "relit":
        norms = mixer.project.weight.detach().norm(dim=1)
        assert float(norms.square().mean().sqrt()) == pytest.approx(math.sqrt(2 * 128 / 1280), rel=1e-5)
        assert float(norms.mean()) == pytest.approx(0.4464, abs=2e-3), "as the published initialiser gives it"
