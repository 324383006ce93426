// What lies between the matrix products of a transformer: a residual added and the sum normalised, and GELU, each in
// one pass over memory, with dropout. Nothing depends on the number of threads.

#pragma once

#include <cmath>
#include <cstddef>

#include "vectors.h"

namespace {

constexpr long CHUNK = 32;      // rows of a norm, whose gradients of weights are summed up apart
constexpr long BLOCK = 1 << 12;  // entries of GELU at a time
constexpr long WORTH = 1 << 17;  // entries for which a second thread is woken

struct Norm {
    const float* values;
    char* change;  // or none
    float* total;  // of both; ``values`` without a change
    char* normed;
    float *means, *scales;
    const float *weight, *bias;
    float *to_total, *to_values;  // what flows into ``total``, or none
    char* to_change;              // where it is not the same as ``to_values``, or none
    float* to_weights;            // (chunks, 2, width) of weight and bias, or none
    long rows, width, change_is_half, normed_is_half;
    Dropout dropout;  // of the change
};

template <class F>
void in_parallel(long parts, long entries, int threads, F work) {
    const int used = entries < WORTH ? 1 : threads;
#pragma omp parallel for schedule(static) num_threads(used) if (used > 1)
    for (long i = 0; i < parts; i++) work(i);
}

// A row to its norm; its mean and its scale are kept for the backward.
template <class O>
INLINE void norm_row(const float* row, O* normed, const float* weight, const float* bias, long width, float eps,
                     float* mean_of, float* scale_of) {
    Floats sum = Floats{};
    for (long c = 0; c < width; c += LANES) sum += read(row + c, width - c);
    const float mean = sum_of(sum) / width;
    sum = Floats{};
    long c = 0;
    for (; c + LANES <= width; c += LANES) sum += (load(row + c) - mean) * (load(row + c) - mean);
    float square = sum_of(sum);
    for (; c < width; c++) square += (row[c] - mean) * (row[c] - mean);
    const float scale = 1 / sqrtf(square / width + eps);
    for (c = 0; c < width; c += LANES) {
        const Floats unit = (read(row + c, width - c) - mean) * scale;
        write(normed + c, unit * read(weight + c, width - c) + read(bias + c, width - c), width - c);
    }
    *mean_of = mean, *scale_of = scale;
}

// What flows from a row's norm into the row, handed on to ``each`` a vector at a time; ``unit_of``: see its use.
template <class O, class U, class F>
INLINE void norm_row_back(const float* row, const O* upstream, const float* weight, long width, float mean, float scale,
                          U unit_of, F each) {
    Floats along = Floats{}, middle = Floats{};
    for (long c = 0; c < width; c += LANES) {
        const Floats given = read(upstream + c, width - c), gradient = given * read(weight + c, width - c);
        const Floats unit = (read(row + c, width - c) - mean) * scale;
        along += gradient * unit, middle += gradient;  // zeros beyond the width
        unit_of(c, given, unit);
    }
    const float by_unit = sum_of(along) / width, by_one = sum_of(middle) / width;
    for (long c = 0; c < width; c += LANES) {
        const Floats gradient = read(upstream + c, width - c) * read(weight + c, width - c);
        const Floats unit = (read(row + c, width - c) - mean) * scale;
        each(c, (gradient - unit * by_unit - by_one) * scale);
    }
}

template <class C, class O>
INLINE void add_norm_row(const Norm& p, long r, float eps, float keep) {
    const long width = p.width;
    float* total = p.total + r * width;
    if (p.change) {
        const float* values = p.values + r * width;
        const C* change = (const C*)p.change + r * width;
        const Dropout::Row masked = p.dropout.row(r);
        for (long c = 0; c < width; c += LANES) {
            Floats more = read(change + c, width - c);
            if (p.dropout.limit) more = p.dropout.applied(more, masked, c, keep);
            write(total + c, more + read(values + c, width - c), width - c);
        }
    }
    norm_row(total, (O*)p.normed + r * width, p.weight, p.bias, width, eps, p.means + r, p.scales + r);
}

template <class C, class O>
INLINE void add_norm_row_back(const Norm& p, long r, float keep, float* to_weight) {
    const long width = p.width, first = r * width;
    const Dropout::Row masked = p.dropout.row(r);
    auto sum_up = [&](long c, Floats given, Floats unit) {
        if (!to_weight) return;
        float* to_bias = to_weight + width;
        write(to_weight + c, read(to_weight + c, width - c) + given * unit, width - c);
        write(to_bias + c, read(to_bias + c, width - c) + given, width - c);
    };
    auto hand_on = [&](long c, Floats found) {
        if (p.to_total) found += read(p.to_total + first + c, width - c);
        write(p.to_values + first + c, found, width - c);
        if (!p.to_change) return;
        if (p.dropout.limit) found = p.dropout.applied(found, masked, c, keep);
        write((C*)p.to_change + first + c, found, width - c);
    };
    norm_row_back(p.total + first, (const O*)p.normed + first, p.weight, width, p.means[r], p.scales[r], sum_up,
                  hand_on);
}

template <class C, class O>
void norm(const Norm& p, float eps, int backward, int threads) {
    const float keep = p.dropout.scale();
    in_parallel((p.rows + CHUNK - 1) / CHUNK, p.rows * p.width, threads, [&](long chunk) {
        float* to_weight = p.to_weights ? p.to_weights + chunk * 2 * p.width : nullptr;
        const long last = (chunk + 1) * CHUNK < p.rows ? (chunk + 1) * CHUNK : p.rows;
        for (long r = chunk * CHUNK; r < last; r++)
            backward ? add_norm_row_back<C, O>(p, r, keep, to_weight) : add_norm_row<C, O>(p, r, eps, keep);
    });
}

struct Gelu {
    const char* values;
    char *out, *slope;  // the slope: or none
    long count, is_half;
    Dropout dropout;
};

// x Phi(x), and its slope Phi(x) + x phi(x), of which both share an exponential. Phi(-|x|) exp(x^2 / 2) is a polynomial
// in 1 / (1 + 0.23 |x|), the best of its degree by relative error, which is 1.3e-7.
INLINE Floats gelu_of(Floats x, Floats& slope) {
    const Floats power = power_of_two(x * x * -0.7213475204444817f);
    const Floats t = 1 / (1 + 0.2316419f * (Floats)((Ints)x & 0x7fffffff));
    Floats series = all(-0.07042385633518712f);
    series = series * t + 0.24768538771631485f;
    series = series * t + -0.20165799544514879f;
    series = series * t + 0.22525095625399696f;
    series = series * t + 0.013553204415232044f;
    series = series * t + 0.10264996117455451f;
    series = series * t + 0.09042016293124663f;
    series = series * t + 0.09252224363898433f;
    const Floats beyond = series * t * power, below = choose(x < 0, beyond, 1 - beyond);
    slope = below + x * power * 0.3989422804014327f;
    return x * below;
}

template <class T>
void gelu(const Gelu& p, int threads) {
    const float keep = p.dropout.scale();
    in_parallel((p.count + BLOCK - 1) / BLOCK, p.count, threads, [&](long block) {
        const long first = block * BLOCK, count = p.count - first < BLOCK ? p.count - first : BLOCK;
        const Dropout::Row masked = p.dropout.row(block);
        const T* values = (const T*)p.values + first;
        T *out = (T*)p.out + first, *to = (T*)p.slope + first;
        for (long c = 0; c < count; c += LANES) {
            Floats slope, found = gelu_of(read(values + c, count - c), slope);
            if (p.dropout.limit) {
                const Floats kept = p.dropout.applied(all(1), masked, c, keep);
                found *= kept, slope *= kept;
            }
            write(out + c, found, count - c);
            if (p.slope) write(to + c, slope, count - c);
        }
    });
}

}  // namespace
