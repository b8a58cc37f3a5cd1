/* Scalar functions that the compiler can vectorise, unlike calls to libm. */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Fused multiply-add where the processor has it; strict C11 rounds in between. */
#ifdef __FP_FAST_FMAF
#define MULADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MULADD(a, b, c) ((a) * (b) + (c))
#endif

/* exp, with the argument clamped to -87 .. 87; after Cephes. Sigmoid and tanh then have a relative error of at most 1.5e-7.
 * Adding 1.5 * 2^23 rounds to an integer, held in the low bits. */
static inline float exp_float(float x)
{
    const float magic = 12582912.0f;
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float shifted = MULADD(x, 1.44269504088896341f, magic), n = shifted - magic, scale;
    float r = MULADD(n, 2.12194440e-4f, MULADD(n, -0.693359375f, x));
    float p = MULADD(1.9875691500e-4f, r, 1.3981999507e-3f);
    p = MULADD(p, r, 8.3334519073e-3f);
    p = MULADD(p, r, 4.1665795894e-2f);
    p = MULADD(p, r, 1.6666665459e-1f);
    p = MULADD(p, r, 5.0000001201e-1f);
    p = MULADD(p * r, r, r) + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static inline float sigmoid_float(float x)
{
    return 1.0f / (1.0f + exp_float(-x));
}

static inline double sigmoid_double(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

#define SIGMOID _Generic((REAL)0, float: sigmoid_float, double: sigmoid_double)
