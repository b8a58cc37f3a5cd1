"""Matrix products of float32 on processors where torch's own library for them leaves half of the arithmetic unused.

Torch multiplies by MKL, which keeps to vectors of 256 bits on processors that are not Intel's; oneDNN, in torch as well, does not. On a Zen 5 core
MKL comes to 90 GFLOP/s, oneDNN to 200, whose calls cost 10 us more. So products from WORTH on go to oneDNN there. Every network gains,
the transformers too; results differ from MKL's in their last bits, as those of two kinds of processors do anyway.

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
"""Multiplications M K N from which on oneDNN is faster, in any of the three orders of a linear layer and its gradient."""


def use_faster_products() -> None:
    """From now on let oneDNN multiply matrices in this process, where it is faster. A second call does nothing."""
    if backends.choose(OPERATION, {"onednn": refusal, "torch": lambda: None}) == "onednn":
        _replace()


def refusal() -> str | None:
    """Why oneDNN is not to be preferred here."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _is_amd():
        return "it is faster on AMD processors with AVX-512 only"
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        return "this torch has not both libraries"
    return None


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@cache
def _replace() -> Library:
    """Put ours in front of torch's kernels of the CPU; they stay as long as the library that is returned."""
    library = Library("aten", "IMPL")
    ours = {"mm": _mm, "mm.out": _mm_out, "addmm": _addmm, "addmm.out": _addmm_out, "addmm_": _addmm_in_place}
    _torch.update({name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in ours})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that a kernel is replaced
        for name, kernel in ours.items():
            library.impl(name, kernel, "CPU", with_keyset=True, allow_override=True)
    return library


_torch: dict[str, Any] = {}
"""Torch's own kernels, called with the keys that ours get."""


def _suits(one: Tensor, other: Tensor) -> bool:
    """Whether a product is large enough, of float32, and of matrices that lie in memory row by row or column by column."""
    return (
        one.numel() * other.shape[1] >= WORTH  # first: most products are small
        and one.dtype is other.dtype is torch.float32
        and one.shape[1] == other.shape[0]
        and all(1 in matrix.stride() and 0 not in matrix.stride() for matrix in (one, other))
    )


def _fits(result: Tensor, one: Tensor, other: Tensor) -> bool:
    """Whether a product can be written to, or added to, a tensor as it is."""
    return result.dtype is torch.float32 and result.shape == (one.shape[0], other.shape[1])


def product(one: Tensor, other: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of (M, K) and (K, N) by oneDNN, and a bias of (N) added.

    OneDNN copies its first matrix where that lies column by column, so the smaller one comes first.
    """
    if bias is None and one.stride(1) != 1 and one.numel() > other.numel():
        return _linear(other.t(), _without_gaps(one), None).t().contiguous()
    return _linear(one, _without_gaps(other.t()), bias)


def _without_gaps(weight: Tensor) -> Tensor:
    """A copy where a matrix is part of a wider one: as a weight oneDNN would take a thousand times as long for it."""
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
