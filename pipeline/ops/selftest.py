"""Self-test: runs every backend of every mixer on a small sequence and compares it with plain torch, in a second, before hours of training.

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

ROWS, STEPS, WIDTH = 2, 36, 32
TOLERANCE = 1e-3
"""Tolerance of outputs and gradients, relative to the largest absolute value. Errors of a wrong kernel are much larger."""


def try_backends(device: torch.device) -> Iterator[tuple[str, bool, str]]:
    """Yield (backend, passed, message) for every backend other than plain torch; unavailable backends pass."""
    for backend in backends.KNOWN:
        if backend == "onednn":
            yield backend, *_try_products()
        elif backend not in ("auto", "torch"):
            yield backend, *_try(backend, device)


def _try_products() -> tuple[bool, str]:
    """Test oneDNN, which belongs to no mixer: it multiplies the matrices of every network."""
    reason = onednn_matmul.unavailable_reason()
    if reason is not None:
        return True, f"not available: {reason}"
    random = torch.Generator().manual_seed(0)
    one_MK, other_KN = torch.randn(128, 256, generator=random), torch.randn(256, 128, generator=random)
    well = _close(onednn_matmul.product(one_MK, other_KN), (one_MK.double() @ other_KN.double()).float())
    return well, "matrix products agree with torch" if well else "matrix products differ from torch"


def _try(backend: str, device: torch.device) -> tuple[bool, str]:
    agreeing, wrong, reasons = [], [], []
    for name in MIXERS:
        try:
            found = _outcome(name, backend, device)
        except backends.BackendUnavailable as error:
            reasons.append(error.reason)
            continue
        except Exception as error:  # any failure of the library is a finding
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
    """Return the output and gradients of a mixer; None if it did not use the requested backend."""
    torch.manual_seed(0)
    config: Any = MIXERS[name]
    mixer: Any = implementation(config)(config(), WIDTH, *([STEPS] if config.fixed_length else [])).to(device)
    x_BTD = torch.randn(ROWS, STEPS, WIDTH, generator=torch.Generator().manual_seed(0)).to(device)
    with _asking(backend) as used:
        y_BTD, _ = mixer(x_BTD)
        if y_BTD.requires_grad:
            y_BTD.square().mean().backward()
        asked = backend == "torch" or backend in used()
    return [y_BTD.detach(), *(weight.grad for weight in mixer.parameters() if weight.grad is not None)] if asked else None


@contextmanager
def _asking(backend: str) -> Iterator[Any]:
    """Request a backend by the environment variable; yields a function that returns the backends used meanwhile."""
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
