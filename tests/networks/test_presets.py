"""The retrieval study's networks have as many trainable weights as the study's own, whose sizes follow from the formulas below.

Letters: D width, F inner width of the feed-forward layer, L blocks.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pipeline.config.document import read_document
from pipeline.config.networks import SequenceNetwork
from pipeline.config.resolve import PRESETS, _with_presets
from pipeline.mixers.attention import capacity
from pipeline.networks import sequence
from pipeline.networks.build import count_parameters

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
    block = _with_presets(read_document(PRESETS / f"{name}.yaml"))
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
    assert config.embedding == "sinusoid" and config.tied and network.head is None
    assert [key for key, value in network.named_parameters() if not value.requires_grad] == ["embedding.weight"]
