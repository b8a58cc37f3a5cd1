/* The real diagonal recurrence h[t] = a[t] h[t-1] + u[t], with a separate decay at every position, and its gradient; row by row.
 *
 * Compiled on first use, once per dtype (REAL is float or double), and called through ctypes; equations are in gated_scan.py.
 * Channels are independent, so the compiler vectorises over channels and the result does not depend on the vector width.
 */
#include <stddef.h>
#include <string.h>

/* Write h; h, decay, u (rows, steps, width), start (rows, width). */
void forward(REAL *restrict h, const REAL *restrict decay, const REAL *restrict u, const REAL *restrict start, size_t rows, size_t steps,
             size_t width)
{
    for (size_t row = 0; row < rows; row++) {
        const REAL *before = start + row * width;
        for (size_t t = 0; t < steps; t++) {
            const size_t place = (row * steps + t) * width;
            for (size_t n = 0; n < width; n++)
                h[place + n] = decay[place + n] * before[n] + u[place + n];
            before = h + place;
        }
    }
}

/* Write d_decay, d_u (rows, steps, width) and d_start (rows, width); d_h holds dL/dh of each position alone. */
void backward(REAL *restrict d_decay, REAL *restrict d_u, REAL *restrict d_start, const REAL *restrict d_h, const REAL *restrict h,
              const REAL *restrict decay, const REAL *restrict start, size_t rows, size_t steps, size_t width)
{
    memset(d_start, 0, rows * width * sizeof(REAL));
    for (size_t row = 0; row < rows; row++) {
        REAL *restrict carry = d_start + row * width;
        for (size_t t = steps; t-- > 0;) {
            const size_t place = (row * steps + t) * width;
            const REAL *restrict before = t ? h + place - width : start + row * width;
            for (size_t n = 0; n < width; n++) {
                const REAL g = d_h[place + n] + carry[n];
                d_u[place + n] = g;
                d_decay[place + n] = g * before[n];
                carry[n] = g * decay[place + n];
            }
        }
    }
}
