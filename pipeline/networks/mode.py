"""Training and evaluation mode: who switches between them, and when.

    acting, validation, evaluation, decoding, profiling, after loading      evaluation mode: what `build` returns
    the optimizer steps of an update, the training speed of a profile       training mode: inside `training`

Nothing else calls `train()` or `eval()`. So no phase depends on which one came before it, and a resumed training has the mode of one that
was never interrupted. What dropout draws comes from torch's global generators, whose state is in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training(*networks: nn.Module) -> Iterator[None]:
    """Training mode inside the block, evaluation mode after it, however it ends."""
    for network in networks:
        network.train()
    try:
        yield
    finally:
        for network in networks:
            network.eval()
