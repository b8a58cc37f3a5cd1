/* The multiplicative LSTM and GRU over a whole sequence, and their gradient: matrix products and pointwise operations.
 *
 * Compiled on first use, once per dtype (REAL is float or double), and called through ctypes; equations are in multiplicative.py. One
 * block of positions at a time, so that intermediates stay in cache. Notation: B = batch size, T = sequence length, D = width,
 * G = rows of the gates' matrices, E = D + G, P = positions per block over all rows.
 */
#include "matmul.h"
#include "pointwise.h"

/* Fields in the order of `FIELDS` in multiplicative_c.py; fields that a cell or a pass does not use are NULL. Functions that take a
 * `block` get the same struct with pointers moved to the start of the block, and its number of steps.
 */
struct sequence {
    const REAL *x;                                 /* (B, T, D) */
    const REAL *bias;                              /* (E): zeros for u, then b */
    const REAL *zeros;                             /* (D) */
    const REAL *into, *factor, *gating, *reading;  /* packed [W_m; W], U_m, U of all gates, or of z and r, and U of n: forward transposed */
    const uint8_t *reset;                          /* (T, B) or NULL */
    REAL *gates;                                   /* (T, B, E): u, then the gates; of one block only if not kept */
    REAL *q;                                       /* (T, B, D), likewise */
    REAL *h, *c;                                   /* (T + 1, B, D): the first is the initial state */
    REAL *x_part, *m, *read;                       /* (P, D): x time-major, m, r m */
    const REAL *d_y, *d_cells;                     /* (B, T, D): gradients of the outputs h and c; the latter may be NULL */
    REAL *d_x;                                     /* (B, T, D) */
    REAL *d_into, *d_bias, *d_factor, *d_recurrent; /* accumulated, as are d_h and d_c */
    REAL *d_h, *d_c;                               /* (B, D): gradients of the states from later positions */
    REAL *d_m;                                     /* (B, D) */
    REAL *d_y_part, *d_cells_part, *d_x_part;      /* (P, D), time-major */
    REAL *d_gates, *d_q;                           /* (P, E), (P, D) */
    REAL *panels;                                  /* buffer for P packed positions of width D */
    size_t rows, steps, width, gates_width, block, kept;
};

/* Polynomial near zero, where 1 - 2 / (exp(2 x) + 1) cancels; the two are selected bitwise, without a branch. */
static inline float tanh_float(float x)
{
    float z = x * x, large = 1.0f - 2.0f / (exp_float(2.0f * fabsf(x)) + 1.0f);
    float p = MULADD(-5.70498872745e-3f, z, 2.06390887954e-2f);
    p = MULADD(p, z, -5.37397155531e-2f);
    p = MULADD(p, z, 1.33314422036e-1f);
    p = MULADD(p, z, -3.33332819422e-1f);
    float small = MULADD(p * z, x, x);
    uint32_t of_x, of_large, of_small, near = -(uint32_t)(z < 0.390625f);
    memcpy(&of_x, &x, sizeof of_x);
    memcpy(&of_large, &large, sizeof of_large);
    memcpy(&of_small, &small, sizeof of_small);
    uint32_t bits = (near & of_small) | (~near & (of_large | (of_x & 0x80000000u)));
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define TANH _Generic((REAL)0, float: tanh_float, double: tanh)

/* Offset of row `row` at position t in x (B, T, D), and in a time-major block of it. */
static size_t whole(const struct sequence *all, size_t row, size_t t)
{
    return (row * all->steps + t) * all->width;
}

static size_t part(const struct sequence *all, size_t row, size_t t)
{
    return (t * all->rows + row) * all->width;
}

/* Copy positions first to first + steps of all rows to a time-major buffer. */
static void gather(const struct sequence *all, REAL *to, const REAL *from, size_t first, size_t steps)
{
    for (size_t row = 0; row < all->rows; row++)
        for (size_t t = 0; t < steps; t++)
            memcpy(to + part(all, row, t), from + whole(all, row, first + t), all->width * sizeof(REAL));
}

/* The inverse of gather. */
static void scatter(const struct sequence *all, REAL *to, const REAL *from, size_t first, size_t steps)
{
    for (size_t row = 0; row < all->rows; row++)
        for (size_t t = 0; t < steps; t++)
            memcpy(to + whole(all, row, first + t), from + part(all, row, t), all->width * sizeof(REAL));
}

/* The same from position `first` on, for one block. */
static struct sequence block_at(const struct sequence *all, size_t first)
{
    struct sequence block = *all;
    const size_t place = first * all->rows, kept = all->kept ? place : 0;
    block.steps = all->steps - first < all->block ? all->steps - first : all->block;
    block.gates += kept * all->gates_width;
    block.q += kept * all->width;
    block.h += place * all->width;
    block.c = all->c ? all->c + place * all->width : NULL;
    block.reset = all->reset ? all->reset + place : NULL;
    gather(all, block.x_part, all->x, first, block.steps);
    return block;
}

static int starts(const struct sequence *block, size_t place)
{
    return block->reset && block->reset[place];
}

/* Row `place` of the gates, or of their gradient, from gate `gate` on; gate 0 is u. */
static REAL *gate_of(const struct sequence *block, REAL *gates, size_t place, size_t gate)
{
    return gates + place * block->gates_width + gate * block->width;
}

/* Compute u and the input's contribution to the gates before activation. */
static void project(const struct sequence *block)
{
    const size_t wide = block->gates_width, width = block->width, positions = block->steps * block->rows;
    matmul(block->gates, wide, block->bias, 0, (struct matrix){block->x_part, width, 1}, block->into, positions, wide, width);
}

/* m = u q at position t. */
static void multiply(const struct sequence *block, size_t t)
{
    const size_t width = block->width;
    for (size_t place = t * block->rows; place < (t + 1) * block->rows; place++) {
        const REAL *restrict u = gate_of(block, block->gates, place, 0), *restrict q = block->q + place * width;
        REAL *restrict m = block->m + place * width;
        for (size_t n = 0; n < width; n++)
            m[n] = u[n] * q[n];
    }
}

/* q = U_m h and m at position t; q is 0 where an episode starts, since h is and U_m has no bias. */
static void factor(const struct sequence *block, size_t t)
{
    const size_t width = block->width, first = t * block->rows;
    const struct matrix h = {block->h + first * width, width, 1};
    matmul(block->q + first * width, width, block->zeros, 0, h, block->factor, block->rows, width, width);
    for (size_t place = first; place < first + block->rows; place++)
        if (starts(block, place))
            memset(block->q + place * width, 0, width * sizeof(REAL));
    multiply(block, t);
}

/* Compute d_u and d_q from d_m at position t, and d_h = start + the gradient of h through q. */
static void factor_backward(const struct sequence *block, size_t t, const REAL *start, size_t start_row)
{
    const size_t width = block->width, first = t * block->rows;
    for (size_t row = 0, place = first; row < block->rows; row++, place++) {
        const REAL *restrict u = gate_of(block, block->gates, place, 0), *restrict q = block->q + place * width;
        const REAL *restrict d_m = block->d_m + row * width;
        REAL *restrict d_u = gate_of(block, block->d_gates, place, 0), *restrict d_q = block->d_q + place * width;
        for (size_t n = 0; n < width; n++) {
            d_u[n] = d_m[n] * q[n];
            d_q[n] = d_m[n] * u[n];
        }
        if (starts(block, place))
            memset(d_q, 0, width * sizeof(REAL));
    }
    const struct matrix d_q = {block->d_q + first * width, width, 1};
    matmul(block->d_h, width, start, start_row, d_q, block->factor, block->rows, width, width);
}

/* Add the product of `from` (T, B, D) at position t and the weights to `many` gates from gate `gate` on. */
static void add_to_gates(const struct sequence *block, size_t t, size_t gate, size_t many, const REAL *from, const REAL *weights)
{
    const size_t wide = block->gates_width, width = block->width, first = t * block->rows;
    REAL *gates = gate_of(block, block->gates, first, gate);
    matmul(gates, wide, gates, wide, (struct matrix){from + first * width, width, 1}, weights, block->rows, many * width, width);
}

/* d_m = start + the gradient of m, or of r m, through those gates at position t. */
static void through_gates(const struct sequence *block, size_t t, size_t gate, size_t many, const REAL *start, size_t start_row,
                          const REAL *weights)
{
    const size_t width = block->width;
    const struct matrix d_gates = {gate_of(block, block->d_gates, t * block->rows, gate), block->gates_width, 1};
    matmul(block->d_m, width, start, start_row, d_gates, weights, block->rows, width, many * width);
}

/* d_weights (outputs, D) += d_outputs^T inputs over all positions; `wide` is the row stride of d_outputs. */
static void add_weights(const struct sequence *block, REAL *d_weights, const REAL *d_outputs, size_t wide, size_t outputs,
                        const REAL *inputs)
{
    const size_t width = block->width, positions = block->steps * block->rows;
    pack(block->panels, inputs, width, 1, positions, width);
    matmul(d_weights, width, d_weights, width, (struct matrix){d_outputs, 1, wide}, block->panels, outputs, width, positions);
}

/* Compute the gradients of the input, its weights and U_m. */
static void project_backward(const struct sequence *block)
{
    const size_t wide = block->gates_width, width = block->width, positions = block->steps * block->rows;
    matmul(block->d_x_part, width, block->zeros, 0, (struct matrix){block->d_gates, wide, 1}, block->into, positions, width, wide);
    add_weights(block, block->d_into, block->d_gates, wide, wide, block->x_part);
    add_weights(block, block->d_factor, block->d_q, width, width, block->h);
    for (size_t place = 0; place < positions; place++)
        for (size_t n = 0; n < wide; n++)
            block->d_bias[n] += block->d_gates[place * wide + n];
}

static void lstm_row(REAL *restrict i, REAL *restrict f, REAL *restrict g, REAL *restrict o, const REAL *restrict before,
                     REAL *restrict c, REAL *restrict h, size_t width)
{
    for (size_t n = 0; n < width; n++) {
        i[n] = SIGMOID(i[n]);
        f[n] = SIGMOID(f[n]);
        g[n] = TANH(g[n]);
        o[n] = SIGMOID(o[n]);
        c[n] = f[n] * before[n] + i[n] * g[n];
        h[n] = o[n] * TANH(c[n]);
    }
}

/* Apply the activations of i, f, g, o in place and compute c and h after position t. */
static void lstm_activate(const struct sequence *block, size_t t)
{
    const size_t width = block->width, after = block->rows * width;
    for (size_t place = t * block->rows; place < (t + 1) * block->rows; place++) {
        REAL *i = gate_of(block, block->gates, place, 1), *c = block->c + place * width;
        const REAL *before = starts(block, place) ? block->zeros : c;
        lstm_row(i, i + width, i + 2 * width, i + 3 * width, before, c + after, block->h + after + place * width, width);
    }
}

/* Compute activated gates, q, h and c. */
static void lstm_block(const struct sequence *block)
{
    project(block);
    for (size_t t = 0; t < block->steps; t++) {
        factor(block, t);
        add_to_gates(block, t, 1, 4, block->m, block->gating);
        lstm_activate(block, t);
    }
}

static void lstm_row_backward(const REAL *restrict i, const REAL *restrict f, const REAL *restrict g, const REAL *restrict o,
                              const REAL *restrict before, const REAL *restrict c, const REAL *restrict d_y, const REAL *restrict d_cell,
                              const REAL *restrict d_h, REAL *restrict d_c, REAL *restrict d_i, REAL *restrict d_f, REAL *restrict d_g,
                              REAL *restrict d_o, size_t width)
{
    for (size_t n = 0; n < width; n++) {
        REAL squashed = TANH(c[n]), h = d_y[n] + d_h[n];
        REAL cell = d_c[n] + d_cell[n] + h * o[n] * (1 - squashed * squashed);
        d_i[n] = cell * g[n] * i[n] * (1 - i[n]);
        d_f[n] = cell * before[n] * f[n] * (1 - f[n]);
        d_g[n] = cell * i[n] * (1 - g[n] * g[n]);
        d_o[n] = h * squashed * o[n] * (1 - o[n]);
        d_c[n] = cell * f[n];
    }
}

/* Compute the gradients of i, f, g, o before activation, and d_c of the previous position; its d_h needs the products that follow. */
static void lstm_activate_backward(const struct sequence *block, size_t t)
{
    const size_t width = block->width, after = block->rows * width;
    for (size_t row = 0, place = t * block->rows; row < block->rows; row++, place++) {
        REAL *i = gate_of(block, block->gates, place, 1), *c = block->c + place * width;
        REAL *d_i = gate_of(block, block->d_gates, place, 1), *d_c = block->d_c + row * width;
        lstm_row_backward(i, i + width, i + 2 * width, i + 3 * width, starts(block, place) ? block->zeros : c, c + after,
                          block->d_y_part + place * width, block->d_cells ? block->d_cells_part + place * width : block->zeros,
                          block->d_h + row * width, d_c, d_i, d_i + width, d_i + 2 * width, d_i + 3 * width, width);
        if (starts(block, place))
            memset(d_c, 0, width * sizeof(REAL));
    }
}

/* Compute d_x, and d_h and d_c before the block; accumulate the gradients of the weights. */
static void lstm_block_backward(const struct sequence *block)
{
    const size_t wide = block->gates_width, width = block->width;
    for (size_t t = block->steps; t-- > 0;) {
        multiply(block, t);
        lstm_activate_backward(block, t);
        through_gates(block, t, 1, 4, block->zeros, 0, block->gating);
        factor_backward(block, t, block->zeros, 0);
    }
    add_weights(block, block->d_recurrent, block->d_gates + width, wide, 4 * width, block->m);
    project_backward(block);
}

/* Apply the activations of z and r in place and compute r m. */
static void gru_read(const struct sequence *block, size_t t)
{
    const size_t width = block->width;
    for (size_t place = t * block->rows; place < (t + 1) * block->rows; place++) {
        REAL *restrict z = gate_of(block, block->gates, place, 1), *restrict r = z + width;
        const REAL *restrict m = block->m + place * width;
        REAL *restrict read = block->read + place * width;
        for (size_t n = 0; n < width; n++) {
            z[n] = SIGMOID(z[n]);
            r[n] = SIGMOID(r[n]);
            read[n] = r[n] * m[n];
        }
    }
}

/* Apply the activation of n in place and compute h after position t. */
static void gru_activate(const struct sequence *block, size_t t)
{
    const size_t width = block->width, after = block->rows * width;
    for (size_t place = t * block->rows; place < (t + 1) * block->rows; place++) {
        const REAL *restrict z = gate_of(block, block->gates, place, 1);
        const REAL *restrict before = starts(block, place) ? block->zeros : block->h + place * width;
        REAL *restrict candidate = gate_of(block, block->gates, place, 3), *restrict h = block->h + after + place * width;
        for (size_t n = 0; n < width; n++) {
            candidate[n] = TANH(candidate[n]);
            h[n] = before[n] + z[n] * (candidate[n] - before[n]);
        }
    }
}

/* Compute activated gates, q and h. */
static void gru_block(const struct sequence *block)
{
    project(block);
    for (size_t t = 0; t < block->steps; t++) {
        factor(block, t);
        add_to_gates(block, t, 1, 2, block->m, block->gating);
        gru_read(block, t);
        add_to_gates(block, t, 3, 1, block->read, block->reading);
        gru_activate(block, t);
    }
}

/* Compute the gradients of z and n before activation, and the part of d_h through (1 - z) h. */
static void gru_activate_backward(const struct sequence *block, size_t t)
{
    const size_t width = block->width;
    for (size_t row = 0, place = t * block->rows; row < block->rows; row++, place++) {
        const REAL *restrict z = gate_of(block, block->gates, place, 1), *restrict candidate = z + 2 * width;
        const REAL *restrict before = starts(block, place) ? block->zeros : block->h + place * width;
        const REAL *restrict d_y = block->d_y_part + place * width;
        REAL *restrict d_z = gate_of(block, block->d_gates, place, 1), *restrict d_candidate = d_z + 2 * width;
        REAL *restrict d_h = block->d_h + row * width;
        for (size_t n = 0; n < width; n++) {
            REAL h = d_y[n] + d_h[n];
            d_z[n] = h * (candidate[n] - before[n]) * z[n] * (1 - z[n]);
            d_candidate[n] = h * z[n] * (1 - candidate[n] * candidate[n]);
            d_h[n] = h * (1 - z[n]);
        }
        if (starts(block, place))
            memset(d_h, 0, width * sizeof(REAL));
    }
}

/* Turn the gradient of r m in d_m into that of m; compute the gradient of r before activation, and recompute r m. */
static void gru_read_backward(const struct sequence *block, size_t t)
{
    const size_t width = block->width;
    for (size_t row = 0, place = t * block->rows; row < block->rows; row++, place++) {
        const REAL *restrict r = gate_of(block, block->gates, place, 2), *restrict m = block->m + place * width;
        REAL *restrict d_r = gate_of(block, block->d_gates, place, 2), *restrict d_m = block->d_m + row * width;
        REAL *restrict read = block->read + place * width;
        for (size_t n = 0; n < width; n++) {
            read[n] = r[n] * m[n];
            d_r[n] = d_m[n] * m[n] * r[n] * (1 - r[n]);
            d_m[n] *= r[n];
        }
    }
}

/* Compute d_x, and d_h before the block; accumulate the gradients of the weights. */
static void gru_block_backward(const struct sequence *block)
{
    const size_t wide = block->gates_width, width = block->width;
    for (size_t t = block->steps; t-- > 0;) {
        multiply(block, t);
        gru_activate_backward(block, t);
        through_gates(block, t, 3, 1, block->zeros, 0, block->reading);
        gru_read_backward(block, t);
        through_gates(block, t, 1, 2, block->d_m, width, block->gating);
        factor_backward(block, t, block->d_h, width);
    }
    add_weights(block, block->d_recurrent, block->d_gates + width, wide, 2 * width, block->m);
    add_weights(block, block->d_recurrent + 2 * width * width, block->d_gates + 3 * width, wide, width, block->read);
    project_backward(block);
}

typedef void run_block(const struct sequence *block);

static void forward(const struct sequence *all, run_block *run)
{
    for (size_t first = 0; first < all->steps; first += all->block) {
        const struct sequence block = block_at(all, first);
        run(&block);
    }
}

static void backward(const struct sequence *all, run_block *run)
{
    for (size_t first = (all->steps - 1) / all->block * all->block + all->block; first > 0;) {
        first -= all->block;
        const struct sequence block = block_at(all, first);
        gather(all, block.d_y_part, all->d_y, first, block.steps);
        if (all->d_cells)
            gather(all, block.d_cells_part, all->d_cells, first, block.steps);
        run(&block);
        scatter(all, all->d_x, block.d_x_part, first, block.steps);
    }
}

#define EXPORT(name, direction, block) void name(const struct sequence *all) { direction(all, block); }
EXPORT(lstm_forward, forward, lstm_block)
EXPORT(lstm_backward, backward, lstm_block_backward)
EXPORT(gru_forward, forward, gru_block)
EXPORT(gru_backward, backward, gru_block_backward)
