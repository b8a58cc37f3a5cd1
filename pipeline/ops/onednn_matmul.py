"""Float32 matrix products by oneDNN on AMD processors with AVX-512, where torch's default library, MKL, is slow.

MKL uses 256-bit vectors on processors not made by Intel; oneDNN, which torch also contains, uses 512 bits. On a Zen 5 core MKL reaches
90 GFLOP/s and oneDNN 200, with 10 us more overhead per call, so products of at least WORTH multiplications go to oneDNN. All networks
benefit, transformers included; results differ from MKL's in the last bits, as between processor models.

Notation: (M, K) and (K, N) = shapes of the two factors.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from pipeline.ops import backends

OPERATION = "products"
WORTH = 1 << 21
"""Multiplications M K N above which oneDNN is faster, for all three products of a linear layer and its gradient."""


def use_faster_products() -> None:
    """Make this process use oneDNN for matrix products where it is faster. Repeated calls have no effect."""
    if backends.choose(OPERATION, {"onednn": unavailable_reason, "torch": lambda: None}) == "onednn":
        _replace()


def unavailable_reason() -> str | None:
    """Return why oneDNN is not preferred on this machine; None if it is."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _is_amd():
        return "it is faster on AMD processors with AVX-512 only"
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        return "this build of torch lacks oneDNN or MKL"
    return None


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@cache
def _replace() -> Library:
    """Override torch's CPU kernels for as long as the returned library lives."""
    library = Library("aten", "IMPL")
    ours = {"mm": _mm, "mm.out": _mm_out, "addmm": _addmm, "addmm.out": _addmm_out, "addmm_": _addmm_in_place}
    _torch.update({name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in ours})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about overridden kernels
        for name, kernel in ours.items():
            library.impl(name, kernel, "CPU", with_keyset=True, allow_override=True)
    return library


_torch: dict[str, Any] = {}
"""Torch's own kernels, called with the dispatch keys passed to ours."""


def _suits(one: Tensor, other: Tensor) -> bool:
    """Whether a product is large enough, float32, and of matrices in row-major or column-major layout."""
    return (
        one.numel() * other.shape[1] >= WORTH  # first: most products are small
        and one.dtype is other.dtype is torch.float32
        and one.shape[1] == other.shape[0]
        and all(1 in matrix.stride() and 0 not in matrix.stride() for matrix in (one, other))
    )


def _fits(result: Tensor, one: Tensor, other: Tensor) -> bool:
    """Whether a product can be written or added to a tensor without a cast or broadcast."""
    return result.dtype is torch.float32 and result.shape == (one.shape[0], other.shape[1])


def product(one: Tensor, other: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply (M, K) by (K, N) with oneDNN and add a bias (N).

    OneDNN copies a column-major first matrix, so in that case the smaller one is passed first.
    """
    if bias is None and one.stride(1) != 1 and one.numel() > other.numel():
        return _linear(other.t(), _without_gaps(one), None).t().contiguous()
    return _linear(one, _without_gaps(other.t()), bias)


def _without_gaps(weight: Tensor) -> Tensor:
    """Copy a matrix that is a slice of a wider one: with such a weight oneDNN is a thousand times slower."""
    return weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")


def _mm(keys: Any, one: Tensor, other: Tensor) -> Tensor:
    return product(one, other) if _suits(one, other) else _torch["mm"].call_boxed(keys, one, other)


def _mm_out(keys: Any, one: Tensor, other: Tensor, *, out: Tensor) -> Tensor:
    if _suits(one, other) and _fits(out, one, other):
        return out.copy_(product(one, other))
    return _torch["mm.out"].call_boxed(keys, one, other, out=out)


def _addmm(keys: Any, bias: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if beta == alpha == 1 and _suits(one, other) and bias.dtype is torch.float32:
        if bias.shape == other.shape[1:]:
            return product(one, other, bias)
        if _fits(bias, one, other):
            return product(one, other).add_(bias)
    return _torch["addmm"].call_boxed(keys, bias, one, other, beta=beta, alpha=alpha)


def _addmm_out(keys: Any, bias: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor) -> Tensor:
    if beta == alpha == 1 and _suits(one, other) and _fits(out, one, other):
        return torch.add(product(one, other), bias, out=out)
    return _torch["addmm.out"].call_boxed(keys, bias, one, other, beta=beta, alpha=alpha, out=out)


def _addmm_in_place(keys: Any, total: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if beta == alpha == 1 and _suits(one, other) and _fits(total, one, other):
        return total.add_(product(one, other))
    return _torch["addmm_"].call_boxed(keys, total, one, other, beta=beta, alpha=alpha)
