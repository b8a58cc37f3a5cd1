/* The selective scan and its gradient; equations and notation are those of selective_scan.py.
 *
 * Compiled on first use, once per dtype (REAL is float or double), and called through ctypes. LANES channels are processed at a time,
 * with all their states in cache; the last ones are zero-padded. Sums over channels are kept in PARTS partial sums, so that the
 * compiler vectorises without reordering and the result does not depend on the vector width. Forward stores the states before each
 * chunk of positions; backward recomputes the states within a chunk.
 */
#include <stddef.h>

#include "pointwise.h"

#define LANES 64
#define PARTS 16
#define EXP _Generic((REAL)0, float: exp_float, double: exp)
#ifdef __FP_FAST_FMAF
#define FUSED _Generic((REAL)0, float: fmaf, double: fma)
#else
#define FUSED(a, b, c) ((a) * (b) + (c))
#endif

const size_t lanes = LANES, parts = PARTS;

struct scan {
    const REAL *x, *step;       /* (B, T, E) */
    const REAL *rate;           /* (N, E) */
    const REAL *write, *read;   /* (B, T, N) */
    const REAL *skip;           /* (E) */
    const uint8_t *reset;       /* (B, T) or NULL */
    REAL *starts;               /* (B, chunks + 1, N, E): the initial state, then the state after each chunk */
    REAL *scratch;              /* (2 chunk + 4, N, LANES) */
    size_t rows, steps, width, states, chunk;
};

/* Operands of one position for one block of channels. */
struct position {
    REAL x[LANES], step[LANES];
    const REAL *write, *read;
    REAL kept; /* 0 where an episode starts, else 1 */
};

static void take(REAL *restrict block, const REAL *restrict from, size_t count)
{
    memcpy(block, from, count * sizeof(REAL));
    memset(block + count, 0, (LANES - count) * sizeof(REAL));
}

/* Copy (states, width) in memory to (states, LANES) in cache, and back. */
static void gather(REAL *restrict block, const REAL *restrict whole, size_t count, const struct scan *of)
{
    for (size_t n = 0; n < of->states; n++)
        take(block + n * LANES, whole + n * of->width, count);
}

static void scatter(REAL *restrict whole, const REAL *restrict block, size_t count, const struct scan *of)
{
    for (size_t n = 0; n < of->states; n++)
        memcpy(whole + n * of->width, block + n * LANES, count * sizeof(REAL));
}

static void find(struct position *now, const struct scan *of, size_t place, size_t first, size_t count)
{
    take(now->x, of->x + place * of->width + first, count);
    take(now->step, of->step + place * of->width + first, count);
    now->write = of->write + place * of->states;
    now->read = of->read + place * of->states;
    now->kept = !(of->reset && of->reset[place]);
}

/* Update h in place and compute y. */
static void advance(REAL *restrict y, REAL *restrict h, const REAL *restrict rate, const REAL *restrict skip,
                    const struct position *restrict now, size_t states)
{
    REAL u[LANES];
    for (size_t i = 0; i < LANES; i++) {
        u[i] = now->step[i] * now->x[i];
        y[i] = skip[i] * now->x[i];
    }
    for (size_t n = 0; n < states; n++, h += LANES, rate += LANES) {
        const REAL b = now->write[n], c = now->read[n], kept = now->kept;
        for (size_t i = 0; i < LANES; i++) {
            h[i] = FUSED(u[i], b, kept * EXP(now->step[i] * rate[i]) * h[i]);
            y[i] = FUSED(h[i], c, y[i]);
        }
    }
}

/* Recompute the state after a position, and the decay of the previous state. */
static void again(REAL *restrict after, REAL *restrict decay, const REAL *restrict before, const REAL *restrict rate,
                  const struct position *restrict now, size_t states)
{
    REAL u[LANES];
    for (size_t i = 0; i < LANES; i++)
        u[i] = now->step[i] * now->x[i];
    for (size_t n = 0; n < states; n++, after += LANES, decay += LANES, before += LANES, rate += LANES) {
        const REAL b = now->write[n], kept = now->kept;
        for (size_t i = 0; i < LANES; i++) {
            decay[i] = kept * EXP(now->step[i] * rate[i]);
            after[i] = FUSED(u[i], b, decay[i] * before[i]);
        }
    }
}

/* Gradients accumulated over positions, for one block of channels. */
struct sums {
    REAL *rate, *carry; /* (N, LANES); carry: in the gradient of the state after a position, out that of the state before */
    REAL skip[LANES];
};

static void retreat(REAL *restrict d_x, REAL *restrict d_step, REAL *restrict d_write, REAL *restrict d_read, struct sums *sums,
                    const REAL *restrict d_y, const REAL *restrict after, const REAL *restrict before, const REAL *restrict decay,
                    const REAL *restrict rate, const REAL *restrict skip, const struct position *restrict now, size_t states)
{
    REAL u[LANES], d_u[LANES] = {0}, d_s[LANES] = {0}, *restrict carry = sums->carry, *restrict d_rate = sums->rate;
    for (size_t i = 0; i < LANES; i++)
        u[i] = now->step[i] * now->x[i];
    for (size_t n = 0; n < states; n++) {
        const REAL b = now->write[n], c = now->read[n];
        for (size_t i = 0; i < LANES; i += PARTS)
            for (size_t j = i; j < i + PARTS; j++) {
                REAL g = FUSED(d_y[j], c, carry[j]), kept = g * decay[j], of_decay = kept * before[j];
                d_write[j - i] = FUSED(g, u[j], d_write[j - i]);
                d_read[j - i] = FUSED(d_y[j], after[j], d_read[j - i]);
                d_u[j] = FUSED(g, b, d_u[j]);
                d_s[j] = FUSED(of_decay, rate[j], d_s[j]);
                d_rate[j] = FUSED(of_decay, now->step[j], d_rate[j]);
                carry[j] = kept;
            }
        d_write += PARTS, d_read += PARTS, carry += LANES, d_rate += LANES;
        after += LANES, before += LANES, decay += LANES, rate += LANES;
    }
    for (size_t i = 0; i < LANES; i++) {
        d_x[i] = FUSED(d_u[i], now->step[i], d_y[i] * skip[i]);
        d_step[i] = FUSED(d_u[i], now->x[i], d_s[i]);
        sums->skip[i] = FUSED(d_y[i], now->x[i], sums->skip[i]);
    }
}

static size_t least(size_t one, size_t other)
{
    return one < other ? one : other;
}

static size_t chunks(const struct scan *of)
{
    return (of->steps + of->chunk - 1) / of->chunk;
}

/* Write y (B, T, E) and starts. */
void forward(const struct scan *of, REAL *y)
{
    const size_t whole = of->states * of->width;
    REAL *h = of->scratch, *rate = h + of->states * LANES, skip[LANES], to_y[LANES];
    struct position now;
    for (size_t first = 0; first < of->width; first += LANES) {
        const size_t count = least(LANES, of->width - first);
        gather(rate, of->rate + first, count, of);
        take(skip, of->skip + first, count);
        for (size_t row = 0; row < of->rows; row++) {
            REAL *start = of->starts + row * (chunks(of) + 1) * whole + first;
            gather(h, start, count, of);
            for (size_t t = 0; t < of->steps; t++) {
                find(&now, of, row * of->steps + t, first, count);
                advance(to_y, h, rate, skip, &now, of->states);
                memcpy(y + (row * of->steps + t) * of->width + first, to_y, count * sizeof(REAL));
                if ((t + 1) % of->chunk == 0 || t + 1 == of->steps)
                    scatter(start += whole, h, count, of);
            }
        }
    }
}

/* Write d_x, d_step (B, T, E); accumulate d_write, d_read (B, T, N, PARTS), d_rate (N, E), d_skip (E); carry (B, N, E): in the gradient
 * of the final state, out that of the initial state; d_y (B, T, E). */
void backward(const struct scan *of, const REAL *d_y, REAL *d_x, REAL *d_step, REAL *d_write, REAL *d_read, REAL *d_rate, REAL *d_skip,
              REAL *carry)
{
    const size_t whole = of->states * of->width, block = of->states * LANES;
    REAL *rate = of->scratch, *decay = rate + 3 * block, *h = decay + of->chunk * block;
    REAL skip[LANES], from[LANES], to_x[LANES], to_step[LANES];
    struct sums sums = {rate + block, rate + 2 * block, {0}};
    struct position now;
    for (size_t first = 0; first < of->width; first += LANES) {
        const size_t count = least(LANES, of->width - first);
        gather(rate, of->rate + first, count, of);
        gather(sums.rate, d_rate + first, count, of);
        take(skip, of->skip + first, count);
        take(sums.skip, d_skip + first, count);
        for (size_t row = 0; row < of->rows; row++) {
            gather(sums.carry, carry + row * whole + first, count, of);
            for (size_t part = chunks(of); part-- > 0;) {
                const size_t begin = row * of->steps + part * of->chunk, length = least(of->chunk, of->steps - part * of->chunk);
                gather(h, of->starts + (row * (chunks(of) + 1) + part) * whole + first, count, of);
                for (size_t t = 0; t < length; t++) {
                    find(&now, of, begin + t, first, count);
                    again(h + (t + 1) * block, decay + t * block, h + t * block, rate, &now, of->states);
                }
                for (size_t t = length; t-- > 0;) {
                    const size_t place = begin + t, sum = place * of->states * PARTS;
                    find(&now, of, place, first, count);
                    take(from, d_y + place * of->width + first, count);
                    retreat(to_x, to_step, d_write + sum, d_read + sum, &sums, from, h + (t + 1) * block, h + t * block,
                            decay + t * block, rate, skip, &now, of->states);
                    memcpy(d_x + place * of->width + first, to_x, count * sizeof(REAL));
                    memcpy(d_step + place * of->width + first, to_step, count * sizeof(REAL));
                }
            }
            scatter(carry + row * whole + first, sums.carry, count, of);
        }
        scatter(d_rate + first, sums.rate, count, of);
        memcpy(d_skip + first, sums.skip, count * sizeof(REAL));
    }
}
