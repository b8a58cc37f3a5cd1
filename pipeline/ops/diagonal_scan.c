/* The complex diagonal recurrence h[t] = a h[t-1] + u[t] and its gradient, row by row.
 *
 * Compiled on first use, once per dtype (REAL is float or double), and called through ctypes; equations are in diagonal_scan.py.
 * A position holds `states` real parts, then `states` imaginary parts. Sums run over positions, never across lanes,
 * so the compiler vectorises without reordering and the result does not depend on the vector width.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Prefetch distance of the backward loop in positions; by then the states are no longer in cache. */
#define AHEAD 8

static void advance(REAL *restrict now, const REAL *restrict before, const REAL *restrict decay, size_t states)
{
    const REAL *restrict a_re = decay, *restrict a_im = decay + states;
    for (size_t n = 0; n < states; n++) {
        REAL re = before[n], im = before[n + states];
        now[n] += a_re[n] * re - a_im[n] * im;
        now[n + states] += a_re[n] * im + a_im[n] * re;
    }
}

/* carry = conj(a) g, and d_decay += g conj(before). */
static void retreat(const REAL *restrict g, const REAL *restrict before, const REAL *restrict decay, REAL *restrict carry,
                    REAL *restrict d_decay, size_t states)
{
    const REAL *restrict a_re = decay, *restrict a_im = decay + states;
    for (size_t n = 0; n < states; n++) {
        REAL g_re = g[n], g_im = g[n + states], h_re = before[n], h_im = before[n + states];
        carry[n] = a_re[n] * g_re + a_im[n] * g_im;
        carry[n + states] = a_re[n] * g_im - a_im[n] * g_re;
        d_decay[n] += g_re * h_re + g_im * h_im;
        d_decay[n + states] += g_im * h_re - g_re * h_im;
    }
}

/* h (rows, steps, 2 states): in u, out h; start (rows, 2 states); reset (rows, steps) or NULL. */
void forward(REAL *h, const REAL *decay, const REAL *start, const uint8_t *reset, size_t rows, size_t steps, size_t states)
{
    const size_t width = 2 * states;
    for (size_t row = 0; row < rows; row++) {
        const REAL *before = start + row * width;
        for (size_t t = 0; t < steps; t++) {
            REAL *now = h + (row * steps + t) * width;
            if (!reset || !reset[row * steps + t])
                advance(now, before, decay, states);
            before = now;
        }
    }
}

/* g (rows, steps, 2 states): in dL/dh of each position alone, out dL/du; carry (rows, 2 states): in the gradient of the last state from
 * later positions, out the gradient of `start`; d_decay (2 states) is accumulated. */
void backward(REAL *g, const REAL *h, const REAL *decay, const REAL *start, const uint8_t *reset, REAL *carry, REAL *d_decay,
              size_t rows, size_t steps, size_t states)
{
    const size_t width = 2 * states;
    for (size_t row = 0; row < rows; row++) {
        REAL *into = carry + row * width;
        for (size_t t = steps; t-- > 0;) {
            const size_t place = row * steps + t;
            REAL *now = g + place * width;
            for (size_t n = 0; n < width && place >= AHEAD; n += 64 / sizeof(REAL))
                __builtin_prefetch(h + (place - AHEAD) * width + n);
            for (size_t n = 0; n < width; n++)
                now[n] += into[n];
            if (reset && reset[place])
                memset(into, 0, width * sizeof(REAL));
            else
                retreat(now, t ? h + (place - 1) * width : start + row * width, decay, into, d_decay, states);
        }
    }
}
