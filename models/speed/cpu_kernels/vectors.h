// Vectors as wide as the processor's, and products of small matrices out of them, in float32 and in bf16.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define HAS_BF16 1
#else
#define HAS_BF16 0
#endif

#define INLINE inline __attribute__((always_inline))

// A tile of a product is ROWS x COLUMNS, as many sums as there are registers for: 32 of AVX-512 and of ARM, 16 of AVX2.
// KEYS are taken at a time: a multiple of both.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 14, KEYS = 224;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6, KEYS = 240;
#else
constexpr int LANES = 4, ROWS = 14, KEYS = 224;
#endif
constexpr int COLUMNS = 2 * LANES;
static_assert(KEYS % ROWS == 0 && KEYS % COLUMNS == 0, "");

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float LooseFloats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Floats load(const float* from) { return *(const LooseFloats*)from; }
INLINE void store(float* to, Floats values) { *(LooseFloats*)to = values; }
INLINE Floats all(float value) { return value - Floats{}; }
INLINE Floats choose(Ints mask, Floats yes, Floats no) { return (Floats)((mask & (Ints)yes) | (~mask & (Ints)no)); }
INLINE Floats higher(Floats a, Floats b) { return choose(a > b, a, b); }

INLINE float sum_of(Floats values) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += values[i];
    return sum;
}

INLINE float highest_of(Floats values) {
    float found = values[0];
    for (int i = 1; i < LANES; i++) found = values[i] > found ? values[i] : found;
    return found;
}

// 2 to the power of x <= 0, to 2e-7; 0 below the smallest normal number, and what is no number stays none. The
// polynomial is the best of its degree for the fraction, by relative error.
INLINE Floats power_of_two(Floats x) {
    const Floats rounder = all(12582912.0f);  // 1.5 * 2^23: adding it leaves no room for a fraction
    Floats shifted = x + rounder;
    Floats f = x - (shifted - rounder);
    Floats p = all(1.534581158230998e-4f);
    p = p * f + 1.3399931215492267e-3f;
    p = p * f + 9.618488958667737e-3f;
    p = p * f + 5.5503287769764514e-2f;
    p = p * f + 2.402264689061972e-1f;
    p = p * f + 6.931472057372609e-1f;
    p = p * f + 1.0f;
    Floats scaled = (Floats)((Ints)p + ((Ints)shifted << 23));
    return choose(x > all(-126.0f), scaled, choose(x != x, x, Floats{}));
}

// What a number type is in memory and in products. A Word is what a product takes at a time along the sum: one float,
// or two numbers of bf16 side by side.
struct Float32 {
    typedef float Number;
    typedef float Word;
    static constexpr int PER_WORD = 1;
    static INLINE float widen(Number value) { return value; }
    static INLINE Number narrow(float value) { return value; }
    static INLINE Floats multiply_add(Floats sum, Word left, const Word* right) { return sum + left * load(right); }
};

#if HAS_BF16
struct BFloat16 {
    typedef uint16_t Number;
    typedef uint32_t Word;
    static constexpr int PER_WORD = 2;
    static INLINE float widen(Number value) {
        uint32_t bits = (uint32_t)value << 16;
        float found;
        memcpy(&found, &bits, 4);
        return found;
    }
    static INLINE Number narrow(float value) {
        return (Number)_mm_cvtsi128_si32((__m128i)_mm_cvtneps_pbh(_mm_set_ss(value)));
    }
    static INLINE Floats multiply_add(Floats sum, Word left, const Word* right) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)left),
                                        (__m512bh)_mm512_loadu_si512(right));
    }
};
#endif

// found[ROWS][COLUMNS] (+)= left x right over ``deep`` words. Left: word (row, k) at row * ROW + k * DEEP. Right: a
// panel, COLUMNS words for each k. ``VECTORS``: 1 computes the first half of the columns only.
template <class N, int ROW, int DEEP, int VECTORS>
INLINE void tile_of(const typename N::Word* left, const typename N::Word* right, float* found, long stride, long deep,
                    bool add) {
    Floats sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) sums[r][v] = add ? load(found + r * stride + v * LANES) : Floats{};
#pragma GCC unroll 1
    for (long k = 0; k < deep; k++) {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++)
                sums[r][v] = N::multiply_add(sums[r][v], left[r * ROW + k * DEEP], right + k * COLUMNS + v * LANES);
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) store(found + r * stride + v * LANES, sums[r][v]);
}

// All columns of a product with ROWS rows; panels follow each other at a distance of ``panel`` words.
template <class N, int ROW, int DEEP>
INLINE void product(const typename N::Word* left, const typename N::Word* panels, long panel, float* found, long stride,
                    long deep, long columns, bool add) {
    for (; columns > LANES; columns -= COLUMNS, panels += panel, found += COLUMNS)
        tile_of<N, ROW, DEEP, 2>(left, panels, found, stride, deep, add);
    if (columns > 0) tile_of<N, ROW, DEEP, 1>(left, panels, found, stride, deep, add);
}
