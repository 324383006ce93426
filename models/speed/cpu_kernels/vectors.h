// Vectors as wide as the processor's, and products of small matrices out of them, in float32 and in bf16.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
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

#if defined(__AVX512F__)
INLINE float sum_of(Floats values) { return _mm512_reduce_add_ps((__m512)values); }
INLINE float highest_of(Floats values) { return _mm512_reduce_max_ps((__m512)values); }
#elif defined(__AVX2__)
template <class Join>
INLINE float joined(Floats values, Join join) {
    __m128 four = join(_mm256_castps256_ps128((__m256)values), _mm256_extractf128_ps((__m256)values, 1));
    __m128 two = join(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(join(two, _mm_movehdup_ps(two)));
}
INLINE float sum_of(Floats values) {
    return joined(values, [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
}
INLINE float highest_of(Floats values) {
    return joined(values, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}
#else
INLINE float sum_of(Floats values) { return (values[0] + values[2]) + (values[1] + values[3]); }
INLINE float highest_of(Floats values) {
    float found = values[0];
    for (int i = 1; i < LANES; i++) found = values[i] > found ? values[i] : found;
    return found;
}
#endif

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

// Numbers of float32 or of bf16 in memory, as vectors of float32; ``count`` of them, zeros beyond.
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t LooseHalves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));

INLINE Floats read(const float* from) { return load(from); }
INLINE Floats read(const uint16_t* from) {
    return (Floats)(__builtin_convertvector((Halves) * (const LooseHalves*)from, Bits) << 16);
}
INLINE void write(float* to, Floats values) { store(to, values); }
INLINE void write(uint16_t* to, Floats values) {
#if HAS_BF16
    *(LooseHalves*)to = (Halves)_mm512_cvtneps_pbh((__m512)values);
#else
    const Bits bits = (Bits)values, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Bits found = (Bits)choose(values != values, (Floats)((bits >> 16) | 0x40), (Floats)rounded);
    *(LooseHalves*)to = __builtin_convertvector(found, Halves);
#endif
}
template <class T>
INLINE Floats read(const T* from, long count) {
    if (count >= LANES) return read(from);
    T some[LANES] = {};
    memcpy(some, from, count * sizeof(T));
    return read(some);
}
template <class T>
INLINE void write(T* to, Floats values, long count) {
    if (count >= LANES) return write(to, values);
    T some[LANES];
    write(some, values);
    memcpy(to, some, count * sizeof(T));
}

// Dropout whose mask is a function of a seed and of an entry's row and column, so that it is never kept.
struct Dropout {
    uint64_t seed;
    int64_t limit;  // 2^32 times the probability; 0: nothing is dropped

    struct Row {
        uint32_t first, second;
    };

    float scale() const { return (float)(4294967296.0 / (4294967296.0 - (double)limit)); }
    INLINE Row row(uint64_t number) const {  // Steele, Lea and Flood's splitmix64
        uint64_t z = seed + (number + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        return {(uint32_t)z, (uint32_t)(z >> 32)};
    }
    // All bits set where an entry is kept; ``column`` is that of the first.
    INLINE Ints kept(Row row, long column) const {
        Bits x;
        for (int i = 0; i < LANES; i++) x[i] = i;
        x = (x + (uint32_t)column) * 0x9e3779b9u + row.first;  // then a mixing by Wellons, with a key in its middle
        x = (x ^ (x >> 16)) * 0x7feb352du ^ row.second;
        x = (x ^ (x >> 15)) * 0x846ca68bu;
        x ^= x >> 16;
        return (Ints)(x ^ 0x80000000u) >= (int32_t)((uint32_t)limit ^ 0x80000000u);
    }
    INLINE Floats applied(Floats values, Row row, long column, float scale) const {
        return (Floats)((Ints)(values * scale) & kept(row, column));
    }
};

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
