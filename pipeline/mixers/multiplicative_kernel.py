"""Backend `c` of the multiplicative cells: one autograd operation, whose blocks of positions `multiplicative.c` computes.

The maths and the letters are those of `pipeline.mixers.multiplicative`; buffers are time first, so that a position is contiguous.
What a block needs only once lives in small buffers that stay in cache; u, the gates, q and the states are kept for the gradient.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.mixers import memory, native
from pipeline.mixers.loop import States

POSITIONS = 256
"""Positions of a block, over all rows."""
SOURCE = "multiplicative.c"

KEPT = ("gates", "q", "h", "c", "reset")
WEIGHTS = ("into", "factor", "gating", "reading")
FIELDS = ("x", *KEPT, "bias", "zeros", *WEIGHTS, "m", "read", "d_y", "d_cells", "d_gates", "d_q", "d_m", "d_h", "d_c", "d_x")
TOTALS = ("d_into", "d_bias", "d_factor", "d_recurrent")
SIZES = ("steps", "rows", "width", "gates_width")

Buffers = dict[str, Tensor | None]
"""What `struct block` of `multiplicative.c` points to, where also the shapes are."""


class _Block(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_void_p) for name in (*FIELDS, *TOTALS, "panels")],
        *[(name, ctypes.c_size_t) for name in SIZES],
    ]


class Kernel:
    """A block of positions of one cell, both ways."""

    def __init__(self, cell: str, dtype: torch.dtype) -> None:
        self.library = native.load_for(dtype, SOURCE)
        self.library.packed_size.restype = ctypes.c_size_t
        self.functions = {"forward": self.library[f"{cell}_forward"], "backward": self.library[f"{cell}_backward"]}
        self.reads = cell == "gru"

    def run(self, direction: str, buffers: Buffers) -> None:
        """Write what belongs to this block into the buffers."""
        assert all(tensor is None or tensor.is_contiguous() for tensor in buffers.values())
        gates, q = buffers["gates"], buffers["q"]
        assert gates is not None and q is not None
        pointers = {name: None if tensor is None else tensor.data_ptr() for name, tensor in buffers.items()}
        self.functions[direction](ctypes.byref(_Block(**pointers, **dict(zip(SIZES, (*q.shape, gates.shape[2]), strict=True)))))

    def panels(self, depth: int, columns: int, like: Tensor) -> Tensor:
        """Room for a packed matrix."""
        return like.new_empty(self.library.packed_size(*map(native.size, (depth, columns))))

    def packed(self, matrix: Tensor) -> Tensor:
        """A matrix (depth, columns), as products take their second one."""
        found = self.panels(matrix.shape[0], matrix.shape[1], matrix)
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (found, matrix))
        self.library.pack(*pointers, *map(native.size, (*matrix.stride(), *matrix.shape)))
        return found

    def weights(self, into_ED: Tensor, factor_DD: Tensor, recurrent_GD: Tensor, turned: bool) -> Buffers:
        """All packed; `turned`, as the forward pass multiplies by them."""
        width = len(factor_DD)
        parts = recurrent_GD.split([2 * width, width]) if self.reads else (recurrent_GD, None)
        matrices = zip(WEIGHTS, (into_ED, factor_DD, *parts), strict=True)
        return {name: None if matrix is None else self.packed(matrix.t() if turned else matrix) for name, matrix in matrices}


def run(cell: str, tensors: tuple[Tensor, ...], states: States, reset_BT: Tensor | None) -> States:
    """States after every position; `tensors` are x, [W_m; W], its bias, U_m and U, `states` those before the first position."""
    kernel, (h_BD, *others) = Kernel(cell, tensors[0].dtype), states
    c_BD = others[0] if others else None
    found = _Multiplicative.apply(kernel, torch.is_grad_enabled(), reset_BT, *tensors, h_BD, c_BD)
    return found  # pyright: ignore[reportReturnType]


class _Multiplicative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, lasting: bool, reset: Tensor | None, *inputs: Any) -> tuple[Tensor, ...]:
        x, into, bias, factor, recurrent, h, c = inputs
        kept = _room(x, len(into), reset, h, c, lasting)
        parts = list(_blocks(x.shape[0], x.shape[1]))
        shared = kernel.weights(into, factor, recurrent, turned=True) | _scratch(kernel, x, parts[0]) | {"bias": bias.contiguous()}
        for times in parts:
            kernel.run("forward", shared | _at(kept, times, lasting) | {"x": _time_first(x, times)})
        ctx.kernel = kernel
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, into, factor, recurrent, *(kept[name] if lasting else None for name in KEPT))
        return tuple(states[1:].transpose(0, 1) for states in (kept["h"], kept["c"]) if states is not None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor | None, d_cells: Tensor | None = None) -> tuple[Tensor | None, ...]:
        kernel, (x, into, factor, recurrent, *saved) = ctx.kernel, ctx.saved_tensors
        kept: dict[str, Any] = dict(zip(KEPT, saved, strict=True))
        parts = list(_blocks(x.shape[0], x.shape[1]))
        shared = kernel.weights(into, factor, recurrent, turned=False) | _scratch(kernel, x, parts[0])
        shared |= _gradients(kernel, x, parts[0], (into.shape, into.shape[:1], factor.shape, recurrent.shape))
        d_hidden, d_x = x.new_zeros(()).expand_as(x) if d_y is None else d_y, memory.empty(x.shape, x)
        for times in reversed(parts):
            outside = {"d_y": _time_first(d_hidden, times), "d_cells": None if d_cells is None else _time_first(d_cells, times)}
            kernel.run("backward", shared | _at(kept, times) | outside | {"x": _time_first(x, times)})
            d_x[:, times] = shared["d_x"][: times.stop - times.start].transpose(0, 1)
        d_c = None if kept["c"] is None else shared["d_c"]
        return None, None, None, d_x, *(shared[name] for name in TOTALS), shared["d_h"], d_c


def _blocks(batch: int, steps: int) -> Iterator[slice]:
    part = max(1, POSITIONS // batch)
    for start in range(0, steps, part):
        yield slice(start, min(start + part, steps))


def _time_first(tensor_BTD: Tensor, times: slice) -> Tensor:
    return tensor_BTD[:, times].transpose(0, 1).contiguous()


def _room(x_BTD: Tensor, gates_width: int, reset_BT: Tensor | None, h_BD: Tensor, c_BD: Tensor | None, lasting: bool) -> Buffers:
    """What is kept of the whole sequence; gates and q, which only a gradient needs again, otherwise of one block."""
    batch, steps, width = x_BTD.shape
    room = steps if lasting else next(_blocks(batch, steps)).stop
    kept: dict[str, Any] = {name: memory.empty((room, batch, size), x_BTD) for name, size in (("gates", gates_width), ("q", width))}
    for name, before in (("h", h_BD), ("c", c_BD)):
        kept[name] = None if before is None else memory.empty((steps + 1, batch, width), x_BTD)
        if before is not None:
            kept[name][0] = before
    return kept | {"reset": None if reset_BT is None else reset_BT.t().contiguous()}


def _at(kept: Buffers, times: slice, lasting: bool = True) -> Buffers:
    """The part of a block; not `lasting`: gates and q were made for one block only."""
    here = times if lasting else slice(0, times.stop - times.start)
    after = slice(times.start, times.stop + 1)
    places = {"gates": here, "q": here, "h": after, "c": after, "reset": times}
    return {name: None if tensor is None else tensor[places[name]] for name, tensor in kept.items()}


def _scratch(kernel: Kernel, x_BTD: Tensor, block: slice) -> dict[str, Any]:
    """What either direction needs of the first block, which is the longest."""
    batch, _, width = x_BTD.shape
    m, read = (x_BTD.new_empty(block.stop, batch, width) if needed else None for needed in (True, kernel.reads))
    return {"m": m, "read": read, "zeros": x_BTD.new_zeros(width)}


def _gradients(kernel: Kernel, x_BTD: Tensor, block: slice, totals: tuple[torch.Size, ...]) -> dict[str, Any]:
    """Zeros for what adds up over all blocks, and room for what one of them needs."""
    batch, _, width = x_BTD.shape
    zeros = {name: x_BTD.new_zeros(shape) for name, shape in zip(TOTALS, totals, strict=True)}
    zeros |= {name: x_BTD.new_zeros(batch, width) for name in ("d_m", "d_h", "d_c")}
    sizes = {"d_gates": len(zeros["d_into"]), "d_q": width, "d_x": width}
    room = {name: x_BTD.new_empty(block.stop, batch, size) for name, size in sizes.items()}
    return zeros | room | {"panels": kernel.panels(block.stop * batch, width, x_BTD)}
