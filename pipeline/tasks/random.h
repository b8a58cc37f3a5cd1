/* Random numbers: SplitMix64 (Steele et al. 2014), one generator per row, so that a row depends on its seed alone. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* The finaliser alone; the same function as `mix` in base.py. */
static inline uint64_t scramble(uint64_t value)
{
    value ^= value >> 30;
    value *= 0xBF58476D1CE4E5B9u;
    value ^= value >> 27;
    value *= 0x94D049BB133111EBu;
    return value ^ value >> 31;
}

static inline uint64_t next_word(uint64_t *state)
{
    return scramble(*state += 0x9E3779B97F4A7C15u);
}

/* A number of 0..count-1; the bias of less than count / 2^32 is far below what any sample shows. */
static inline uint32_t below(uint64_t *state, uint32_t count)
{
    return (uint32_t)((next_word(state) >> 32) * count >> 32);
}

/* A random order of the numbers first..first+count-1. */
static inline void shuffled(uint64_t *state, uint8_t *order, uint32_t first, uint32_t count)
{
    for (uint32_t index = 0; index < count; index++) {
        const uint32_t place = below(state, index + 1);
        order[index] = order[place];
        order[place] = (uint8_t)(first + index);
    }
}

#endif
