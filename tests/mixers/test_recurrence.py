"""Every mixer against its plain recurrence, in float64.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.mixers.base import Mixer
from tests.mixers.making import CAUSAL, CELLS, MIXERS, close, make, sequence

VARIANTS = [
    ("delta_net", {"allow_neg_eigval": True}),
    ("gated_delta_net", {"allow_neg_eigval": True}),
    ("min_gru", {"candidate": "positive"}),
    ("min_lstm", {"candidate": "positive"}),
    ("arelit", {"oscillators": "upstream", "r": 3}),
    ("relit", {"feature_map": "dpfp"}),
    ("gtrxl", {"mem_len": 4, "cache": False}),
    ("token_mixing", {"expansion": 1.5, "multiple_of": 8}),
    *(("both_ways", {"mixer": mixer}) for mixer in CAUSAL),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "fields"), [*((name, {}) for name in sorted(MIXERS)), *VARIANTS])
def test_a_sequence_equals_the_plain_recurrence(name: str, fields: dict[str, Any]) -> None:
    mixer, x_BTD = make(name, **fields), sequence(2, CELLS)
    if type(mixer).recurrence is Mixer.recurrence and not MIXERS[name].implementation.startswith("pipeline."):
        pytest.skip("a plug-in need not have one")
    generator = torch.Generator().manual_seed(1)
    for parameter in mixer.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    y_BTD, _ = mixer(x_BTD)
    close(y_BTD, torch.stack([mixer.recurrence(x_TD) for x_TD in x_BTD]))
