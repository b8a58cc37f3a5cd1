"""A real diagonal linear recurrence whose decay differs at every position, as one operation with its own gradient.

    h_t = a_t h_{t-1} + u_t          elementwise; h_{t-1} = 0 where t starts a new episode

Notation: B = batch size, T = sequence length, D = width.

Backends. `c`: on the CPU, one compiled loop over time. `torch`: the same loop in torch on the CPU; elsewhere a scan by doubling, after whose
round k each position holds the sum over the 2^k positions up to itself: h_t += a_t h_{t-k}, a_t *= a_{t-k} for k = 1, 2, 4, ...
The gradient is the same recurrence backwards: g_t = dL/dh_t + a_{t+1} g_{t+1}; then dL/du_t = g_t and dL/da_t = g_t h_{t-1}.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops import backends, huge_pages, native

OPERATION = "gated_scan"
SOURCE = "gated_scan.c"

Gradients = tuple[Tensor, Tensor, Tensor]
"""Gradients of a_BTD, u_BTD and the initial state."""


class GatedScanBackend(Protocol):
    """The recurrence and its gradient."""

    def forward(self, a_BTD: Tensor, u_BTD: Tensor, start_BD: Tensor) -> Tensor:
        """Return h_BTD."""
        ...

    def backward(self, d_h_BTD: Tensor, h_BTD: Tensor, a_BTD: Tensor, start_BD: Tensor) -> Gradients:
        """Return the gradients, given dL/dh of each position alone."""
        ...


class CGatedScan:
    """`gated_scan.c` through ctypes."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.library = native.load_for(dtype, SOURCE)

    def forward(self, a_BTD: Tensor, u_BTD: Tensor, start_BD: Tensor) -> Tensor:
        """Loop over time, vectorised over channels."""
        h_BTD = huge_pages.empty(u_BTD.shape, u_BTD)
        self.library.forward(*map(native.address, (h_BTD, a_BTD, u_BTD, start_BD)), *map(native.size, u_BTD.shape))
        return h_BTD

    def backward(self, d_h_BTD: Tensor, h_BTD: Tensor, a_BTD: Tensor, start_BD: Tensor) -> Gradients:
        """Loop backwards over time."""
        found = huge_pages.empty(a_BTD.shape, a_BTD), huge_pages.empty(a_BTD.shape, a_BTD), torch.empty_like(start_BD)
        tensors = (*found, d_h_BTD, h_BTD, a_BTD, start_BD)
        self.library.backward(*map(native.address, tensors), *map(native.size, a_BTD.shape))
        return found


class TorchGatedScan:
    """Plain torch, for any device and dtype."""

    def forward(self, a_BTD: Tensor, u_BTD: Tensor, start_BD: Tensor) -> Tensor:
        """Loop on the CPU, scan by doubling elsewhere."""
        run = loop if u_BTD.device.type == "cpu" else doubling
        return run(a_BTD, u_BTD, start_BD)

    def backward(self, d_h_BTD: Tensor, h_BTD: Tensor, a_BTD: Tensor, start_BD: Tensor) -> Gradients:
        """Run the same recurrence on the reversed sequence, each position with the decay of the next one."""
        if a_BTD.device.type == "cpu":
            g_BTD = loop_back(a_BTD, d_h_BTD)
        else:
            later_BTD = torch.cat([a_BTD[:, 1:], torch.zeros_like(a_BTD[:, :1])], 1)
            g_BTD = doubling(later_BTD.flip(1), d_h_BTD.flip(1), torch.zeros_like(start_BD)).flip(1)
        d_a_BTD = huge_pages.empty(a_BTD.shape, a_BTD)
        torch.mul(g_BTD[:, 0], start_BD, out=d_a_BTD[:, 0])
        torch.mul(g_BTD[:, 1:], h_BTD[:, :-1], out=d_a_BTD[:, 1:])
        return d_a_BTD, g_BTD, a_BTD[:, 0] * g_BTD[:, 0]


def loop(a_BTD: Tensor, u_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """Compute h_BTD one position at a time."""
    h_BTD, before_BD = huge_pages.empty(u_BTD.shape, u_BTD), start_BD
    for a_BD, u_BD, h_BD in zip(a_BTD.unbind(1), u_BTD.unbind(1), h_BTD.unbind(1), strict=True):
        torch.addcmul(u_BD, a_BD, before_BD, out=h_BD)
        before_BD = h_BD
    return h_BTD


def loop_back(a_BTD: Tensor, d_h_BTD: Tensor) -> Tensor:
    """Compute g_BTD one position at a time, from the last to the first."""
    g_BTD = huge_pages.empty(d_h_BTD.shape, d_h_BTD)
    g_BTD[:, -1] = d_h_BTD[:, -1]
    later, places = g_BTD[:, -1], zip(a_BTD.unbind(1)[:0:-1], d_h_BTD.unbind(1)[-2::-1], g_BTD.unbind(1)[-2::-1], strict=True)
    for a_BD, d_h_BD, g_BD in places:
        torch.addcmul(d_h_BD, a_BD, later, out=g_BD)
        later = g_BD
    return g_BTD


def doubling(a_BTD: Tensor, u_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """Compute h_BTD in log T rounds."""
    h_BTD, reach = u_BTD.clone(), 1
    h_BTD[:, 0] += a_BTD[:, 0] * start_BD
    while reach < u_BTD.shape[1]:
        h_BTD = torch.cat([h_BTD[:, :reach], torch.addcmul(h_BTD[:, reach:], a_BTD[:, reach:], h_BTD[:, :-reach])], 1)
        a_BTD = torch.cat([a_BTD[:, :reach], a_BTD[:, reach:] * a_BTD[:, :-reach]], 1)
        reach *= 2
    return h_BTD


def gated_scan(a_BTD: Tensor, u_BTD: Tensor, state_BD: Tensor, reset_BT: Tensor | None = None, backend: str | None = None) -> Tensor:
    """Compute h_BTD; state_BD is the state before the first position.

    Differentiable once in every float input. Raises UserError if an explicit backend is not available.
    """
    assert a_BTD.shape == u_BTD.shape and a_BTD.dtype == u_BTD.dtype == state_BD.dtype
    if reset_BT is not None:
        a_BTD = a_BTD.masked_fill(reset_BT.unsqueeze(-1), 0)
    candidates: dict[str, backends.UnavailableReason] = {"c": partial(native.unavailable_reason, SOURCE, u_BTD), "torch": lambda: None}
    name = backends.choose(OPERATION, candidates, backend)
    kernel = CGatedScan(u_BTD.dtype) if name == "c" else TorchGatedScan()
    return _GatedScan.apply(a_BTD.contiguous(), u_BTD.contiguous(), state_BD.contiguous(), kernel)  # pyright: ignore[reportReturnType]


class _GatedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        a, u, start, kernel = arguments
        h = kernel.forward(a, u, start)
        ctx.kernel = kernel
        ctx.save_for_backward(h, a, start)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.kernel.backward(d_outputs[0].contiguous(), *ctx.saved_tensors), None
