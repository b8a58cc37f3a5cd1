"""Backend `c` of the multiplicative cells: one autograd operation, products by torch, the rest by `multiplicative.c`.

The maths and the letters are those of `pipeline.mixers.multiplicative`; buffers are time first, so that a position is contiguous.
What the gradient of a block of positions needs only once lives in small buffers that stay in cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.mixers import memory, native
from pipeline.mixers.loop import States

POSITIONS = 2048
"""Positions of a block, over all rows."""
SOURCE = "multiplicative.c"
FUNCTIONS = ("product", "product_backward", "lstm_forward", "lstm_backward", "gru_read", "gru_forward", "gru_backward", "gru_read_backward")


@dataclass
class Buffers:
    """The pointers of `struct tape` in `multiplicative.c`, in its order, where also their shapes are."""

    gates: Tensor
    q: Tensor
    m: Tensor
    reading: Tensor | None
    h: Tensor
    c: Tensor | None
    reset: Tensor | None
    zeros: Tensor
    d_y: Tensor | None = None
    d_cells: Tensor | None = None
    d_gates: Tensor | None = None
    d_q: Tensor | None = None
    d_m: Tensor | None = None
    d_h: Tensor | None = None
    d_c: Tensor | None = None

    def at(self, times: slice, lasting: bool = True) -> Buffers:
        """The forward pass's part for a block of positions; not `lasting`: gates, q, m and reading were made for one block only."""
        here = times if lasting else slice(0, times.stop - times.start)
        after = slice(times.start, times.stop + 1)
        places = {"gates": here, "q": here, "m": here, "reading": here, "h": after, "c": after, "reset": times}
        found = {name: (getattr(self, name), place) for name, place in places.items()}
        return replace(self, **{name: None if tensor is None else tensor[place] for name, (tensor, place) in found.items()})

    def tape(self) -> Any:
        """What the C functions take; valid as long as these buffers."""
        addresses = [_address(getattr(self, field.name)) for field in fields(self)]
        _, rows, gates_width = self.gates.shape
        return ctypes.byref(_Tape(*addresses, rows, self.q.shape[2], gates_width))


class _Tape(ctypes.Structure):
    _fields_ = [
        *[(field.name, ctypes.c_void_p) for field in fields(Buffers)],
        *[(name, ctypes.c_size_t) for name in ("rows", "width", "gates_width")],
    ]


def _address(tensor: Tensor | None) -> int | None:
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()


def library(dtype: torch.dtype) -> ctypes.CDLL:
    """The compiled functions for one number type. Raises NotAvailable."""
    found = native.load_for(dtype, SOURCE)
    for name in FUNCTIONS:
        function = getattr(found, name)
        function.argtypes, function.restype = (ctypes.POINTER(_Tape), ctypes.c_size_t), None
    return found


class LstmKernel:
    """The loop over a block's positions, both ways."""

    reads = False

    def __init__(self, dtype: torch.dtype) -> None:
        self.library = library(dtype)

    def forward(self, block: Buffers, factor_DD: Tensor, recurrent_GD: Tensor) -> None:
        """Gates activated, q, m, h and c, from projections in gates."""
        tape, into_q, into_gates = block.tape(), factor_DD.t(), recurrent_GD.t()
        views = (block.h[:-1], block.q, block.m, block.gates[:, :, len(factor_DD) :])
        for t, (h, q, m, gates) in enumerate(zip(*(view.unbind() for view in views), strict=True)):
            torch.mm(h, into_q, out=q)
            self.library.product(tape, t)
            gates.addmm_(m, into_gates)
            self.library.lstm_forward(tape, t)

    def backward(self, block: Buffers, factor_DD: Tensor, recurrent_GD: Tensor) -> None:
        """d_gates and d_q, d_h and d_c before the block."""
        assert block.d_gates is not None and block.d_q is not None
        tape, d_gates, d_q = block.tape(), block.d_gates[:, :, len(factor_DD) :].unbind(), block.d_q.unbind()
        for t in reversed(range(len(d_q))):
            self.library.lstm_backward(tape, t)
            torch.mm(d_gates[t], recurrent_GD, out=block.d_m)
            self.library.product_backward(tape, t)
            torch.mm(d_q[t], factor_DD, out=block.d_h)

    def add_d_recurrent(self, block: Buffers, d_recurrent_GD: Tensor) -> None:
        """Over all positions of the block at once."""
        assert block.d_gates is not None
        width = block.m.shape[2]
        d_recurrent_GD.addmm_(block.d_gates.flatten(0, 1)[:, width:].t(), block.m.flatten(0, 1))


class GruKernel:
    """The loop over a block's positions, both ways."""

    reads = True
    """r m is kept."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.library = library(dtype)

    def forward(self, block: Buffers, factor_DD: Tensor, recurrent_GD: Tensor) -> None:
        """Gates activated, q, m, r m and h, from projections in gates."""
        assert block.reading is not None
        tape, width, into_q = block.tape(), len(factor_DD), factor_DD.t()
        into_zr, into_n = (part.t() for part in recurrent_GD.split([2 * width, width]))
        _, gates, candidates = block.gates.split([width, 2 * width, width], 2)
        views = (block.h[:-1], block.q, block.m, block.reading, gates, candidates)
        for t, (h, q, m, reading, zr, n) in enumerate(zip(*(view.unbind() for view in views), strict=True)):
            torch.mm(h, into_q, out=q)
            self.library.product(tape, t)
            zr.addmm_(m, into_zr)
            self.library.gru_read(tape, t)
            n.addmm_(reading, into_n)
            self.library.gru_forward(tape, t)

    def backward(self, block: Buffers, factor_DD: Tensor, recurrent_GD: Tensor) -> None:
        """d_gates and d_q, and d_h before the block."""
        assert block.d_gates is not None and block.d_q is not None and block.d_m is not None and block.d_h is not None
        tape, width, d_m, d_h = block.tape(), len(factor_DD), block.d_m, block.d_h
        of_zr, of_n = recurrent_GD.split([2 * width, width])
        _, d_zr, d_n = (part.unbind() for part in block.d_gates.split([width, 2 * width, width], 2))
        d_q = block.d_q.unbind()
        for t in reversed(range(len(d_q))):
            self.library.gru_backward(tape, t)
            torch.mm(d_n[t], of_n, out=d_m)
            self.library.gru_read_backward(tape, t)
            d_m.addmm_(d_zr[t], of_zr)
            self.library.product_backward(tape, t)
            d_h.addmm_(d_q[t], factor_DD)

    def add_d_recurrent(self, block: Buffers, d_recurrent_GD: Tensor) -> None:
        """Over all positions of the block at once."""
        assert block.d_gates is not None and block.reading is not None
        width = block.m.shape[2]
        of_zr, of_n = d_recurrent_GD.split([2 * width, width])
        _, d_zr, d_n = block.d_gates.flatten(0, 1).split([width, 2 * width, width], 1)
        of_zr.addmm_(d_zr.t(), block.m.flatten(0, 1))
        of_n.addmm_(d_n.t(), block.reading.flatten(0, 1))


KERNELS = {"lstm": LstmKernel, "gru": GruKernel}


def run(cell: str, tensors: tuple[Tensor, ...], states: States, reset_BT: Tensor | None) -> States:
    """States after every position; `tensors` are x, [W_m; W], its bias, U_m and U, `states` those before the first position."""
    kernel, (h_BD, *others) = KERNELS[cell](tensors[0].dtype), states
    c_BD = others[0] if others else None
    found = _Multiplicative.apply(kernel, torch.is_grad_enabled(), reset_BT, *tensors, h_BD, c_BD)
    return found  # pyright: ignore[reportReturnType]


class _Multiplicative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Any, lasting: bool, reset: Tensor | None, *inputs: Any) -> tuple[Tensor, ...]:
        x, into, bias, factor, recurrent, h, c = inputs
        buffers = _forward_buffers(kernel, x, len(into), reset, h, c, lasting)
        for times in _blocks(x.shape[0], x.shape[1]):
            block = buffers.at(times, lasting)
            torch.addmm(bias, _time_first(x, times), into.t(), out=block.gates.flatten(0, 1))
            kernel.forward(block, factor, recurrent)
        ctx.kernel = kernel
        ctx.set_materialize_grads(False)
        kept = (buffers.gates, buffers.q, buffers.m, buffers.reading, buffers.h, buffers.c, buffers.reset, buffers.zeros)
        ctx.save_for_backward(x, into, factor, recurrent, *(kept if lasting else ()))
        return tuple(states[1:].transpose(0, 1) for states in (buffers.h, buffers.c) if states is not None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor | None, d_cells: Tensor | None = None) -> tuple[Tensor | None, ...]:
        x, into, factor, recurrent, *kept = ctx.saved_tensors
        buffers = Buffers(*kept)
        d_hidden = x.new_zeros(()).expand_as(x) if d_y is None else d_y
        buffers.d_m, buffers.d_h, buffers.d_c = (torch.zeros_like(buffers.h[0]) for _ in range(3))
        d_x = memory.empty((x.shape[1], x.shape[0], x.shape[2]), x)
        d_into, d_bias, d_factor, d_recurrent = (x.new_zeros(shape) for shape in (into.shape, len(into), factor.shape, recurrent.shape))
        parts = list(_blocks(x.shape[0], x.shape[1]))
        scratch = _backward_buffers(buffers.at(parts[0]))
        for times in reversed(parts):
            block, steps = buffers.at(times), times.stop - times.start
            block.d_gates, block.d_q = (tensor[:steps] for tensor in scratch)
            block.d_y = _time_first(d_hidden, times)
            block.d_cells = None if d_cells is None else _time_first(d_cells, times)
            ctx.kernel.backward(block, factor, recurrent)
            flat = block.d_gates.flatten(0, 1)
            d_into.addmm_(flat.t(), _time_first(x, times))
            d_bias += flat.sum(0)
            torch.mm(flat, into, out=d_x[times].flatten(0, 1))
            d_factor.addmm_(block.d_q.flatten(0, 1).t(), block.h[:-1].flatten(0, 1))
            ctx.kernel.add_d_recurrent(block, d_recurrent)
        d_c = None if buffers.c is None else buffers.d_c
        return None, None, None, d_x.transpose(0, 1), d_into, d_bias, d_factor, d_recurrent, buffers.d_h, d_c


def _blocks(batch: int, steps: int) -> Iterator[slice]:
    part = max(1, POSITIONS // batch)
    for start in range(0, steps, part):
        yield slice(start, min(start + part, steps))


def _time_first(tensor_BTD: Tensor, times: slice) -> Tensor:
    """The block's positions as rows, time first."""
    return tensor_BTD[:, times].transpose(0, 1).contiguous().flatten(0, 1)


def _forward_buffers(
    kernel: Any, x_BTD: Tensor, gates_width: int, reset_BT: Tensor | None, h_BD: Tensor, c_BD: Tensor | None, lasting: bool
) -> Buffers:
    """Room for the whole sequence where a gradient is wanted, else, for what only that would need, for one block."""
    batch, steps, width = x_BTD.shape
    room = steps if lasting else next(_blocks(batch, steps)).stop
    gates, q, m = (memory.empty((room, batch, size), x_BTD) for size in (gates_width, width, width))
    reading = memory.empty((room, batch, width), x_BTD) if kernel.reads else None
    h, c = (None if state is None else memory.empty((steps + 1, batch, width), x_BTD) for state in (h_BD, c_BD))
    for states, before in ((h, h_BD), (c, c_BD)):
        if states is not None and before is not None:
            states[0] = before
    assert h is not None
    reset = None if reset_BT is None else reset_BT.t().contiguous()
    return Buffers(gates, q, m, reading, h, c, reset, x_BTD.new_zeros(width))


def _backward_buffers(largest: Buffers) -> tuple[Tensor, Tensor]:
    return torch.empty_like(largest.gates), torch.empty_like(largest.q)
