"""Every backend of every mixer, tried on one small sequence and compared with plain torch: a second's look before hours of training.

Notation: B = batch size, T = sequence length, D = width; M, K, N = sizes of a product.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.config.catalogue import implementation
from pipeline.config.mixers import MIXERS
from pipeline.ops import backends, onednn_matmul

ROWS, STEPS, WIDTH = 2, 32, 32
TOLERANCE = 1e-3
"""Largest difference of outputs and of gradients, in units of the largest value. Wrong kernels are wrong by much more."""


def try_backends(device: torch.device) -> Iterator[tuple[str, bool, str]]:
    """Yield (backend, whether it is well, what was found) for every backend that is not plain torch; absent ones are well."""
    for backend in backends.KNOWN:
        if backend == "onednn":
            yield backend, *_try_products()
        elif backend not in ("auto", "torch"):
            yield backend, *_try(backend, device)


def _try_products() -> tuple[bool, str]:
    """OneDNN is no mixer's: it multiplies matrices of every network."""
    reason = onednn_matmul.refusal()
    if reason is not None:
        return True, f"not available: {reason}"
    draw = torch.Generator().manual_seed(0)
    one_MK, other_KN = torch.randn(128, 256, generator=draw), torch.randn(256, 128, generator=draw)
    well = _close(onednn_matmul.product(one_MK, other_KN), (one_MK.double() @ other_KN.double()).float())
    return well, "agrees with torch: products" if well else "differs from torch: products"


def _try(backend: str, device: torch.device) -> tuple[bool, str]:
    agreeing, wrong, reasons = [], [], []
    for name in MIXERS:
        try:
            found = _outcome(name, backend, device)
        except backends.BackendUnavailable as error:
            reasons.append(error.reason)
            continue
        except Exception as error:  # a library that breaks is what is looked for here
            wrong.append(f"{name} ({type(error).__name__})")
            continue
        if found is not None:
            expected = _outcome(name, "torch", device) or []
            (agreeing if all(map(_close, found, expected)) else wrong).append(name)
    if wrong:
        return False, f"differs from torch: {', '.join(wrong)}"
    if agreeing:
        return True, f"agrees with torch: {', '.join(agreeing)}"
    return True, f"not available: {reasons[0]}" if reasons else "no mixer has it here"


def _outcome(name: str, backend: str, device: torch.device) -> list[Tensor] | None:
    """Output and gradients of a mixer; None where another backend than the one asked for computed it."""
    torch.manual_seed(0)
    config: Any = MIXERS[name]
    mixer: Any = implementation(config)(config(), WIDTH).to(device)
    x_BTD = torch.randn(ROWS, STEPS, WIDTH, generator=torch.Generator().manual_seed(0)).to(device)
    with _asking(backend) as used:
        y_BTD, _ = mixer(x_BTD)
        if y_BTD.requires_grad:
            y_BTD.square().mean().backward()
        asked = backend == "torch" or backend in used()
    return [y_BTD.detach(), *(weight.grad for weight in mixer.parameters() if weight.grad is not None)] if asked else None


@contextmanager
def _asking(backend: str) -> Iterator[Any]:
    """Ask for a backend by the environment variable; yields what tells which ones were used meanwhile."""
    before, variable = backends.used(), os.environ.get(backends.VARIABLE)
    backends.forget()
    os.environ[backends.VARIABLE] = backend
    try:
        yield lambda: {name for names in backends.used().values() for name in names}
    finally:
        backends.forget(before)
        os.environ.pop(backends.VARIABLE)
        if variable is not None:
            os.environ[backends.VARIABLE] = variable


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1e-6))
