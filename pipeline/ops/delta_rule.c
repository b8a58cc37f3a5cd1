/* The delta rule and its gradient, one position at a time; equations and notation are those of delta_rule.py.
 *
 * Compiled on first use, once per dtype (REAL is float or double), and called through ctypes. Columns of the state interact only
 * through sums, so 64 columns (32 or 16 if fewer are left), which fit into the L1 cache for all rows, are processed over the whole sequence
 * at a time; the last ones are zero-padded. Sums over columns are kept in LANES partial sums, so that the result does not depend on the
 * vector width. Forward stores the state before each block of positions; backward recomputes the states within a block.
 */
#include <stddef.h>
#include <string.h>

#define LANES 16
#define MOST 4
#define COLUMNS (MOST * LANES)

typedef REAL vector __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

struct delta {
    const REAL *q, *k, *v;       /* (B, T, H, K), (B, T, H, K), (B, T, H, V) */
    const REAL *strength, *kept; /* (B, T, H); kept: a, or 0 where an episode starts */
    REAL *starts;  /* (B, H, blocks + 1, K, V): the initial state, then the state after each block of positions */
    REAL *scratch; /* forward (K, COLUMNS); backward (positions + 2, K, COLUMNS), 2 (positions, COLUMNS), 2 (K, LANES) */
    REAL *y;       /* (B, T, H, V) */
    const REAL *d_y;
    REAL *d_q, *d_k, *d_v, *d_strength, *d_kept; /* d_v is overwritten, the others are accumulated */
    REAL *carry; /* (B, H, K, V): in: gradient of the final state; out: gradient of the initial state */
    size_t rows, steps, heads, keys, values, positions; /* B, T, H, K, V; positions in a block */
};

/* Fused multiply-add must be requested: strict C11 rounds in between. No sum below has two products. */
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")

#define INLINE static inline __attribute__((always_inline))

/* Load a row of `count` numbers as `many` vectors, zero-padded. */
INLINE void take(const size_t many, vector *to, const REAL *from, size_t count)
{
    if (count == many * LANES) {
        for (size_t n = 0; n < many; n++)
            to[n] = *(const vector *)(from + n * LANES);
        return;
    }
    REAL whole[COLUMNS] = {0};
    memcpy(whole, from, count * sizeof(REAL));
    for (size_t n = 0; n < many; n++)
        to[n] = *(const vector *)(whole + n * LANES);
}

INLINE void put(const size_t many, REAL *to, const vector *from, size_t count)
{
    if (count == many * LANES)
        for (size_t n = 0; n < many; n++)
            *(vector *)(to + n * LANES) = from[n];
    else
        memcpy(to, from, count * sizeof(REAL));
}

/* Copy (K, V) in memory to (K, many) vectors in cache, and back. */
static void gather(size_t many, vector *to, const REAL *from, size_t keys, size_t values, size_t count)
{
    for (size_t i = 0; i < keys; i++, to += many, from += values)
        take(many, to, from, count);
}

static void scatter(size_t many, REAL *to, const vector *from, size_t keys, size_t values, size_t count)
{
    for (size_t i = 0; i < keys; i++, to += values, from += many)
        put(many, to, from, count);
}

static REAL sum(const vector *of)
{
    const REAL *x = (const REAL *)of;
    REAL eight[8], four[4];
    for (size_t p = 0; p < 8; p++)
        eight[p] = x[p] + x[p + 8];
    for (size_t p = 0; p < 4; p++)
        four[p] = eight[p] + eight[p + 4];
    return (four[0] + four[1]) + (four[2] + four[3]);
}

/* to[i] += the sum of parts[i]. */
static void add_sums(REAL *restrict to, const vector *restrict parts, size_t keys)
{
    for (size_t i = 0; i < keys; i++)
        to[i] += sum(parts + i);
}

/* Compute the state after a position (may alias `before`), u, and `missing` = u / strength. */
INLINE void advance(const size_t many, vector *after, const vector *before, vector *u, vector *missing, const vector *v, const REAL *k, REAL kept,
                    REAL strength, size_t keys)
{
    vector held[MOST] = {{0}};
    for (size_t i = 0; i < keys; i++)
#pragma GCC unroll 4
        for (size_t n = 0; n < many; n++) {
            const vector left = kept * before[i * many + n];
            after[i * many + n] = left;
            held[n] += k[i] * left;
        }
#pragma GCC unroll 4
    for (size_t n = 0; n < many; n++) {
        missing[n] = v[n] - held[n];
        u[n] = strength * missing[n];
    }
    for (size_t i = 0; i < keys; i++)
#pragma GCC unroll 4
        for (size_t n = 0; n < many; n++)
            after[i * many + n] += k[i] * u[n];
}

INLINE void read_state(const size_t many, vector *y, const vector *state, const REAL *q, size_t keys)
{
    vector found[MOST] = {{0}};
    for (size_t i = 0; i < keys; i++)
#pragma GCC unroll 4
        for (size_t n = 0; n < many; n++)
            found[n] += q[i] * state[i * many + n];
#pragma GCC unroll 4
    for (size_t n = 0; n < many; n++)
        y[n] = found[n];
}

/* Backward step: gradients of the operands; turns `carry` from the gradient of the state after the position into that of the state before. */
INLINE void retreat(const size_t many, vector *carry, const vector *after, const vector *before, const vector *d_y, const vector *u,
                    const vector *missing, vector *d_v, const REAL *q, const REAL *k, REAL kept, REAL strength, REAL *d_q, REAL *d_k,
                    REAL *d_strength, REAL *d_kept, vector *parts_q, vector *parts_k, size_t keys)
{
    vector d_u[MOST] = {{0}}, d_held[MOST], of_strength = {0}, of_kept = {0};
    for (size_t i = 0; i < keys; i++) {
        vector of_q = {0}, of_k = {0};
#pragma GCC unroll 4
        for (size_t n = 0; n < many; n++) {
            const vector d = carry[i * many + n] + q[i] * d_y[n];
            carry[i * many + n] = d;
            of_q += after[i * many + n] * d_y[n];
            of_k += d * u[n];
            d_u[n] += k[i] * d;
        }
        parts_q[i] = of_q;
        parts_k[i] = of_k;
    }
#pragma GCC unroll 4
    for (size_t n = 0; n < many; n++) {
        d_v[n] = strength * d_u[n];
        d_held[n] = -d_v[n];
        of_strength += d_u[n] * missing[n];
    }
    for (size_t i = 0; i < keys; i++) {
        vector of_left = {0};
#pragma GCC unroll 4
        for (size_t n = 0; n < many; n++) {
            const vector d = carry[i * many + n] + k[i] * d_held[n], earlier = before[i * many + n];
            of_left += earlier * d_held[n];
            of_kept += earlier * d;
            carry[i * many + n] = kept * d;
        }
        parts_k[i] += kept * of_left;
    }
    add_sums(d_q, parts_q, keys);
    add_sums(d_k, parts_k, keys);
    *d_strength += sum(&of_strength);
    *d_kept += sum(&of_kept);
}

#pragma GCC pop_options

static size_t least(size_t one, size_t other)
{
    return one < other ? one : other;
}

static size_t blocks(const struct delta *of)
{
    return (of->steps + of->positions - 1) / of->positions;
}

/* Columns `first` to `first + count` of one head of one row. */
INLINE void head_forward(const size_t many, const struct delta *of, size_t row, size_t head, size_t first, size_t count)
{
    const size_t whole = of->keys * of->values;
    vector *state = (vector *)of->scratch, v[MOST], u[MOST], missing[MOST];
    REAL *start = of->starts + (row * of->heads + head) * (blocks(of) + 1) * whole + first;
    gather(many, state, start, of->keys, of->values, count);
    for (size_t t = 0; t < of->steps; t++) {
        const size_t place = (row * of->steps + t) * of->heads + head;
        take(many, v, of->v + place * of->values + first, count);
        advance(many, state, state, u, missing, v, of->k + place * of->keys, of->kept[place], of->strength[place], of->keys);
        read_state(many, v, state, of->q + place * of->keys, of->keys);
        put(many, of->y + place * of->values + first, v, count);
        if ((t + 1) % of->positions == 0 || t + 1 == of->steps)
            scatter(many, start += whole, state, of->keys, of->values, count);
    }
}

INLINE void head_backward(const size_t many, const struct delta *of, size_t row, size_t head, size_t first, size_t count)
{
    const size_t whole = of->keys * of->values, size = of->keys * many, sequence = row * of->heads + head;
    vector *states = (vector *)of->scratch, *carry = states + (of->positions + 1) * size, *u = carry + size, *missing = u + of->positions * many;
    vector *parts_q = missing + of->positions * many, *parts_k = parts_q + of->keys, v[MOST], d_y[MOST];
    gather(many, carry, of->carry + sequence * whole + first, of->keys, of->values, count);
    for (size_t part = blocks(of); part-- > 0;) {
        const size_t begin = row * of->steps + part * of->positions, length = least(of->positions, of->steps - part * of->positions);
        gather(many, states, of->starts + (sequence * (blocks(of) + 1) + part) * whole + first, of->keys, of->values, count);
        for (size_t t = 0; t < length; t++) {
            const size_t place = (begin + t) * of->heads + head;
            take(many, v, of->v + place * of->values + first, count);
            advance(many, states + (t + 1) * size, states + t * size, u + t * many, missing + t * many, v, of->k + place * of->keys,
                    of->kept[place], of->strength[place], of->keys);
        }
        for (size_t t = length; t-- > 0;) {
            const size_t place = (begin + t) * of->heads + head, key = place * of->keys, value = place * of->values + first;
            take(many, d_y, of->d_y + value, count);
            retreat(many, carry, states + (t + 1) * size, states + t * size, d_y, u + t * many, missing + t * many, v, of->q + key, of->k + key,
                    of->kept[place], of->strength[place], of->d_q + key, of->d_k + key, of->d_strength + place, of->d_kept + place, parts_q,
                    parts_k, of->keys);
            put(many, of->d_v + value, v, count);
        }
    }
    scatter(many, of->carry + sequence * whole + first, carry, of->keys, of->values, count);
}

/* Call a function of this file for all columns of all heads of all rows. */
#define FOR_EACH_HEAD(function)                                                                                                                 \
    for (size_t row = 0; row < of->rows; row++)                                                                                                 \
        for (size_t head = 0; head < of->heads; head++)                                                                                         \
            for (size_t first = 0; first < of->values; first += COLUMNS) {                                                                      \
                const size_t count = least(COLUMNS, of->values - first);                                                                        \
                if (count > 2 * LANES)                                                                                                          \
                    function(4, of, row, head, first, count);                                                                                   \
                else if (count > LANES)                                                                                                         \
                    function(2, of, row, head, first, count);                                                                                   \
                else                                                                                                                            \
                    function(1, of, row, head, first, count);                                                                                   \
            }

/* Write y and all of starts but the first. */
void forward(const struct delta *of)
{
    FOR_EACH_HEAD(head_forward)
}

/* Write all gradients (d_*) and carry. */
void backward(const struct delta *of)
{
    FOR_EACH_HEAD(head_backward)
}
