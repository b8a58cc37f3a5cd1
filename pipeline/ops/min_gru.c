/* The minimal GRU over a whole sequence, and its gradient: one block of positions at a time, so that gates are still in cache for the
 * scan.
 *
 * Compiled on first use, once per dtype (REAL is float or double), and called through ctypes; equations are in min_gru.py. All
 * buffers are batch-major and contiguous, so that the positions of all rows are rows of one matrix. Notation: B = batch size,
 * T = sequence length, D = width.
 */
#include "matmul.h"
#include "pointwise.h"

/* Fields in the order of `INPUTS`, `GRADIENTS` and `SIZES` in min_gru_c.py; fields that a pass does not use are NULL. */
struct sequence {
    const REAL *x;             /* (B, T, D) */
    const REAL *start;         /* (B, D) */
    const REAL *bias;          /* (2 D) */
    const REAL *weights;       /* packed W: forward transposed */
    const REAL *zeros;         /* (D) */
    const uint8_t *reset;      /* (B, T) or NULL */
    REAL *gates;               /* (B T, 2 D): z and c; of one block only if not kept */
    REAL *h;                   /* (B, T, D) */
    const REAL *d_h;           /* (B, T, D): gradient of the outputs */
    REAL *d_x;                 /* (B, T, D) */
    REAL *d_start;             /* (B, D) */
    REAL *d_weight, *d_bias;   /* (2 D, D), (2 D): accumulated */
    REAL *d_gates;             /* (block, 2 D) */
    REAL *panels;              /* buffer for a block's packed x */
    size_t rows, steps, width, block, kept, positive;
};

/* Return the state before a position. */
static const REAL *before(const struct sequence *all, size_t place)
{
    if (all->reset && all->reset[place])
        return all->zeros;
    return place % all->steps ? all->h + (place - 1) * all->width : all->start + place / all->steps * all->width;
}

/* Apply the activations of z and c in place and compute h. */
static inline __attribute__((always_inline)) void write_state(REAL *restrict z, REAL *restrict c, REAL *restrict h,
                                                              const REAL *restrict past, size_t width, const int positive)
{
    for (size_t n = 0; n < width; n++) {
        const REAL written = SIGMOID(c[n]);
        z[n] = SIGMOID(z[n]);
        if (positive)
            c[n] = c[n] > 0 ? c[n] + (REAL)0.5 : written;
        h[n] = past[n] + z[n] * (c[n] - past[n]);
    }
}

/* Compute the gradients of z and c before activation, and of the state before; with `positive`, c <= 1/2 came from the sigmoid branch. */
static inline __attribute__((always_inline)) void write_backward(const REAL *restrict z, const REAL *restrict c, const REAL *restrict past,
                                                                 const REAL *restrict d_h, REAL *restrict carry, REAL *restrict d_z,
                                                                 REAL *restrict d_c, REAL *restrict d_bias, size_t width,
                                                                 const int positive)
{
    for (size_t n = 0; n < width; n++) {
        const REAL g = d_h[n] + carry[n], slope = positive && c[n] <= (REAL)0.5 ? c[n] * (1 - c[n]) : 1;
        d_z[n] = g * (c[n] - past[n]) * z[n] * (1 - z[n]);
        d_c[n] = g * z[n] * slope;
        d_bias[n] += d_z[n];
        d_bias[n + width] += d_c[n];
        carry[n] = g * (1 - z[n]);
    }
}

/* Compute the gates and h. */
void forward(const struct sequence *all)
{
    const size_t width = all->width, places = all->rows * all->steps;
    for (size_t first = 0, many; first < places; first += many) {
        many = places - first < all->block ? places - first : all->block;
        REAL *gates = all->kept ? all->gates + first * 2 * width : all->gates;
        matmul(gates, 2 * width, all->bias, 0, (struct matrix){all->x + first * width, width, 1}, all->weights, many, 2 * width, width);
        for (size_t place = first; place < first + many; place++, gates += 2 * width) {
            if (all->positive)
                write_state(gates, gates + width, all->h + place * width, before(all, place), width, 1);
            else
                write_state(gates, gates + width, all->h + place * width, before(all, place), width, 0);
        }
    }
}

/* Compute d_gates of `many` positions, last to first; a row's d_start holds the gradient of h from later positions. */
static void scan_backward(const struct sequence *all, size_t first, size_t many)
{
    const size_t width = all->width;
    for (size_t place = first + many; place-- > first;) {
        const REAL *z = all->gates + place * 2 * width, *d_h = all->d_h + place * width;
        REAL *d_z = all->d_gates + (place - first) * 2 * width, *carry = all->d_start + place / all->steps * width;
        if (all->positive)
            write_backward(z, z + width, before(all, place), d_h, carry, d_z, d_z + width, all->d_bias, width, 1);
        else
            write_backward(z, z + width, before(all, place), d_h, carry, d_z, d_z + width, all->d_bias, width, 0);
        if (all->reset && all->reset[place])
            memset(carry, 0, width * sizeof(REAL));
    }
}

/* Compute all gradients; d_start, d_weight and d_bias must be zero on entry. */
void backward(const struct sequence *all)
{
    const size_t width = all->width, places = all->rows * all->steps;
    for (size_t end = places, many; end > 0; end -= many) {
        many = (end - 1) % all->block + 1;
        const size_t first = end - many;
        scan_backward(all, first, many);
        const struct matrix d_gates = {all->d_gates, 2 * width, 1}, turned = {all->d_gates, 1, 2 * width};
        matmul(all->d_x + first * width, width, all->zeros, 0, d_gates, all->weights, many, width, 2 * width);
        pack(all->panels, all->x + first * width, width, 1, many, width);
        matmul(all->d_weight, width, all->d_weight, width, turned, all->panels, 2 * width, width, many);
    }
}
