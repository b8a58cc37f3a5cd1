/* The pointwise part of each step of the multiplicative LSTM and GRU, and of its gradient; the matrix products between them are torch's.
 *
 * Compiled on first use, once per number type (REAL is float or double), and called through ctypes; the maths is stated in
 * multiplicative.py. All buffers are time-major and contiguous, and a call works on one position of all rows.
 */
#include <stddef.h>

#include "pointwise.h"

/* Fields in the order of `Tape` in multiplicative.py; what a cell does not need is NULL. */
struct tape {
    REAL *gates;          /* (T, B, G D): u, then the gates: projections of x, then before activation, then activated */
    REAL *q, *m;          /* (T, B, D) */
    REAL *reading;        /* (T, B, D): r m of the GRU */
    REAL *h, *c;          /* (T + 1, B, D): the first is the state before */
    const uint8_t *reset; /* (T, B) or NULL */
    const REAL *zeros;    /* (D): the state before a reset */
    const REAL *d_y;      /* (T, B, D) */
    const REAL *d_cells;  /* (T, B, D) or NULL: what each c receives from outside */
    REAL *d_gates;        /* (T, B, G D) */
    REAL *d_q;            /* (T, B, D) */
    REAL *d_m;            /* (B, D) */
    REAL *d_h, *d_c;      /* (B, D): what the state receives from later positions */
    size_t rows, width, gates_width;
};

static inline float sigmoid_float(float x)
{
    return 1.0f / (1.0f + exp_float(-x));
}

/* A polynomial near zero, where 1 - 2 / (exp(2 x) + 1) loses its digits; the two are merged as bits, without a branch. */
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

static inline double sigmoid_double(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

#define SIGMOID _Generic((REAL)0, float: sigmoid_float, double: sigmoid_double)
#define TANH _Generic((REAL)0, float: tanh_float, double: tanh)

static int starts(const struct tape *tape, size_t place)
{
    return tape->reset && tape->reset[place];
}

/* m = u q; where an episode starts q counts as zero, which it is when h is: it has no bias. */
void product(const struct tape *tape, size_t t)
{
    const size_t width = tape->width;
    for (size_t place = t * tape->rows; place < (t + 1) * tape->rows; place++) {
        const REAL *restrict u = tape->gates + place * tape->gates_width;
        REAL *restrict q = tape->q + place * width, *restrict m = tape->m + place * width;
        if (starts(tape, place))
            memset(q, 0, width * sizeof(REAL));
        for (size_t n = 0; n < width; n++)
            m[n] = u[n] * q[n];
    }
}

/* From dm to du and dq. */
void product_backward(const struct tape *tape, size_t t)
{
    const size_t width = tape->width;
    for (size_t row = 0; row < tape->rows; row++) {
        const size_t place = t * tape->rows + row;
        const REAL *restrict u = tape->gates + place * tape->gates_width, *restrict q = tape->q + place * width;
        const REAL *restrict d_m = tape->d_m + row * width;
        REAL *restrict d_u = tape->d_gates + place * tape->gates_width, *restrict d_q = tape->d_q + place * width;
        for (size_t n = 0; n < width; n++) {
            d_u[n] = d_m[n] * q[n];
            d_q[n] = d_m[n] * u[n];
        }
        if (starts(tape, place))
            memset(d_q, 0, width * sizeof(REAL));
    }
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

/* Activates i, f, g, o in place; c and h after position t. */
void lstm_forward(const struct tape *tape, size_t t)
{
    const size_t width = tape->width, after = tape->rows * width;
    for (size_t place = t * tape->rows; place < (t + 1) * tape->rows; place++) {
        REAL *i = tape->gates + place * tape->gates_width + width, *c = tape->c + place * width;
        const REAL *before = starts(tape, place) ? tape->zeros : c;
        lstm_row(i, i + width, i + 2 * width, i + 3 * width, before, c + after, tape->h + after + place * width, width);
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

/* The gradients of i, f, g, o before activation, and d_c of the position before; d_h of that one needs the products that follow. */
void lstm_backward(const struct tape *tape, size_t t)
{
    const size_t width = tape->width, after = tape->rows * width;
    for (size_t row = 0; row < tape->rows; row++) {
        const size_t place = t * tape->rows + row;
        const REAL *i = tape->gates + place * tape->gates_width + width, *c = tape->c + place * width;
        REAL *d_i = tape->d_gates + place * tape->gates_width + width, *d_c = tape->d_c + row * width;
        lstm_row_backward(i, i + width, i + 2 * width, i + 3 * width, starts(tape, place) ? tape->zeros : c, c + after,
                          tape->d_y + place * width, tape->d_cells ? tape->d_cells + place * width : tape->zeros,
                          tape->d_h + row * width, d_c, d_i, d_i + width, d_i + 2 * width, d_i + 3 * width, width);
        if (starts(tape, place))
            memset(d_c, 0, width * sizeof(REAL));
    }
}

/* Activates z and r in place; r m. */
void gru_read(const struct tape *tape, size_t t)
{
    const size_t width = tape->width;
    for (size_t place = t * tape->rows; place < (t + 1) * tape->rows; place++) {
        REAL *restrict z = tape->gates + place * tape->gates_width + width, *restrict r = z + width;
        const REAL *restrict m = tape->m + place * width;
        REAL *restrict reading = tape->reading + place * width;
        for (size_t n = 0; n < width; n++) {
            z[n] = SIGMOID(z[n]);
            r[n] = SIGMOID(r[n]);
            reading[n] = r[n] * m[n];
        }
    }
}

/* Activates n in place; h after position t. */
void gru_forward(const struct tape *tape, size_t t)
{
    const size_t width = tape->width, after = tape->rows * width;
    for (size_t place = t * tape->rows; place < (t + 1) * tape->rows; place++) {
        const REAL *restrict z = tape->gates + place * tape->gates_width + width;
        const REAL *restrict before = starts(tape, place) ? tape->zeros : tape->h + place * width;
        REAL *restrict candidate = tape->gates + place * tape->gates_width + 3 * width, *restrict h = tape->h + after + place * width;
        for (size_t n = 0; n < width; n++) {
            candidate[n] = TANH(candidate[n]);
            h[n] = before[n] + z[n] * (candidate[n] - before[n]);
        }
    }
}

/* The gradients of z and n before activation, and the part of d_h that (1 - z) h passes on. */
void gru_backward(const struct tape *tape, size_t t)
{
    const size_t width = tape->width;
    for (size_t row = 0; row < tape->rows; row++) {
        const size_t place = t * tape->rows + row;
        const REAL *restrict z = tape->gates + place * tape->gates_width + width, *restrict candidate = z + 2 * width;
        const REAL *restrict before = starts(tape, place) ? tape->zeros : tape->h + place * width;
        const REAL *restrict d_y = tape->d_y + place * width;
        REAL *restrict d_z = tape->d_gates + place * tape->gates_width + width, *restrict d_candidate = d_z + 2 * width;
        REAL *restrict d_h = tape->d_h + row * width;
        for (size_t n = 0; n < width; n++) {
            REAL h = d_y[n] + d_h[n];
            d_z[n] = h * (candidate[n] - before[n]) * z[n] * (1 - z[n]);
            d_candidate[n] = h * z[n] * (1 - candidate[n] * candidate[n]);
            d_h[n] = h * (1 - z[n]);
        }
        if (starts(tape, place))
            memset(d_h, 0, width * sizeof(REAL));
    }
}

/* d_m holds the gradient of r m and becomes what m receives through it; the gradient of r before activation. */
void gru_read_backward(const struct tape *tape, size_t t)
{
    const size_t width = tape->width;
    for (size_t row = 0; row < tape->rows; row++) {
        const size_t place = t * tape->rows + row;
        const REAL *restrict r = tape->gates + place * tape->gates_width + 2 * width, *restrict m = tape->m + place * width;
        REAL *restrict d_r = tape->d_gates + place * tape->gates_width + 2 * width, *restrict d_m = tape->d_m + row * width;
        for (size_t n = 0; n < width; n++) {
            d_r[n] = d_m[n] * m[n] * r[n] * (1 - r[n]);
            d_m[n] *= r[n];
        }
    }
}
