"""Switching between training and evaluation mode.

    acting, validation, evaluation, decoding, profiling, after loading      evaluation mode: as returned by `build`
    the optimizer steps of an update, the training speed of a profile       training mode: inside `training`

Nothing else calls `train()` or `eval()`, so no phase depends on the previous one, and a resumed training is in the same mode as an
uninterrupted one. Dropout masks are sampled from torch's global generators, whose state is in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training(*networks: nn.Module) -> Iterator[None]:
    """Set training mode inside the block, and evaluation mode after it, also after an exception."""
    for network in networks:
        network.train()
    try:
        yield
    finally:
        for network in networks:
            network.eval()
