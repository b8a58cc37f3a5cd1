"""Backend `c` of the multiplicative cells: one autograd operation, computed by `multiplicative.c` one block of positions at a time.

Equations and notation: `pipeline.ops.multiplicative`. Tensors saved for the backward pass (u, the gates, q and the states) are time-major,
so that a position is contiguous.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops import huge_pages, native, packed_matrix
from pipeline.ops.loop import States

POSITIONS = 256
"""Positions per block, over all rows."""
SOURCE = "multiplicative.c"
WEIGHTS = ("into", "factor", "gating", "reading")
KEPT = ("reset", "gates", "q", "h", "c")
TOTALS = ("d_x", "d_into", "d_bias", "d_factor", "d_recurrent", "d_h", "d_c")
PARTS = ("d_y_part", "d_cells_part", "d_x_part", "d_gates", "d_q")
FIELDS = ("x", "bias", "zeros", *WEIGHTS, *KEPT, "x_part", "m", "read", "d_y", "d_cells", *TOTALS, "d_m", *PARTS, "panels")
SIZES = ("rows", "steps", "width", "gates_width", "block", "kept")

Tensors = dict[str, Any]
"""Tensors by field of `struct sequence` in `multiplicative.c`, which documents their shapes."""
_SEQUENCE = native.structure(FIELDS, SIZES)


class CompiledCell:
    """One cell in one dtype."""

    def __init__(self, cell: str, dtype: torch.dtype) -> None:
        self.library = native.load_for(dtype, SOURCE)
        self.functions = {"forward": self.library[f"{cell}_forward"], "backward": self.library[f"{cell}_backward"]}
        self.reads = cell == "gru"

    def run(self, direction: str, tensors: Tensors, x_BTD: Tensor, gates_width: int, kept: bool) -> None:
        """Run the forward or backward pass over the whole sequence."""
        sizes = (*x_BTD.shape, gates_width, steps_of_block(x_BTD), kept)
        self.functions[direction](native.make_struct(_SEQUENCE, tensors, dict(zip(SIZES, sizes, strict=True))))

    def weights(self, into_ED: Tensor, factor_DD: Tensor, recurrent_GD: Tensor, turned: bool) -> Tensors:
        """Return all weights packed; `turned`: transposed, for the forward pass."""
        width = len(factor_DD)
        parts = recurrent_GD.split([2 * width, width]) if self.reads else (recurrent_GD, None)
        matrices = zip(WEIGHTS, (into_ED, factor_DD, *parts), strict=True)
        return {
            name: None if matrix is None else packed_matrix.packed(self.library, matrix.t() if turned else matrix)
            for name, matrix in matrices
        }


def steps_of_block(x_BTD: Tensor) -> int:
    """Return the number of steps, over all rows, in a block."""
    return max(1, min(POSITIONS // x_BTD.shape[0], x_BTD.shape[1]))


def run(cell: str, tensors: tuple[Tensor, ...], states: States, reset_BT: Tensor | None) -> States:
    """Return the states after every position; `tensors` are x, [W_m; W], its bias, U_m and U, `states` the initial states."""
    kernel, (x_BTD, *weights), (h_BD, *others) = CompiledCell(cell, tensors[0].dtype), tensors, states
    assert all(tensor.dtype == x_BTD.dtype for tensor in (*weights, *states))
    c_BD = others[0] if others else None
    found = _Multiplicative.apply(kernel, torch.is_grad_enabled(), reset_BT, x_BTD.contiguous(), *weights, h_BD, c_BD)
    return found  # pyright: ignore[reportReturnType]


class _Multiplicative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: CompiledCell, lasting: bool, reset: Tensor | None, *inputs: Any) -> tuple[Tensor, ...]:
        x, into, bias, factor, recurrent, h, c = inputs
        kept = _room(x, len(into), reset, h, c, lasting)
        tensors = {"x": x, "bias": bias.contiguous()} | kept | _scratch(x) | kernel.weights(into, factor, recurrent, turned=True)
        kernel.run("forward", tensors, x, len(into), lasting)
        ctx.kernel = kernel
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, into, factor, recurrent, *(kept[name] if lasting else None for name in KEPT))
        return tuple(states[1:].transpose(0, 1) for states in (kept["h"], kept["c"]) if states is not None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor | None, d_cells: Tensor | None = None) -> tuple[Tensor | None, ...]:
        kernel, (x, into, factor, recurrent, *saved) = ctx.kernel, ctx.saved_tensors
        d_hidden = torch.zeros_like(x) if d_y is None else d_y.contiguous()
        outside = {"d_y": d_hidden, "d_cells": None if d_cells is None else d_cells.contiguous()}
        found = [huge_pages.empty(x.shape, x), *map(torch.zeros_like, (into, into[:, 0], factor, recurrent, x[:, 0], x[:, 0]))]
        totals, kept = dict(zip(TOTALS, found, strict=True)), dict(zip(KEPT, saved, strict=True))
        tensors = {"x": x} | kept | _scratch(x) | kernel.weights(into, factor, recurrent, turned=False) | totals | outside
        kernel.run("backward", tensors | _gradient_scratch(kernel, x, len(into)), x, len(into), kept=True)
        return None, None, None, *found[:-1], None if kept["c"] is None else found[-1]


def _room(x_BTD: Tensor, gates_width: int, reset_BT: Tensor | None, h_BD: Tensor, c_BD: Tensor | None, lasting: bool) -> Tensors:
    """Allocate buffers for the whole sequence; gates and q, needed only for a gradient, otherwise just for one block."""
    batch, steps, width = x_BTD.shape
    room = steps if lasting else steps_of_block(x_BTD)
    kept: Tensors = {name: huge_pages.empty((room, batch, size), x_BTD) for name, size in (("gates", gates_width), ("q", width))}
    for name, before in (("h", h_BD), ("c", c_BD)):
        kept[name] = None if before is None else huge_pages.empty((steps + 1, batch, width), x_BTD)
        if before is not None:
            kept[name][0] = before
    return kept | {"reset": None if reset_BT is None else reset_BT.t().contiguous()}


def _scratch(x_BTD: Tensor) -> Tensors:
    """Allocate the per-block buffers of both passes."""
    positions = steps_of_block(x_BTD) * x_BTD.shape[0]
    parts = {name: x_BTD.new_empty(positions, x_BTD.shape[2]) for name in ("x_part", "m", "read")}
    return parts | {"zeros": x_BTD.new_zeros(x_BTD.shape[2])}


def _gradient_scratch(kernel: CompiledCell, x_BTD: Tensor, gates_width: int) -> Tensors:
    """Allocate the per-block buffers of the backward pass."""
    width, positions = x_BTD.shape[2], steps_of_block(x_BTD) * x_BTD.shape[0]
    parts = {name: x_BTD.new_empty(positions, gates_width if name == "d_gates" else width) for name in PARTS}
    panels = packed_matrix.panels(kernel.library, positions, width, x_BTD)
    return parts | {"d_m": torch.empty_like(x_BTD[:, 0]), "panels": panels}
