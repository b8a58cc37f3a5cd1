"""Backend `triton` of the four multiplicative cells on CUDA: one kernel for a whole sequence, another for its gradient.

Input projections before the kernel and weight gradients after it are large products over all positions. Notation, buffers and the two
types of cells: `pipeline.ops.multiplicative_triton_kernels`, which is imported only by this backend. There, W and b are part of u and the
gates' p; if x is given, the cell reads m * x.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops.loop import States

ROWS = 16
"""Batch rows per program: the smallest size of a matrix product in Triton."""
BLOCKS = (16, 64)
"""Smallest and largest number of columns in a tile."""


def unavailable_reason(like: Tensor) -> str | None:
    """Return why the kernels cannot process such a tensor; None if they can. In Triton's interpreter they also run on the CPU."""
    if like.dtype != torch.float32:
        return f"it computes in float32 and got {like.dtype}"
    if like.device.type != "cuda" and not interpreted():
        return "needs tensors on a CUDA GPU"
    return import_failure()


def interpreted() -> bool:
    """Whether Triton's interpreter is enabled by TRITON_INTERPRET."""
    return import_failure() is None and bool(importlib.import_module("triton").knobs.runtime.interpret)


@functools.cache
def import_failure() -> str | None:
    """Return why Triton cannot be imported; None if it can."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return None


def run(
    cell: str,
    projected_BTE: Tensor,
    recurrent_ED: Tensor,
    states: States,
    reset_BT: Tensor | None = None,
    x_BTD: Tensor | None = None,
    into_GD: Tensor | None = None,
) -> States:
    """Return the states after every position, (B, T, D) each, given the initial ones: h and c for cell `lstm`, h for `gru`.

    projected_BTE: u and the gates' p (or bias). recurrent_ED: U_m stacked on U. x_BTD, into_GD: x and W, for cells that read v = m * x.
    Differentiable once in every float input.
    """
    h_BD, *others = states
    found = _Loop.apply(cell, reset_BT, projected_BTE, recurrent_ED, x_BTD, into_GD, h_BD, others[0] if others else None)
    return found if isinstance(found, tuple) else (found,)


class Buffers(NamedTuple):
    """Buffers of the forward kernels, in the order of their arguments."""

    gates: Tensor
    x: Tensor
    first: Tensor
    second: Tensor
    reading: Tensor
    h: Tensor
    c: Tensor
    reset: Tensor
    recurrent: Tensor
    into: Tensor


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cell: str, reset_BT: Tensor | None, *inputs: Any) -> tuple[Tensor, ...]:
        projected, recurrent, x, into, h_BD, c_BD = inputs
        (batch, steps, _), width = projected.shape, h_BD.shape[1]
        gates = projected.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        first, second, reading = (gates.new_empty(steps, batch, width) for _ in range(3))
        h, c = (gates.new_empty(steps + 1, batch, width) for _ in range(2))
        for states, before_BD in ((h, h_BD), (c, c_BD)):
            if before_BD is not None:
                states[0] = before_BD
        reset = torch.zeros(steps + 1, batch, dtype=torch.uint8, device=gates.device)
        if reset_BT is not None:
            reset[:-1] = reset_BT.t()
        ctx.cell, ctx.reads_input = cell, x is not None
        # Unused arguments: any pointer will do.
        given = (_time_first(x), into.contiguous()) if ctx.reads_input else (gates, gates)
        buffers = Buffers(gates, given[0], first, second, reading, h, c, reset, recurrent.contiguous(), given[1])
        _launch("FORWARD", cell, ctx.reads_input, buffers)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*buffers)
        return tuple(states[1:].transpose(0, 1) for states in (h, c)[: 1 if c_BD is None else 2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor | None, d_cells: Tensor | None = None) -> tuple[Tensor | None, ...]:
        buffers = Buffers(*ctx.saved_tensors)
        steps, batch, width = buffers.first.shape
        d_states = [torch.zeros_like(buffers.first) if given is None else _time_first(given) for given in (d_y, d_cells)]
        d_gates, d_first = (buffers.h.new_zeros(steps + 1, batch, size) for size in (buffers.gates.shape[2], width))
        d_h, d_c = (buffers.h.new_zeros(batch, width) for _ in range(2))
        _launch("BACKWARD", ctx.cell, ctx.reads_input, buffers, *d_states, d_gates, d_first, d_h, d_c)
        d_recurrent, d_into = _of_weights(ctx.cell, ctx.reads_input, buffers, d_gates[:-1], d_first[:-1])
        d_h += _through_products(ctx.cell, ctx.reads_input, buffers, d_gates[0], d_first[0])
        d_x = d_first[:-1].transpose(0, 1) if ctx.reads_input else None
        return None, None, d_gates[:-1].transpose(0, 1), d_recurrent, d_x, d_into, d_h, d_c if ctx.cell == "lstm" else None


def _launch(direction: str, cell: str, reads_input: bool, buffers: Buffers, *gradients: Tensor) -> None:
    kernels = importlib.import_module("pipeline.ops.multiplicative_triton_kernels")
    steps, batch, width = buffers.first.shape
    block = min(max(1 << (width - 1).bit_length(), BLOCKS[0]), BLOCKS[1])
    with torch.cuda.device_of(buffers.gates):
        launched = getattr(kernels, direction)[cell][(-(-batch // ROWS),)]
        # One stage: no tile may be prefetched across a barrier.
        launched(*buffers, *gradients, steps, batch, width, reads_input, ROWS, block, num_stages=1)


def _of_weights(cell: str, reads_input: bool, buffers: Buffers, d_gates: Tensor, d_first: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of U_m stacked on U, and of W: one product over all positions per matrix and its input."""
    width = d_first.shape[2]
    before = buffers.h[:-1].masked_fill(buffers.reset[:-1].bool().unsqueeze(2), 0.0)
    d_kept, d_late = d_gates[:, :, width:], d_gates[:, :, -width:]
    if cell == "lstm":
        pairs = [(d_gates, before)] if reads_input else [(d_first, before), (d_kept, buffers.second)]
    elif reads_input:
        pairs = [(d_gates[:, :, :-width], before), (d_late, buffers.reading)]
    else:
        pairs = [(d_first, before), (d_kept[:, :, :-width], buffers.second), (d_late, buffers.reading)]
    d_recurrent = torch.cat([d.flatten(0, 1).t() @ seen.flatten(0, 1) for d, seen in pairs])
    return d_recurrent, d_kept.flatten(0, 1).t() @ buffers.first.flatten(0, 1) if reads_input else None


def _through_products(cell: str, reads_input: bool, buffers: Buffers, d_gates_BE: Tensor, d_first_BD: Tensor) -> Tensor:
    """Return the gradient of the initial h through the products of the first position."""
    width = d_first_BD.shape[1]
    if not reads_input:
        return d_first_BD @ buffers.recurrent[:width]
    rows = len(buffers.recurrent) - (0 if cell == "lstm" else width)
    return (d_gates_BE[:, :rows] @ buffers.recurrent[:rows]).masked_fill(buffers.reset[0].bool().unsqueeze(1), 0.0)


def _time_first(tensor_BTD: Tensor) -> Tensor:
    return tensor_BTD.transpose(0, 1).contiguous()
