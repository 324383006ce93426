// Attention in which a frame's tokens see those of its own and of earlier frames, forward and backward.
//
// The unit of work is one head of one sequence: its keys and values are laid out once for the products, its queries are
// taken a few at a time, so that scores never leave the cache. Nothing depends on the number of threads.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdlib>

#include "vectors.h"

namespace {

constexpr long QUERIES = 7 * ROWS;  // of the backward at a time

struct Matrix {  // (batch, heads, rows, width) numbers, or none; strides in numbers, along the width 1
    char* start;
    long batch, head, row;
};

struct Problem {
    Matrix query, key, value, out, upstream, to_query, to_key, to_value;
    float* level;  // (batch, heads, queries): logarithm to base 2 of the sum that the softmax divides by
    long count, heads, queries, keys, frame, width;
    Dropout dropout;  // of weights
    float scale;
    long terms;  // 0, or: keys are the values too, of which only so many numbers are not zero; gradients of both are one
};

template <class N>
typename N::Number* part(const Matrix& matrix, long batch, long head, long row = 0) {
    return (typename N::Number*)matrix.start + batch * matrix.batch + head * matrix.head + row * matrix.row;
}

// Room of this thread that stays its own until it ends: fresh memory would cost more than a head's arithmetic.
char* room(size_t bytes) {
    struct Held {
        char* start = nullptr;
        size_t size = 0;
        ~Held() { free(start); }
    };
    static thread_local Held held;
    if (bytes > held.size) {
        free(held.start);
        held.start = (char*)aligned_alloc(64, (bytes + 63) / 64 * 64);
        held.size = bytes;
        if (!held.start) abort();
    }
    return held.start;
}

struct Room {
    char* next;
    template <class T>
    T* take(long count) {
        T* found = (T*)next;
        next += (count * sizeof(T) + 63) / 64 * 64;
        return found;
    }
};

long least(long one, long other) { return one < other ? one : other; }
long blocks_of(long count, long size) { return (count + size - 1) / size; }
long up_to(long count, long multiple) { return blocks_of(count, multiple) * multiple; }

typedef uint32_t Four __attribute__((vector_size(16)));
typedef uint32_t LooseFour __attribute__((vector_size(16), aligned(4), may_alias));
#if defined(__clang__)
#define SHUFFLED(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLED(a, b, i, j, k, l) __builtin_shuffle(a, b, Four{i, j, k, l})
#endif

// Four words each of four rows to four lines ``apart`` words apart.
INLINE void turn_four(const Four* rows, uint32_t* out, long apart) {
    const Four a = SHUFFLED(rows[0], rows[1], 0, 4, 1, 5), b = SHUFFLED(rows[0], rows[1], 2, 6, 3, 7),
               c = SHUFFLED(rows[2], rows[3], 0, 4, 1, 5), d = SHUFFLED(rows[2], rows[3], 2, 6, 3, 7);
    *(LooseFour*)out = SHUFFLED(a, c, 0, 1, 4, 5);
    *(LooseFour*)(out + apart) = SHUFFLED(a, c, 2, 3, 6, 7);
    *(LooseFour*)(out + 2 * apart) = SHUFFLED(b, d, 0, 1, 4, 5);
    *(LooseFour*)(out + 3 * apart) = SHUFFLED(b, d, 2, 3, 6, 7);
}

// Of rows (count, width): word k of row r to out[r / ACROSS][k][r % ACROSS]; rows that are missing become zeros.
template <class N, int ACROSS>
void lay_across(const typename N::Number* from, long stride, long count, long width, typename N::Word* out) {
    typedef typename N::Word Word;
    const long deep = width / N::PER_WORD;
    auto row = [&](long r) { return (const Word*)(from + r * stride); };
    for (long first = 0; first < count; first += ACROSS, out += deep * ACROSS) {
        const long here = least(ACROSS, count - first), whole = deep / 4 * 4;
        if (here < ACROSS) memset(out, 0, deep * ACROSS * sizeof(Word));
        long r = 0;
        for (; r + 4 <= here; r += 4) {
            for (long k = 0; k < whole; k += 4) {
                Four four[4];
                for (int i = 0; i < 4; i++) four[i] = *(const LooseFour*)(row(first + r + i) + k);
                turn_four(four, (uint32_t*)out + k * ACROSS + r, ACROSS);
            }
            for (long k = whole; k < deep; k++)
                for (int i = 0; i < 4; i++) out[k * ACROSS + r + i] = row(first + r + i)[k];
        }
        for (; r < here; r++)
            for (long k = 0; k < deep; k++) out[k * ACROSS + r] = row(first + r)[k];
    }
}

// Of rows (count, width): panels of COLUMNS columns, each with a line for every word of rows; ``panel`` words apart.
template <class N>
void lay_along(const typename N::Number* from, long stride, long count, long width, typename N::Word* out, long panel) {
    for (long first = 0; first < width; first += COLUMNS, out += panel)
        for (long k = 0; k < blocks_of(count, N::PER_WORD); k++) {
            const typename N::Number* row = from + k * N::PER_WORD * stride + first;
            if constexpr (N::PER_WORD == 1) {
                memcpy(out + k * COLUMNS, row, COLUMNS * sizeof(*row));
            } else {
                const bool paired = k * 2 + 1 < count;
                for (int c = 0; c < COLUMNS; c++)
                    out[k * COLUMNS + c] = row[c] | (paired ? (uint32_t)row[stride + c] << 16 : 0);
            }
        }
}

// A row of weights as the left factor of a product along the keys; of float32 that is the row itself.
template <class N>
void pack_row(const float* weights, long count, typename N::Word* out) {
#if HAS_BF16
    if constexpr (N::PER_WORD == 2)
        for (long k = 0; k < count; k += 2 * LANES)  // the room ends with a whole block
            _mm512_storeu_si512(out + k / 2, (__m512i)_mm512_cvtne2ps_pbh((__m512)load(weights + k + LANES),
                                                                          (__m512)load(weights + k)));
#endif
}

// Two rows of weights as one line of the left factor of a product along the queries.
template <class N>
void pack_pair(const float* upper, const float* lower, long count, typename N::Word* out) {
#if HAS_BF16
    if constexpr (N::PER_WORD == 2) {
        for (long k = 0; k < count; k += LANES) {
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)load(upper + k)));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)load(lower + k)));
            _mm512_storeu_si512(out + k, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
#endif
}

INLINE Ints lanes_below(long count) {
    Ints found;
    for (int i = 0; i < LANES; i++) found[i] = i < count ? -1 : 0;
    return found;
}

template <class N>
struct Head {
    typedef typename N::Word Word;
    typedef typename N::Number Number;
    static constexpr int LINE = KEYS / N::PER_WORD;  // words of a row of weights

    const Problem& p;
    long batch, head, terms, deep, blocks;

    Head(const Problem& problem, long number) : p(problem) {
        batch = number / p.heads, head = number % p.heads, terms = p.terms ? p.terms : p.width;
        deep = terms / N::PER_WORD, blocks = blocks_of(p.keys, KEYS);
    }

    static size_t bytes(const Problem& p) {
        const long blocks = blocks_of(p.keys, KEYS) * KEYS, rows = QUERIES + ROWS;
        const long words = 3 * blocks * p.width + 5 * rows * p.width + 2 * rows * KEYS + 4 * KEYS * QUERIES;
        return 4 * (words + 2 * blocks * p.width + rows * 4) + 64 * 32;
    }

    long seen_by(long query) const { return p.keys - p.queries + (query / p.frame + 1) * p.frame; }
    Dropout::Row masked(long query) const { return p.dropout.row((batch * p.heads + head) * p.queries + query); }
    float* levels() const { return p.level + (batch * p.heads + head) * p.queries; }

    void forward() {
        Room space{room(bytes(p))};
        const long across = KEYS * deep, along = LINE * COLUMNS;
        Word* keys = space.take<Word>(blocks * across);
        Word* values = space.take<Word>(blocks * LINE * p.width);
        Word* query = space.take<Word>(ROWS * deep);
        float* scores = space.take<float>(ROWS * KEYS);
        Word* weights = space.take<Word>(ROWS * LINE);
        float* found = space.take<float>(ROWS * p.width);
        for (long b = 0; b < blocks; b++) {
            const long here = least(KEYS, p.keys - b * KEYS);
            lay_across<N, COLUMNS>(part<N>(p.key, batch, head, b * KEYS), p.key.row, here, terms, keys + b * across);
            lay_along<N>(part<N>(p.value, batch, head, b * KEYS), p.value.row, here, p.width,
                         values + b * LINE * p.width, along);
        }
        const float scale = p.scale * (float)M_LOG2E;
        for (long frame = 0; frame < p.queries; frame += p.frame)
            for (long first = frame; first < frame + p.frame; first += ROWS) {
                const long rows = least(ROWS, frame + p.frame - first), seen = seen_by(frame);
                float highest[ROWS], total[ROWS];
                for (int r = 0; r < ROWS; r++) highest[r] = -INFINITY, total[r] = 0;
                lay_across<N, ROWS>(part<N>(p.query, batch, head, first), p.query.row, rows, terms, query);
                for (long b = 0; b * KEYS < seen; b++) {
                    const long here = least(KEYS, seen - b * KEYS);
                    product<N, 1, ROWS>(query, keys + b * across, COLUMNS * deep, scores, KEYS, deep, here, false);
                    for (int r = 0; r < ROWS; r++) {
                        float faded = soften(scores + r * KEYS, here, scale, highest[r], total[r]);
                        if (p.dropout.limit) drop(scores + r * KEYS, here, first + r, b * KEYS);
                        pack_row<N>(scores + r * KEYS, here, weights + r * LINE);
                        if (b && faded != 1)
                            for (long c = 0; c < p.width; c += LANES)
                                store(found + r * p.width + c, load(found + r * p.width + c) * faded);
                    }
                    const Word* left = N::PER_WORD == 1 ? (const Word*)scores : weights;
                    product<N, LINE, 1>(left, values + b * LINE * p.width, along, found, p.width,
                                        blocks_of(here, N::PER_WORD), p.width, b > 0);
                }
                for (long r = 0; r < rows; r++) {
                    write(found + r * p.width, 1 / total[r], part<N>(p.out, batch, head, first + r));
                    levels()[first + r] = highest[r] + log2f(total[r]);
                }
            }
    }

    // Scores become weights, up to a common factor; returns that of earlier blocks' weights.
    static INLINE float soften(float* row, long count, float scale, float& highest, float& total) {
        const long whole = count / LANES * LANES;
        const Ints within = lanes_below(count - whole);
        if (whole < count) store(row + whole, choose(within, load(row + whole), all(-INFINITY)));
        Floats most = all(-INFINITY);
        for (long k = 0; k < count; k += LANES) most = higher(load(row + k), most);
        const float before = highest, now = highest_of(most) * scale;
        highest = now > before ? now : before;
        Floats sum = Floats{};
        for (long k = 0; k < count; k += LANES) {
            Floats weight = power_of_two(load(row + k) * scale - highest);
            store(row + k, weight);
            sum += weight;
        }
        const float faded = before == -INFINITY ? 0 : exp2f(before - highest);
        total = total * faded + sum_of(sum);
        return faded;
    }

    void drop(float* row, long count, long query, long column) const {
        const Dropout::Row masked = this->masked(query);
        const float scale = p.dropout.scale();
        for (long k = 0; k < count; k += LANES)
            store(row + k, p.dropout.applied(load(row + k), masked, column + k, scale));
    }

    INLINE void write(const float* row, float factor, Number* out) const {
        for (long c = 0, width = p.width; c < width; c++) out[c] = N::narrow(row[c] * factor);
    }

    void backward() {
        Room space{room(bytes(p))};
        const long across = KEYS * deep, along = LINE * COLUMNS, width = p.width;
        Word* keys = space.take<Word>(blocks * across);              // for scores
        Word* keys_along = space.take<Word>(blocks * LINE * width);  // for the queries' gradient
        Word* values = p.terms ? keys : space.take<Word>(blocks * across);  // for the weights' gradient
        float* to_key = space.take<float>(blocks * KEYS * width);
        float* to_value = p.terms ? to_key : space.take<float>(blocks * KEYS * width);
        Word* query = space.take<Word>((QUERIES + ROWS) * deep);
        Word* query_along = space.take<Word>(QUERIES * width);
        Word* upstream = space.take<Word>((QUERIES + ROWS) * deep);
        Word* upstream_along = space.take<Word>(QUERIES * width);
        float* to_query = space.take<float>(QUERIES * width);
        float* weights = space.take<float>(QUERIES * KEYS);
        float* change = space.take<float>(QUERIES * KEYS);
        Word* change_row = space.take<Word>(QUERIES * LINE);
        Word* weights_pair = space.take<Word>(QUERIES / 2 * KEYS);
        Word* change_pair = space.take<Word>(QUERIES / 2 * KEYS);
        float* shift = space.take<float>(QUERIES);
        float* level = space.take<float>(QUERIES);
        for (long b = 0; b < blocks; b++) {
            const long here = least(KEYS, p.keys - b * KEYS);
            const Number *key = part<N>(p.key, batch, head, b * KEYS), *value = part<N>(p.value, batch, head, b * KEYS);
            lay_across<N, COLUMNS>(key, p.key.row, here, terms, keys + b * across);
            if (!p.terms) lay_across<N, COLUMNS>(value, p.value.row, here, width, values + b * across);
            lay_along<N>(key, p.key.row, here, width, keys_along + b * LINE * width, along);
        }
        memset(to_key, 0, blocks * KEYS * width * sizeof(float));
        memset(to_value, 0, blocks * KEYS * width * sizeof(float));
        const float scale = p.scale * (float)M_LOG2E;
        for (long frame = 0; frame < p.queries; frame += p.frame)
            for (long first = frame; first < frame + p.frame; first += QUERIES) {
                const long rows = least(QUERIES, frame + p.frame - first), seen = seen_by(frame);
                const long tiles = blocks_of(rows, ROWS), padded = tiles * ROWS;
                const Number *asked = part<N>(p.query, batch, head, first),
                             *given = part<N>(p.upstream, batch, head, first);
                lay_across<N, ROWS>(asked, p.query.row, rows, terms, query);
                lay_across<N, ROWS>(given, p.upstream.row, rows, terms, upstream);
                lay_along<N>(asked, p.query.row, rows, width, query_along, QUERIES / N::PER_WORD * COLUMNS);
                lay_along<N>(given, p.upstream.row, rows, width, upstream_along, QUERIES / N::PER_WORD * COLUMNS);
                for (long r = 0; r < padded; r++) {
                    const bool exists = r < rows;
                    shift[r] = exists ? along_out(first + r, given + r * p.upstream.row) : 0;
                    level[r] = exists ? levels()[first + r] : 0;
                }
                for (long b = 0; b * KEYS < seen; b++) {
                    const long here = least(KEYS, seen - b * KEYS), lines = blocks_of(here, ROWS);
                    for (long t = 0; t < tiles; t++) {
                        product<N, 1, ROWS>(query + t * ROWS * deep, keys + b * across, COLUMNS * deep,
                                            weights + t * ROWS * KEYS, KEYS, deep, here, false);
                        product<N, 1, ROWS>(upstream + t * ROWS * deep, values + b * across, COLUMNS * deep,
                                            change + t * ROWS * KEYS, KEYS, deep, here, false);
                        for (long r = t * ROWS; r < (t + 1) * ROWS; r++) {
                            if (p.dropout.limit) drop(change + r * KEYS, here, first + r, b * KEYS);
                            turn(weights + r * KEYS, change + r * KEYS, here, scale, level[r], shift[r], p.scale);
                            if (p.dropout.limit) drop(weights + r * KEYS, here, first + r, b * KEYS);
                        }
                        for (long r = t * ROWS; r < (t + 1) * ROWS; r++)
                            pack_row<N>(change + r * KEYS, here, change_row + r * LINE);
                        const Word* left = N::PER_WORD == 1 ? (const Word*)change : change_row;
                        product<N, LINE, 1>(left + t * ROWS * LINE, keys_along + b * LINE * width, along,
                                            to_query + t * ROWS * width, width, blocks_of(here, N::PER_WORD), width,
                                            b > 0);
                    }
                    if (N::PER_WORD == 2)
                        for (long r = 0; r < padded; r += 2) {
                            pack_pair<N>(weights + r * KEYS, weights + (r + 1) * KEYS, lines * ROWS,
                                         weights_pair + r / 2 * KEYS);
                            pack_pair<N>(change + r * KEYS, change + (r + 1) * KEYS, lines * ROWS,
                                         change_pair + r / 2 * KEYS);
                        }
                    const Word *by_value = N::PER_WORD == 1 ? (const Word*)weights : weights_pair,
                               *by_key = N::PER_WORD == 1 ? (const Word*)change : change_pair;
                    for (long t = 0; t < lines; t++) {
                        const long row = (b * KEYS + t * ROWS) * width, deep_rows = blocks_of(rows, N::PER_WORD),
                                   panel = QUERIES / N::PER_WORD * COLUMNS;
                        product<N, 1, KEYS>(by_value + t * ROWS, upstream_along, panel, to_value + row, width,
                                            deep_rows, width, true);
                        product<N, 1, KEYS>(by_key + t * ROWS, query_along, panel, to_key + row, width, deep_rows,
                                            width, true);
                    }
                }
                for (long r = 0; r < rows; r++)
                    write(to_query + r * width, 1, part<N>(p.to_query, batch, head, first + r));
            }
        for (long k = 0; k < p.keys; k++) {
            write(to_key + k * width, 1, part<N>(p.to_key, batch, head, k));
            if (!p.terms) write(to_value + k * width, 1, part<N>(p.to_value, batch, head, k));
        }
    }

    // What flows into a query's output, along that output: the softmax takes it off every weight's gradient.
    float along_out(long query, const Number* upstream) const {
        const Number* out = part<N>(p.out, batch, head, query);
        float sums[LANES] = {}, sum = 0;
        for (long c = 0; c < p.width; c += LANES)
            for (int i = 0; i < LANES; i++) sums[i] += N::widen(out[c + i]) * N::widen(upstream[c + i]);
        for (int i = 0; i < LANES; i++) sum += sums[i];
        return sum;
    }

    // Scores become weights, and what flows into the weights what flows into the scores; both zero beyond ``count``.
    static INLINE void turn(float* row, float* change, long count, float scale, float level, float shift,
                            float factor) {
        const long whole = count / LANES * LANES;
        auto step = [&](long k) __attribute__((always_inline)) {
            Floats weight = power_of_two(load(row + k) * scale - level);
            store(row + k, weight);
            store(change + k, weight * (load(change + k) - shift) * factor);
        };
        for (long k = 0; k < whole; k += LANES) step(k);
        long k = whole;
        if (whole < count) {
            step(whole);
            const Ints within = lanes_below(count - whole);
            store(row + whole, choose(within, load(row + whole), Floats{}));
            store(change + whole, choose(within, load(change + whole), Floats{}));
            k += LANES;
        }
        for (; k < KEYS && k < count + ROWS; k += LANES)
            store(row + k, Floats{}), store(change + k, Floats{});  // of the last tile
    }
};

template <class N>
void run(const Problem& problem, bool backward, int threads) {
    const long number = problem.count * problem.heads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (long i = 0; i < number; i++) backward ? Head<N>(problem, i).backward() : Head<N>(problem, i).forward();
}

}  // namespace
