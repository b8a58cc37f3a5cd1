"""The selective scan of Mamba as one operation with its own gradient: a diagonal recurrence whose parameters depend on the input.

    h_t = exp(Δ_t A) * h_{t-1} + Δ_t x_t B_t        for each channel; h_{t-1} = 0 where t starts a new episode
    y_t = C_t . h_t + D x_t

Notation: B = batch size, T = sequence length, E = channels, N = states per channel; Δ > 0 = step size, A < 0 = state matrix, B and C = input
and output matrices, shared by all channels, D = skip (`step`, `rate`, `write`, `read`, `skip` below). Gu & Dao 2023, "Mamba", arXiv 2312.00752,
section 3.

Backends. `mamba_ssm`: the authors' kernel, on CUDA, for whole sequences from a zero state. `c`: on the CPU, one compiled loop over time.
`torch`: blocks of positions, each with the products of all its positions at once and the recurrence of `gated_scan`.
No backend stores all states, which take N times the memory of the inputs: they store the state before each block and recompute the others in
the backward pass, which is the recurrence backwards: g_t = C_t dL/dy_t + exp(Δ_{t+1} A) g_{t+1}; then
dL/d(Δ_t A) = g_t exp(Δ_t A) h_{t-1}.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops import backends, gated_scan, huge_pages, mamba_ssm, native
from pipeline.ops.padding import Padding

OPERATION = "selective_scan"
SOURCE = "selective_scan.c"
POSITIONS = 8
"""Positions per block of the torch backend on the CPU, 1 MB for 512 channels of 16 states in 4 rows: half and twice as many were slower."""


class Operands(NamedTuple):
    """Inputs of the recurrence."""

    x_BTE: Tensor
    step_BTE: Tensor
    rate_EN: Tensor
    write_BTN: Tensor
    read_BTN: Tensor
    skip_E: Tensor


class SelectiveScanBackend(Protocol):
    """The recurrence and its gradient."""

    chunk: int
    """Positions between stored states."""

    def forward(self, given: Operands, starts_BKNE: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Return y_BTE; starts_BKNE holds the initial state and receives the state after every chunk."""
        ...

    def backward(
        self, given: Operands, starts_BKNE: Tensor, reset_BT: Tensor | None, d_y_BTE: Tensor, carry_BNE: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the gradients of the operands; carry_BNE: in the gradient of the final state, out that of the initial state."""
        ...


class _Scan(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("x", "step", "rate", "write", "read", "skip", "reset", "starts", "scratch")],
        *[(name, ctypes.c_size_t) for name in ("rows", "steps", "width", "states", "chunk")],
    ]


class CSelectiveScan:
    """`selective_scan.c` through ctypes."""

    chunk = 16

    def __init__(self, dtype: torch.dtype) -> None:
        self.library = native.load_for(dtype, SOURCE)
        self.lanes, self.parts = (ctypes.c_size_t.in_dll(self.library, name).value for name in ("lanes", "parts"))

    def forward(self, given: Operands, starts_BKNE: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Loop over time, vectorised over channels."""
        y_BTE = huge_pages.empty(given.x_BTE.shape, given.x_BTE)
        scan, _held = self._scan(given, starts_BKNE, reset_BT)
        self.library.forward(scan, native.address(y_BTE))
        return y_BTE

    def backward(
        self, given: Operands, starts_BKNE: Tensor, reset_BT: Tensor | None, d_y_BTE: Tensor, carry_BNE: Tensor
    ) -> tuple[Tensor, ...]:
        """Loop backwards over time."""
        x, _, rate_EN, write, _, skip = given
        d_x, d_step = huge_pages.empty(x.shape, x), huge_pages.empty(x.shape, x)
        d_write, d_read = x.new_zeros(2, *write.shape, self.parts)
        d_rate_NE, d_skip = rate_EN.new_zeros(rate_EN.t().shape), torch.zeros_like(skip)
        scan, _held = self._scan(given, starts_BKNE, reset_BT)
        self.library.backward(scan, *map(native.address, (d_y_BTE, d_x, d_step, d_write, d_read, d_rate_NE, d_skip, carry_BNE)))
        return d_x, d_step, d_rate_NE.t(), d_write.sum(-1), d_read.sum(-1), d_skip

    def _scan(self, given: Operands, starts_BKNE: Tensor, reset_BT: Tensor | None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Return the argument of both functions, and the tensors that must outlive the call."""
        x, step, rate_EN, write, read, skip = given
        states, rate_NE = rate_EN.shape[1], rate_EN.t().contiguous()
        scratch = x.new_empty(2 * self.chunk + 4, states, self.lanes)
        tensors = (x, step, rate_NE, write, read, skip, reset_BT, starts_BKNE, scratch)
        return ctypes.byref(_Scan(*map(native.address, tensors), *x.shape, states, self.chunk)), (rate_NE, scratch)


class TorchSelectiveScan:
    """Plain torch, for any device and dtype."""

    def __init__(self, device: torch.device) -> None:
        self.chunk = POSITIONS if device.type == "cpu" else 8 * POSITIONS
        self.scan = gated_scan.TorchGatedScan()

    def forward(self, given: Operands, starts_BKNE: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Process block by block; within a block, the N states of E channels are N E channels of a `gated_scan`."""
        outputs, rate_NE = [], given.rate_EN.t().contiguous()
        for index, (part, reset) in enumerate(self._parts(given, reset_BT)):
            decay, written = _terms(part, rate_NE, reset)
            h = self.scan.forward(decay, written, starts_BKNE[:, index].flatten(1))
            starts_BKNE[:, index + 1] = h[:, -1].unflatten(1, rate_NE.shape)
            outputs.append(torch.addcmul(_read(part.read_BTN, h), part.skip_E, part.x_BTE))
        return torch.cat(outputs, 1)

    def backward(
        self, given: Operands, starts_BKNE: Tensor, reset_BT: Tensor | None, d_y_BTE: Tensor, carry_BNE: Tensor
    ) -> tuple[Tensor, ...]:
        """Process block by block, from the last to the first."""
        found: list[tuple[Tensor, ...]] = []
        rate_NE = given.rate_EN.t().contiguous()
        d_rate_NE, parts = torch.zeros_like(rate_NE), list(enumerate(self._parts(given, reset_BT)))
        for (index, (part, reset)), d_y in zip(reversed(parts), reversed(d_y_BTE.split(self.chunk, 1)), strict=True):
            start, (decay, written) = starts_BKNE[:, index].flatten(1), _terms(part, rate_NE, reset)
            h = self.scan.forward(decay, written, start)
            d_h = d_y.unsqueeze(2) * part.read_BTN.unsqueeze(3)
            d_h[:, -1] += carry_BNE
            d_decay, d_written, d_start = self.scan.backward(d_h.flatten(2), h, decay, start)
            carry_BNE.copy_(d_start.view_as(carry_BNE))
            whole = (*d_y.shape[:2], *carry_BNE.shape[1:])
            exponent, d_written, h = (tensor.view(whole) for tensor in (d_decay.mul_(decay), d_written, h))
            d_input, u = _read(part.write_BTN, d_written), part.step_BTE * part.x_BTE
            d_rate_NE += (exponent * part.step_BTE.unsqueeze(2)).sum((0, 1))
            d_step = exponent.mul_(rate_NE).sum(2) + d_input * part.x_BTE
            d_write, d_read = ((one * other.unsqueeze(2)).sum(3) for one, other in ((d_written, u), (h, d_y)))
            found.append((d_input * part.step_BTE + d_y * part.skip_E, d_step, d_write, d_read))
        d_x, d_step, d_write, d_read = (torch.cat(gradients, 1) for gradients in zip(*reversed(found), strict=True))
        return d_x, d_step, d_rate_NE.t(), d_write, d_read, (d_y_BTE * given.x_BTE).sum((0, 1))

    def _parts(self, given: Operands, reset_BT: Tensor | None) -> list[tuple[Operands, Tensor | None]]:
        """Split the operands into blocks of positions."""
        x, step, write, read = (tensor.split(self.chunk, 1) for tensor in (given.x_BTE, given.step_BTE, given.write_BTN, given.read_BTN))
        resets = [None] * len(x) if reset_BT is None else reset_BT.split(self.chunk, 1)
        blocks = zip(x, step, write, read, resets, strict=True)
        return [(given._replace(x_BTE=x, step_BTE=step, write_BTN=write, read_BTN=read), reset) for x, step, write, read, reset in blocks]


def _terms(of: Operands, rate_NE: Tensor, reset_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the decay of each state and the term added to it, shape (B, T, N E)."""
    decay = torch.exp(of.step_BTE.unsqueeze(2) * rate_NE)
    if reset_BT is not None:
        decay.masked_fill_(reset_BT[:, :, None, None], 0.0)
    return decay.flatten(2), ((of.step_BTE * of.x_BTE).unsqueeze(2) * of.write_BTN.unsqueeze(3)).flatten(2)


def _read(weights_BTN: Tensor, h: Tensor) -> Tensor:
    """Return the weighted sum of each channel's states, shape (B, T, E)."""
    return (weights_BTN.unsqueeze(2) @ h.view(*weights_BTN.shape, -1)).squeeze(2)


def selective_scan(
    given: Operands, state_BEN: Tensor | None, reset_BT: Tensor | None = None, length_B: Tensor | None = None, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """Return y_BTE and the state at each row's true end; state_BEN is the state before the first position, None: zeros.

    Differentiable once in every float input. Raises UserError if an explicit backend is not available.
    """
    (batch, steps, width), states = given.x_BTE.shape, given.write_BTN.shape[2]
    assert given.step_BTE.shape == given.x_BTE.shape and given.rate_EN.shape == (width, states) and given.skip_E.shape == (width,)
    assert given.read_BTN.shape == given.write_BTN.shape == (batch, steps, states)
    assert state_BEN is None or state_BEN.shape == (batch, width, states)
    padding = Padding(length_B, steps)
    given, reset_BT = given._replace(x_BTE=padding.fill(given.x_BTE), step_BTE=padding.fill(given.step_BTE)), padding.fill(reset_BT, False)
    candidates: dict[str, backends.UnavailableReason] = {
        "mamba_ssm": partial(mamba_ssm.unavailable_reason, given.x_BTE, states, state_BEN, reset_BT),
        "c": partial(native.unavailable_reason, SOURCE, given.x_BTE),
        "torch": lambda: None,
    }
    name = backends.choose(OPERATION, candidates, backend)
    if name == "mamba_ssm":
        return mamba_ssm.selective_scan(*given)
    kernel = CSelectiveScan(given.x_BTE.dtype) if name == "c" else TorchSelectiveScan(given.x_BTE.device)
    start_BEN = given.rate_EN.new_zeros(batch, width, states) if state_BEN is None else state_BEN
    reset_BT = None if reset_BT is None else reset_BT.contiguous()
    given = Operands(*(tensor.contiguous() for tensor in given))
    y_BTE, end_BNE = _SelectiveScan.apply(*given, start_BEN.mT, reset_BT, kernel)  # pyright: ignore[reportGeneralTypeIssues]
    return y_BTE, end_BNE.mT.contiguous()


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *operands, start, reset, kernel = arguments
        chunks = -(-operands[0].shape[1] // kernel.chunk)
        starts = huge_pages.empty((len(start), chunks + 1, *start.shape[1:]), start)
        starts[:, 0] = start
        y = kernel.forward(Operands(*operands), starts, reset)
        ctx.kernel, ctx.reset = kernel, reset
        ctx.save_for_backward(*operands, starts)
        return y, starts[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_end: Tensor) -> tuple[Tensor | None, ...]:
        *operands, starts = ctx.saved_tensors
        carry = d_end.clone(memory_format=torch.contiguous_format)
        gradients = ctx.kernel.backward(Operands(*operands), starts, ctx.reset, d_y.contiguous(), carry)
        return *gradients, carry, None, None


def selective_step(given: Operands, state_BEN: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one position of the recurrence, operands without the time dimension: y_BE and the new state."""
    x_BE, step_BE, rate_EN, write_BN, read_BN, skip_E = given
    kept = torch.exp(step_BE.unsqueeze(2) * rate_EN) * state_BEN
    state_BEN = torch.addcmul(kept, (step_BE * x_BE).unsqueeze(2), write_BN.unsqueeze(1))
    return torch.addcmul((state_BEN @ read_BN.unsqueeze(2)).squeeze(2), skip_E, x_BE), state_BEN
