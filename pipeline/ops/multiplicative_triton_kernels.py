"""Triton kernels: the loops over time of the four multiplicative cells, and of their gradients.

A program processes a few rows of the batch through all positions. Each position takes a few phases; in each, every tile of columns is a sum
of matrix products of the previous phase's output, followed by pointwise operations. Phases exchange data through global memory, separated by
a barrier, which suffices because only threads of one program communicate. Any width is supported, and so is Triton's interpreter.

Two types of cells, selected by INPUT. If false, the cells of Krause et al. in `pipeline.ops.multiplicative`:

    q = U_m h      m = u * q          gates = p + U m                 r of the GRU resets m

if true, `input_multiplicative_lstm` and `_gru`:

    m = u + U_m h  v = m * x          gates = b + W v + U h           r of the GRU resets h

Notation: B = batch size, T = sequence length, D = width, G = rows of the gates' matrices (4 D in the order i, f, g, o; 3 D in the order
z, r, n), E = D + G. Buffers are contiguous and time-major; d_ buffers hold gradients. Buffers of T + 1 positions have an extra last position,
or for states an extra first one:

    gates (T, B, E)          u, then the gates: p or b before the loop, activated after it
    first, second (T, B, D)  q and m; if INPUT, v and m
    reading (T, B, D)        r m or r h of the GRU
    h, c (T + 1, B, D)       states
    d_gates (T + 1, B, E)    of u, then of the gates before activation
    d_first (T + 1, B, D)    of q; if INPUT, of x through m * x
    d_c, d_h (B, D)          of c from later positions; of h of the GRU, through (1 - z) h only
    recurrent (E, D)         U_m stacked on U     into (G, D)   W          reset (T + 1, B), the last false
"""

# The type checker cannot resolve Triton's names where Triton is not installed.
# pyright: reportMissingImports=false, reportInvalidTypeForm=false, reportArgumentType=false

from __future__ import annotations

import triton
import triton.language as tl

Tile = tl.tensor
"""Values of a tile of rows and columns, or of rows or columns only."""
Pointer = tl.tensor
"""Pointer to the start of a buffer, or pointers to the elements of a tile."""


@triton.jit
def sigmoid(x: Tile) -> Tile:
    """Compute 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x: Tile) -> Tile:
    """Compute tanh, by a polynomial near zero, where 1 - 2 / (exp(2 x) + 1) cancels; after Cephes, as in `multiplicative.c`."""
    square, size = x * x, tl.abs(x)
    far = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    near = ((-5.70498872745e-3 * square + 2.06390887954e-2) * square - 5.37397155531e-2) * square + 1.33314422036e-1
    near = x + x * square * (near * square - 3.33332819422e-1)
    return tl.where(size < 0.625, near, tl.where(x < 0, -far, far))


@triton.jit
def tile(buffer: Pointer, place: Tile, stride: int, columns: Tile) -> Pointer:
    """Return pointers to the given columns of the rows at `place`; `stride` is the row length."""
    return buffer + (place * stride)[:, None] + columns[None, :]


@triton.jit
def product(
    total: Tile, x: Pointer, LENGTH: tl.constexpr, matrix: Pointer, step_in: int, step_out: int, live: Tile, columns: Tile,
    D: tl.constexpr, BLOCK: tl.constexpr,
) -> Tile:  # fmt: skip
    """Return total + x times a matrix, for some of its D columns; x points to rows of LENGTH numbers, step_in and step_out are matrix strides."""
    for start in range(0, LENGTH, BLOCK):
        inner = start + tl.arange(0, BLOCK)
        x_tile = tl.load(x[:, None] + inner[None, :], mask=live[:, None] & (inner < LENGTH)[None, :], other=0.0)
        there = (inner < LENGTH)[:, None] & (columns < D)[None, :]
        of_matrix = tl.load(matrix + inner[:, None] * step_in + columns[None, :] * step_out, mask=there, other=0.0)
        total = tl.dot(x_tile, of_matrix, total, input_precision="ieee")
    return total


@triton.jit
def multiply(
    gates: Pointer, x: Pointer, first: Pointer, second: Pointer, h: Pointer, recurrent: Pointer, place: Tile, begins: Tile, live: Tile,
    D: tl.constexpr, E: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """First phase of every cell: q and m, or v and m."""
    for start in range(0, D, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        here = live[:, None] & (columns < D)[None, :]
        u = tl.load(tile(gates, place, E, columns), mask=here, other=0.0)
        zero = tl.full((ROWS, BLOCK), 0.0, tl.float32)
        q = product(zero, h + place * D, D, recurrent, 1, D, live, columns, D, BLOCK)
        q = tl.where(begins[:, None], 0.0, q)
        if INPUT:
            m = u + q
            tl.store(tile(first, place, D, columns), m * tl.load(tile(x, place, D, columns), mask=here, other=0.0), mask=here)
        else:
            m = u * q
            tl.store(tile(first, place, D, columns), q, mask=here)
        tl.store(tile(second, place, D, columns), m, mask=here)


@triton.jit
def multiply_backward(
    total: Tile, gates: Pointer, x: Pointer, first: Pointer, second: Pointer, d_gates: Pointer, d_first: Pointer, d_seen: Pointer,
    LENGTH: tl.constexpr, matrix: Pointer, place: Tile, begins: Tile, live: Tile, columns: Tile, D: tl.constexpr, E: tl.constexpr,
    INPUT: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Compute d_u and d_first from the gradient of the gates' input (m or v): total + LENGTH numbers of each row of d_seen times a matrix."""
    here = live[:, None] & (columns < D)[None, :]
    total = product(total, d_seen, LENGTH, matrix, D, 1, live, columns, D, BLOCK)
    if INPUT:
        d_u = total * tl.load(tile(x, place, D, columns), mask=here, other=0.0)
        mask_reads = total * tl.load(tile(second, place, D, columns), mask=here, other=0.0)
    else:
        d_u = total * tl.load(tile(first, place, D, columns), mask=here, other=0.0)
        mask_reads = tl.where(begins[:, None], 0.0, total * tl.load(tile(gates, place, E, columns), mask=here, other=0.0))
    tl.store(tile(d_gates, place, E, columns), d_u, mask=here)
    tl.store(tile(d_first, place, D, columns), mask_reads, mask=here)


@triton.jit
def gate(
    gates: Pointer, first: Pointer, second: Pointer, h: Pointer, recurrent: Pointer, into: Pointer, place: Tile, begins: Tile,
    live: Tile, columns: Tile, NUMBER: tl.constexpr, D: tl.constexpr, E: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> Tile:  # fmt: skip
    """Compute a gate before activation: p + U m, or b + W v + U h."""
    total = tl.load(tile(gates, place, E, (1 + NUMBER) * D + columns), mask=live[:, None] & (columns < D)[None, :], other=0.0)
    matrix = recurrent + (1 + NUMBER) * D * D
    if INPUT:
        of_h = product(tl.full((ROWS, BLOCK), 0.0, tl.float32), h + place * D, D, matrix, 1, D, live, columns, D, BLOCK)
        total += tl.where(begins[:, None], 0.0, of_h)
        total = product(total, first + place * D, D, into + NUMBER * D * D, 1, D, live, columns, D, BLOCK)
    else:
        total = product(total, second + place * D, D, matrix, 1, D, live, columns, D, BLOCK)
    return total


@triton.jit
def later(
    d_gates: Pointer, d_first: Pointer, reset: Pointer, recurrent: Pointer, place: Tile, B: int, live: Tile, columns: Tile,
    LENGTH: tl.constexpr, D: tl.constexpr, E: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
) -> Tile:  # fmt: skip
    """Compute the gradient of h through the products of the next position: through q, or through LENGTH numbers of u and the gates."""
    after = place + B
    total = tl.full((ROWS, BLOCK), 0.0, tl.float32)
    if INPUT:
        total = product(total, d_gates + after * E, LENGTH, recurrent, D, 1, live, columns, D, BLOCK)
        begins = tl.load(reset + after, mask=live, other=0) != 0
        total = tl.where(begins[:, None], 0.0, total)
    else:
        total = product(total, d_first + after * D, D, recurrent, D, 1, live, columns, D, BLOCK)
    return total


@triton.jit
def lstm_forward(
    gates: Pointer, x: Pointer, first: Pointer, second: Pointer, reading: Pointer, h: Pointer, c: Pointer, reset: Pointer,
    recurrent: Pointer, into: Pointer, T: int, B: int, D: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Compute activated gates, first, second, h and c from the projections in gates."""
    E: tl.constexpr = 5 * D
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = rows < B
    for t in range(T):
        place = (t * B + rows).to(tl.int64)
        begins = tl.load(reset + place, mask=live, other=0) != 0
        multiply(gates, x, first, second, h, recurrent, place, begins, live, D, E, INPUT, ROWS, BLOCK)
        tl.debug_barrier()
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            here = live[:, None] & (columns < D)[None, :]
            i = sigmoid(gate(gates, first, second, h, recurrent, into, place, begins, live, columns, 0, D, E, INPUT, ROWS, BLOCK))
            f = sigmoid(gate(gates, first, second, h, recurrent, into, place, begins, live, columns, 1, D, E, INPUT, ROWS, BLOCK))
            g = tanh(gate(gates, first, second, h, recurrent, into, place, begins, live, columns, 2, D, E, INPUT, ROWS, BLOCK))
            o = sigmoid(gate(gates, first, second, h, recurrent, into, place, begins, live, columns, 3, D, E, INPUT, ROWS, BLOCK))
            before = tl.load(tile(c, place, D, columns), mask=here & (begins == 0)[:, None], other=0.0)
            cell = f * before + i * g
            tl.store(tile(gates, place, E, D + columns), i, mask=here)
            tl.store(tile(gates, place, E, 2 * D + columns), f, mask=here)
            tl.store(tile(gates, place, E, 3 * D + columns), g, mask=here)
            tl.store(tile(gates, place, E, 4 * D + columns), o, mask=here)
            tl.store(tile(c, place + B, D, columns), cell, mask=here)
            tl.store(tile(h, place + B, D, columns), o * tanh(cell), mask=here)
        tl.debug_barrier()


@triton.jit
def lstm_backward(
    gates: Pointer, x: Pointer, first: Pointer, second: Pointer, reading: Pointer, h: Pointer, c: Pointer, reset: Pointer,
    recurrent: Pointer, into: Pointer, d_y: Pointer, d_cells: Pointer, d_gates: Pointer, d_first: Pointer, d_h: Pointer, d_c: Pointer,
    T: int, B: int, D: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Compute d_gates and d_first, and the initial d_c."""
    E: tl.constexpr = 5 * D
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = rows < B
    for back in range(T):
        place = ((T - 1 - back) * B + rows).to(tl.int64)
        begins = tl.load(reset + place, mask=live, other=0) != 0
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            here = live[:, None] & (columns < D)[None, :]
            d_hidden = later(d_gates, d_first, reset, recurrent, place, B, live, columns, E, D, E, INPUT, ROWS, BLOCK)
            d_hidden += tl.load(tile(d_y, place, D, columns), mask=here, other=0.0)
            i = tl.load(tile(gates, place, E, D + columns), mask=here, other=0.0)
            f = tl.load(tile(gates, place, E, 2 * D + columns), mask=here, other=0.0)
            g = tl.load(tile(gates, place, E, 3 * D + columns), mask=here, other=0.0)
            o = tl.load(tile(gates, place, E, 4 * D + columns), mask=here, other=0.0)
            before = tl.load(tile(c, place, D, columns), mask=here & (begins == 0)[:, None], other=0.0)
            squashed = tanh(tl.load(tile(c, place + B, D, columns), mask=here, other=0.0))
            cell = tl.load(tile(d_c, rows, D, columns), mask=here, other=0.0) + d_hidden * o * (1 - squashed * squashed)
            cell += tl.load(tile(d_cells, place, D, columns), mask=here, other=0.0)
            tl.store(tile(d_gates, place, E, D + columns), cell * g * i * (1 - i), mask=here)
            tl.store(tile(d_gates, place, E, 2 * D + columns), cell * before * f * (1 - f), mask=here)
            tl.store(tile(d_gates, place, E, 3 * D + columns), cell * i * (1 - g * g), mask=here)
            tl.store(tile(d_gates, place, E, 4 * D + columns), d_hidden * squashed * o * (1 - o), mask=here)
            tl.store(tile(d_c, rows, D, columns), tl.where(begins[:, None], 0.0, cell * f), mask=here)
        tl.debug_barrier()
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            total, seen = tl.full((ROWS, BLOCK), 0.0, tl.float32), d_gates + place * E + D
            matrix = into if INPUT else recurrent + D * D
            multiply_backward(
                total, gates, x, first, second, d_gates, d_first, seen, 4 * D, matrix, place, begins, live, columns, D, E, INPUT, BLOCK
            )
        tl.debug_barrier()


@triton.jit
def gru_forward(
    gates: Pointer, x: Pointer, first: Pointer, second: Pointer, reading: Pointer, h: Pointer, c: Pointer, reset: Pointer,
    recurrent: Pointer, into: Pointer, T: int, B: int, D: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Compute activated gates, first, second, reading and h from the projections in gates."""
    E: tl.constexpr = 4 * D
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = rows < B
    for t in range(T):
        place = (t * B + rows).to(tl.int64)
        begins = tl.load(reset + place, mask=live, other=0) != 0
        multiply(gates, x, first, second, h, recurrent, place, begins, live, D, E, INPUT, ROWS, BLOCK)
        tl.debug_barrier()
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            here = live[:, None] & (columns < D)[None, :]
            z = sigmoid(gate(gates, first, second, h, recurrent, into, place, begins, live, columns, 0, D, E, INPUT, ROWS, BLOCK))
            r = sigmoid(gate(gates, first, second, h, recurrent, into, place, begins, live, columns, 1, D, E, INPUT, ROWS, BLOCK))
            if INPUT:
                read = tl.load(tile(h, place, D, columns), mask=here & (begins == 0)[:, None], other=0.0)
            else:
                read = tl.load(tile(second, place, D, columns), mask=here, other=0.0)
            tl.store(tile(gates, place, E, D + columns), z, mask=here)
            tl.store(tile(gates, place, E, 2 * D + columns), r, mask=here)
            tl.store(tile(reading, place, D, columns), r * read, mask=here)
        tl.debug_barrier()
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            here = live[:, None] & (columns < D)[None, :]
            n = tl.load(tile(gates, place, E, 3 * D + columns), mask=here, other=0.0)
            if INPUT:
                n = product(n, first + place * D, D, into + 2 * D * D, 1, D, live, columns, D, BLOCK)
            n = tanh(product(n, reading + place * D, D, recurrent + 3 * D * D, 1, D, live, columns, D, BLOCK))
            z = tl.load(tile(gates, place, E, D + columns), mask=here, other=0.0)
            before = tl.load(tile(h, place, D, columns), mask=here & (begins == 0)[:, None], other=0.0)
            tl.store(tile(gates, place, E, 3 * D + columns), n, mask=here)
            tl.store(tile(h, place + B, D, columns), before + z * (n - before), mask=here)
        tl.debug_barrier()


@triton.jit
def gru_backward(
    gates: Pointer, x: Pointer, first: Pointer, second: Pointer, reading: Pointer, h: Pointer, c: Pointer, reset: Pointer,
    recurrent: Pointer, into: Pointer, d_y: Pointer, d_cells: Pointer, d_gates: Pointer, d_first: Pointer, d_h: Pointer, d_c: Pointer,
    T: int, B: int, D: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Compute d_gates and d_first, and the initial d_h without the part through products."""
    E: tl.constexpr = 4 * D
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = rows < B
    for back in range(T):
        place = ((T - 1 - back) * B + rows).to(tl.int64)
        begins = tl.load(reset + place, mask=live, other=0) != 0
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            here = live[:, None] & (columns < D)[None, :]
            d_hidden = later(d_gates, d_first, reset, recurrent, place, B, live, columns, 3 * D, D, E, INPUT, ROWS, BLOCK)
            d_hidden += tl.load(tile(d_y, place, D, columns), mask=here, other=0.0)
            d_hidden += tl.load(tile(d_h, rows, D, columns), mask=here, other=0.0)
            z = tl.load(tile(gates, place, E, D + columns), mask=here, other=0.0)
            n = tl.load(tile(gates, place, E, 3 * D + columns), mask=here, other=0.0)
            before = tl.load(tile(h, place, D, columns), mask=here & (begins == 0)[:, None], other=0.0)
            tl.store(tile(d_gates, place, E, D + columns), d_hidden * (n - before) * z * (1 - z), mask=here)
            tl.store(tile(d_gates, place, E, 3 * D + columns), d_hidden * z * (1 - n * n), mask=here)
            tl.store(tile(d_h, rows, D, columns), tl.where(begins[:, None], 0.0, d_hidden * (1 - z)), mask=here)
        tl.debug_barrier()
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            here = live[:, None] & (columns < D)[None, :]
            zero = tl.full((ROWS, BLOCK), 0.0, tl.float32)
            d_reading = product(zero, d_gates + place * E + 3 * D, D, recurrent + 3 * D * D, D, 1, live, columns, D, BLOCK)
            r = tl.load(tile(gates, place, E, 2 * D + columns), mask=here, other=0.0)
            if INPUT:
                read = tl.load(tile(h, place, D, columns), mask=here & (begins == 0)[:, None], other=0.0)
                passed = tl.load(tile(d_h, rows, D, columns), mask=here, other=0.0)
                tl.store(tile(d_h, rows, D, columns), tl.where(begins[:, None], 0.0, passed + d_reading * r), mask=here)
            else:
                read = tl.load(tile(second, place, D, columns), mask=here, other=0.0)
                tl.store(tile(d_first, place, D, columns), d_reading * r, mask=here)
            tl.store(tile(d_gates, place, E, 2 * D + columns), d_reading * read * r * (1 - r), mask=here)
        tl.debug_barrier()
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            here, seen = live[:, None] & (columns < D)[None, :], d_gates + place * E + D
            total = tl.full((ROWS, BLOCK), 0.0, tl.float32)
            if INPUT:
                multiply_backward(
                    total, gates, x, first, second, d_gates, d_first, seen, 3 * D, into, place, begins, live, columns, D, E, INPUT, BLOCK
                )
            else:
                total = tl.load(tile(d_first, place, D, columns), mask=here, other=0.0)
                matrix = recurrent + D * D
                multiply_backward(
                    total, gates, x, first, second, d_gates, d_first, seen, 2 * D, matrix, place, begins, live, columns, D, E, INPUT, BLOCK
                )
        tl.debug_barrier()


FORWARD = {"lstm": lstm_forward, "gru": gru_forward}
BACKWARD = {"lstm": lstm_backward, "gru": gru_backward}
