"""A diagonal complex linear recurrence between two dense maps, as one operation with its own gradient.

    h_t = a h_{t-1} + W x_t          a in C^N, h in C^N; h_{t-1} = 0 where t starts a new episode
    y_t = V h_t + s x_t              s elementwise

Notation: B = batch size, T = sequence length, D = width, N = complex states, S = 2 N = their real parts, then their imaginary parts; for a
block, R = its rows, T = its positions.

Backends. `c`: on the CPU, one compiled loop over time, in blocks small enough to stay in cache between the matrix products and the loop.
On the CPU a sequential loop is faster than a scan of logarithmic depth, which reads and writes all states log T times.
`torch`: the same loop in torch on the CPU; elsewhere a scan by doubling, h_t += a^k h_{t-k} for k = 1, 2, 4, ..., in log T rounds.
The gradient is the same recurrence backwards: g_t = dL/dh_t + conj(a) g_{t+1}; then dL/da sums g_t conj(h_{t-1}).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops import backends, huge_pages, native

OPERATION = "diagonal"
SOURCE = "diagonal_scan.c"
POSITIONS = 2048
"""Positions per block of the compiled backend, 2 MB for 128 complex states: half and twice as many were slower."""

BlockSlices = tuple[slice, slice]
"""Row and time slices of a block, for `tensor[block]`."""


class DiagonalScanBackend(Protocol):
    """The recurrence on one block, in place."""

    positions: int | None
    """Positions per block; None: the whole batch at once."""

    def forward(self, h_RTS: Tensor, decay_2N: Tensor, start_RS: Tensor, reset_RT: Tensor | None) -> None:
        """Replace W x in h_RTS by h."""
        ...

    def backward(
        self,
        g_RTS: Tensor,
        h_RTS: Tensor,
        decay_2N: Tensor,
        start_RS: Tensor,
        reset_RT: Tensor | None,
        carry_RS: Tensor,
        d_decay_2N: Tensor,
    ) -> None:
        """Replace the gradient that each h_t receives from y_t in g_RTS by the gradient of W x.

        carry_RS: in the gradient of the block's last state from later blocks, out the gradient of start_RS; d_decay_2N is accumulated.
        """
        ...


class CDiagonalScan:
    """`diagonal_scan.c` through ctypes."""

    positions = POSITIONS

    def __init__(self, dtype: torch.dtype) -> None:
        self.library = native.load_for(dtype, SOURCE)

    def forward(self, h_RTS: Tensor, decay_2N: Tensor, start_RS: Tensor, reset_RT: Tensor | None) -> None:
        """Loop over time, vectorised over states."""
        rows, steps, width = h_RTS.shape
        self.library.forward(*map(native.address, (h_RTS, decay_2N, start_RS, reset_RT)), *map(native.size, (rows, steps, width // 2)))

    def backward(
        self,
        g_RTS: Tensor,
        h_RTS: Tensor,
        decay_2N: Tensor,
        start_RS: Tensor,
        reset_RT: Tensor | None,
        carry_RS: Tensor,
        d_decay_2N: Tensor,
    ) -> None:
        """Loop backwards over time."""
        rows, steps, width = h_RTS.shape
        tensors = (g_RTS, h_RTS, decay_2N, start_RS, reset_RT, carry_RS, d_decay_2N)
        self.library.backward(*map(native.address, tensors), *map(native.size, (rows, steps, width // 2)))


class TorchDiagonalScan:
    """Plain torch, for any device and dtype."""

    positions = None

    def forward(self, h_RTS: Tensor, decay_2N: Tensor, start_RS: Tensor, reset_RT: Tensor | None) -> None:
        """Loop on the CPU, scan by doubling elsewhere."""
        run = loop_ if h_RTS.device.type == "cpu" else doubling_
        run(h_RTS, decay_2N, start_RS, reset_RT)

    def backward(
        self,
        g_RTS: Tensor,
        h_RTS: Tensor,
        decay_2N: Tensor,
        start_RS: Tensor,
        reset_RT: Tensor | None,
        carry_RS: Tensor,
        d_decay_2N: Tensor,
    ) -> None:
        """Run the same recurrence on the reversed sequence with the conjugate decay; a reset at t separates g_t from g_{t-1}."""
        g_RTS[:, -1] += carry_RS
        later_RT = None if reset_RT is None else torch.cat([reset_RT[:, :1] & False, reset_RT.flip(1)[:, :-1]], 1)
        conjugate_2N = torch.stack([decay_2N[0], -decay_2N[1]])
        turned_RTS = g_RTS.flip(1)
        run = loop_ if g_RTS.device.type == "cpu" else doubling_
        run(turned_RTS, conjugate_2N, torch.zeros_like(carry_RS), later_RT)
        g_RTS.copy_(turned_RTS.flip(1))
        before_RTS = torch.cat([start_RS.unsqueeze(1), h_RTS[:, :-1]], 1)
        if reset_RT is not None:
            before_RTS.masked_fill_(reset_RT.unsqueeze(-1), 0)
        d_decay_2N += _times_conjugate(g_RTS, before_RTS)
        first_RS = torch.zeros_like(carry_RS) if reset_RT is None else g_RTS[:, 0].masked_fill(~reset_RT[:, :1], 0)
        carry_RS.copy_(rotated(g_RTS[:, 0] - first_RS, conjugate_2N))


def loop_(u_RTS: Tensor, decay_2N: Tensor, start_RS: Tensor, reset_RT: Tensor | None) -> None:
    """Replace u by h, one position at a time."""
    re_TRN, im_TRN = (part.unbind(1) for part in u_RTS.chunk(2, -1))
    a_re_N, a_im_N = decay_2N
    before_re, before_im = start_RS.chunk(2, -1)
    kept_TR1 = None if reset_RT is None else (~reset_RT).to(u_RTS.dtype).unsqueeze(-1).unbind(1)
    for t, (re, im) in enumerate(zip(re_TRN, im_TRN, strict=True)):
        if kept_TR1 is not None:
            before_re, before_im = before_re * kept_TR1[t], before_im * kept_TR1[t]
        re.addcmul_(a_re_N, before_re).addcmul_(a_im_N, before_im, value=-1)
        im.addcmul_(a_re_N, before_im).addcmul_(a_im_N, before_re)
        before_re, before_im = re, im


def doubling_(u_RTS: Tensor, decay_2N: Tensor, start_RS: Tensor, reset_RT: Tensor | None) -> None:
    """Replace u by h in log T rounds: after round k each position holds the sum over the 2^k positions up to itself.

    A reset needs no products of decays: a term k positions back is added only if it belongs to the same episode.
    """
    first_RS = rotated(start_RS, decay_2N)
    u_RTS[:, 0] += first_RS if reset_RT is None else first_RS.masked_fill(reset_RT[:, :1], 0)
    h_RTN = torch.complex(*u_RTS.chunk(2, -1))
    episode_RT = None if reset_RT is None else reset_RT.cumsum(1)
    a_N, reach = torch.complex(decay_2N[0], decay_2N[1]), 1
    while reach < u_RTS.shape[1]:
        gathered = a_N * h_RTN[:, :-reach]
        if episode_RT is not None:
            gathered = gathered * (episode_RT[:, reach:] == episode_RT[:, :-reach]).unsqueeze(-1)
        h_RTN = torch.cat([h_RTN[:, :reach], h_RTN[:, reach:] + gathered], 1)
        a_N, reach = a_N * a_N, 2 * reach
    u_RTS.copy_(torch.cat([h_RTN.real, h_RTN.imag], -1))


def rotated(h_BS: Tensor, decay_2N: Tensor) -> Tensor:
    """Return a h for states of shape (batch, S)."""
    re, im = h_BS.chunk(2, -1)
    return torch.cat([decay_2N[0] * re - decay_2N[1] * im, decay_2N[0] * im + decay_2N[1] * re], -1)


def _times_conjugate(g_RTS: Tensor, h_RTS: Tensor) -> Tensor:
    (g_re, g_im), (h_re, h_im) = g_RTS.chunk(2, -1), h_RTS.chunk(2, -1)
    return torch.stack([(g_re * h_re + g_im * h_im).sum((0, 1)), (g_im * h_re - g_re * h_im).sum((0, 1))])


def diagonal(
    x_BTD: Tensor,
    into_SD: Tensor,
    decay_2N: Tensor,
    out_DS: Tensor,
    skip_D: Tensor,
    state_BS: Tensor,
    reset_BT: Tensor | None = None,
    length_B: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return y_BTD and the state at each row's true end; W, a, V, s above are into, decay (real and imaginary part), out and skip.

    Differentiable once in every float input. Raises UserError if an explicit backend is not available.
    """
    candidates: dict[str, backends.UnavailableReason] = {"c": partial(native.unavailable_reason, SOURCE, x_BTD), "torch": lambda: None}
    name = backends.choose(OPERATION, candidates, backend)
    kernel = CDiagonalScan(x_BTD.dtype) if name == "c" else TorchDiagonalScan()
    tensors = (x_BTD, into_SD, decay_2N.contiguous(), out_DS, skip_D, state_BS)
    return _Diagonal.apply(*tensors, reset_BT, length_B, kernel, torch.is_grad_enabled())  # pyright: ignore[reportReturnType]


class _Diagonal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        x, into, decay, out, skip, state, reset, length, kernel, differentiable = arguments
        y, end, last = huge_pages.empty(x.shape, x), state.clone(), state
        whole = huge_pages.empty((*x.shape[:2], into.shape[0]), x) if differentiable else None
        for block in blocks(x.shape[0], x.shape[1], kernel.positions):
            rows, times = block
            flat = x[block].reshape(-1, x.shape[2])
            h = x.new_empty((*x[block].shape[:2], into.shape[0])) if whole is None else whole[block]
            torch.mm(flat, into.t(), out=h.view(len(flat), -1))
            kernel.forward(h, decay, (last if times.start else state[rows]).contiguous(), _block(reset, block))
            torch.mm(h.flatten(0, 1), out.t(), out=y[block].view(flat.shape)).addcmul_(flat, skip)
            who, when = _ends(length, block, x.shape[1])
            end[rows][who] = h[who, when]
            last = h[:, -1]
        ctx.kernel, ctx.reset, ctx.length = kernel, reset, length
        ctx.save_for_backward(x, into, decay, out, skip, state, whole)
        return y, end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_end: Tensor) -> tuple[Tensor | None, ...]:
        x, into, decay, out, skip, state, whole = ctx.saved_tensors
        d_x, d_state = huge_pages.empty(x.shape, x), torch.zeros_like(d_end)
        d_into_DS, d_decay, d_out = (tensor.new_zeros(tensor.shape) for tensor in (into.t(), decay, out))
        parts = list(blocks(x.shape[0], x.shape[1], ctx.kernel.positions))
        products = x.new_zeros(x[parts[0]].shape[:2].numel(), x.shape[2])
        for block in reversed(parts):
            rows, times = block
            h = whole[block]
            start = (whole[rows, times.start - 1] if times.start else state[rows]).contiguous()
            x_block, d_y_block = (tensor[block].reshape(-1, x.shape[2]) for tensor in (x, d_y))
            g = torch.mm(d_y_block, out).view(h.shape)
            who, when = _ends(ctx.length, block, x.shape[1])
            g[who, when] += d_end[rows][who]
            ctx.kernel.backward(g, h, decay, start, _block(ctx.reset, block), d_state[rows], d_decay)
            flat = g.flatten(0, 1)
            d_out.addmm_(d_y_block.t(), h.flatten(0, 1))
            d_into_DS.addmm_(x_block.t(), flat)
            torch.mm(flat, into, out=d_x[block].view(x_block.shape)).addcmul_(d_y_block, skip)
            products[: len(flat)].addcmul_(d_y_block, x_block)
        if ctx.length is not None:
            d_state += d_end.masked_fill((ctx.length > 0).unsqueeze(1), 0)
        return d_x, d_into_DS.t(), d_decay, d_out, products.sum(0), d_state, None, None, None, None


def blocks(batch: int, steps: int, positions: int | None) -> Iterator[BlockSlices]:
    """Yield blocks of whole rows, as many as fit, or parts of one row if it is longer than `positions`; in order of rows, then time."""
    positions = positions or batch * steps
    rows, part = max(1, positions // steps), min(steps, positions)
    for row in range(0, batch, rows):
        for time in range(0, steps, part):
            yield slice(row, min(row + rows, batch)), slice(time, min(time + part, steps))


def _block(reset_BT: Tensor | None, block: BlockSlices) -> Tensor | None:
    return None if reset_BT is None else reset_BT[block].contiguous()


def _ends(length_B: Tensor | None, block: BlockSlices, steps: int) -> tuple[Any, Any]:
    """Return which rows end inside a block, and at which of its positions."""
    rows, times = block
    if length_B is None:
        return (slice(None), -1) if times.stop == steps else (slice(0), -1)
    last_R = length_B[rows] - 1
    who = ((last_R >= times.start) & (last_R < times.stop)).nonzero().squeeze(1)
    return who, last_R[who] - times.start
