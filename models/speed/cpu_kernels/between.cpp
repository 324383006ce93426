// What lies between the matrix products of a transformer: a residual added and the sum normalised, and GELU, each in
// one pass over memory, with dropout. Nothing depends on the number of threads.

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

template <class C, class O>
INLINE void norm_row(const Norm& p, long r, float eps, float keep) {
    const long width = p.width;
    const float* values = p.values + r * width;
    const C* change = (const C*)p.change + r * width;
    float* total = p.total + r * width;
    Floats sum = Floats{};
    if (p.change) {
        const Dropout::Row masked = p.dropout.row(r);
        for (long c = 0; c < width; c += LANES) {
            Floats more = read(change + c, width - c);
            if (p.dropout.limit) more = p.dropout.applied(more, masked, c, keep);
            more += read(values + c, width - c);
            write(total + c, more, width - c);
            sum += more;
        }
    } else {
        for (long c = 0; c < width; c += LANES) sum += read(values + c, width - c);
    }
    const float mean = sum_of(sum) / width;
    sum = Floats{};
    long c = 0;
    for (; c + LANES <= width; c += LANES) sum += (load(total + c) - mean) * (load(total + c) - mean);
    float square = sum_of(sum);
    for (; c < width; c++) square += (total[c] - mean) * (total[c] - mean);
    const float scale = 1 / sqrtf(square / width + eps);
    O* normed = (O*)p.normed + r * width;
    for (c = 0; c < width; c += LANES) {
        const Floats unit = (read(total + c, width - c) - mean) * scale;
        write(normed + c, unit * read(p.weight + c, width - c) + read(p.bias + c, width - c), width - c);
    }
    p.means[r] = mean, p.scales[r] = scale;
}

template <class C, class O>
INLINE void norm_row_back(const Norm& p, long r, float keep, float* to_weight) {
    const long width = p.width;
    const float *total = p.total + r * width, mean = p.means[r], scale = p.scales[r];
    const O* upstream = (const O*)p.normed + r * width;
    Floats along = Floats{}, middle = Floats{};
    for (long c = 0; c < width; c += LANES) {
        const Floats given = read(upstream + c, width - c), gradient = given * read(p.weight + c, width - c);
        const Floats unit = (read(total + c, width - c) - mean) * scale;
        along += gradient * unit, middle += gradient;  // zeros beyond the width
        if (to_weight) {
            float* to_bias = to_weight + width;
            write(to_weight + c, read(to_weight + c, width - c) + given * unit, width - c);
            write(to_bias + c, read(to_bias + c, width - c) + given, width - c);
        }
    }
    const float by_unit = sum_of(along) / width, by_one = sum_of(middle) / width;
    const Dropout::Row masked = p.dropout.row(r);
    for (long c = 0; c < width; c += LANES) {
        const Floats gradient = read(upstream + c, width - c) * read(p.weight + c, width - c);
        const Floats unit = (read(total + c, width - c) - mean) * scale;
        Floats found = (gradient - unit * by_unit - by_one) * scale;
        if (p.to_total) found += read(p.to_total + r * width + c, width - c);
        write(p.to_values + r * width + c, found, width - c);
        if (!p.to_change) continue;
        if (p.dropout.limit) found = p.dropout.applied(found, masked, c, keep);
        write((C*)p.to_change + r * width + c, found, width - c);
    }
}

template <class C, class O>
void norm(const Norm& p, float eps, int backward, int threads) {
    const float keep = p.dropout.scale();
    in_parallel((p.rows + CHUNK - 1) / CHUNK, p.rows * p.width, threads, [&](long chunk) {
        float* to_weight = p.to_weights ? p.to_weights + chunk * 2 * p.width : nullptr;
        const long last = (chunk + 1) * CHUNK < p.rows ? (chunk + 1) * CHUNK : p.rows;
        for (long r = chunk * CHUNK; r < last; r++)
            backward ? norm_row_back<C, O>(p, r, keep, to_weight) : norm_row<C, O>(p, r, eps, keep);
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

// ``numbers``: see ``between.py``, which fills them.
extern "C" void add_norm(const long* numbers, float eps, int backward, int threads) {
    Norm p;
    memcpy(&p, numbers, sizeof(p));
    if (p.change_is_half)
        p.normed_is_half ? norm<uint16_t, uint16_t>(p, eps, backward, threads)
                         : norm<uint16_t, float>(p, eps, backward, threads);
    else
        p.normed_is_half ? norm<float, uint16_t>(p, eps, backward, threads)
                         : norm<float, float>(p, eps, backward, threads);
}

extern "C" void gelu(const long* numbers, int threads) {
    Gelu p;
    memcpy(&p, numbers, sizeof(p));
    p.is_half ? gelu<uint16_t>(p, threads) : gelu<float>(p, threads);
}
