// A whole transformer whose weights are not trained, forward and backward to its tokens, in float32: one parallel region
// each way, in which a thread takes a block of tokens through all that lies between two attentions.
//
// Weights are packed as panels for the products beforehand. Rows are padded to whole tiles and columns to whole panels,
// so that no product has an edge; what lies in the padding is never read into what does not.
#pragma once

#include <omp.h>

#include "attention.h"
#include "between.h"
#include "tiles.h"

namespace {

constexpr long DEPTH = 256;      // terms of a sum at a time: a panel of them stays in the first cache
constexpr long MOST_ROWS = 200;  // of a block: the more, the less often weights are read

struct Layer {  // (panels for the forward, for the backward), and vectors
    const float *norm1, *bias1, *qkv, *qkv_back, *out, *out_back, *out_bias;
    const float *norm2, *bias2, *widen, *widen_back, *widen_bias, *narrow, *narrow_back, *narrow_bias;
};

// ``folded``: tokens narrower than a head are keys and values themselves; their maps are part of those of the queries and
// of what was attended, and ``width`` is that of a token, padded.
struct Sizes {
    long batch, tokens, frame, dim, heads, width, hidden, depth, saves, folded;
    long half;  // products in bf16
};

// Numbers from one row to the next; rows a page apart would share their places in the caches.
long stride_of(long count) { return up_to(count, COLUMNS) + (up_to(count, COLUMNS) % 512 ? 0 : COLUMNS); }

// Where everything of a forward is kept: of each layer if it ``saves``, else of one.
struct Kept {
    Sizes s;
    long rows, dim, joint, to_joint, inner, hidden, normed_row;  // padded; joint: queries, keys and values
    float* start;

    Kept(const Sizes& sizes, float* place) : s(sizes), start(place) {
        rows = up_to(s.batch * s.tokens, ROWS), dim = stride_of(s.dim), hidden = stride_of(s.hidden);
        inner = stride_of(s.heads * s.width), joint = stride_of(asked()), normed_row = s.folded ? s.width : 0;
        to_joint = stride_of((s.folded ? 2 : 3) * s.heads * s.width);
    }
    long asked() const { return (s.folded ? 1 : 3) * s.heads * s.width; }
    long of_layer() const { return rows * (2 * dim + joint + inner + hidden + 4 + normed_row) + up_to(levels(), 16); }
    long levels() const { return s.batch * s.heads * s.tokens; }
    long all() const { return (s.saves ? s.depth : 1) * of_layer() + rows * (dim + 2); }
    float* layer(long l) const { return start + (s.saves ? l : 0) * of_layer(); }
    float* input(long l) const {
        return l == s.depth ? start + (s.saves ? s.depth : 1) * of_layer() : layer(l);
    }
    float* middle(long l) const { return layer(l) + rows * dim; }
    float* qkv(long l) const { return layer(l) + rows * 2 * dim; }
    float* attended(long l) const { return qkv(l) + rows * joint; }
    float* slope(long l) const { return attended(l) + rows * inner; }
    float* stats(long l) const { return l == s.depth ? input(l) + rows * dim : slope(l) + rows * hidden; }  // 4 x rows
    float* normed(long l) const { return slope(l) + rows * (hidden + 4); }
    float* level(long l) const { return normed(l) + rows * normed_row; }
};

double spent[4];  // seconds of the first thread: products, attention, norms, GELU; see ``transformer_spent``
struct Clock {
    double begin = 0;
    const bool runs = omp_get_thread_num() == 0;
    Clock() { begin = runs ? omp_get_wtime() : 0; }
    void lap(int part) {
        if (!runs) return;
        const double now = omp_get_wtime();
        spent[part] += now - begin, begin = now;
    }
};

// found (tiles * ROWS, columns) += left x right; left laid across, right in panels.
void multiply(const float* left, long tiles, long deep, const float* panels, long columns, float* found, long stride,
              bool add) {
    const long step = blocks_of(deep, blocks_of(deep, DEPTH)), line = 64 / sizeof(float);
    for (long k = 0; k < deep; k += step, add = true)
        for (long c = 0; c < columns; c += COLUMNS) {
            const float* panel = panels + c * deep + k * COLUMNS;
            const bool last = c + COLUMNS >= columns;
            const float* next = last ? panels + (k + step) * COLUMNS : panel + COLUMNS * deep;
            const long terms = least(step, deep - k), coming = last && k + step >= deep ? 0 : terms * COLUMNS;
            for (long t = 0; t < tiles; t++) {
                const float* tile = left + (t * deep + k) * ROWS;
                float* to = found + t * ROWS * stride + c;
                // weights come from afar: while these are used, the next are fetched
                for (long i = coming * t / tiles; i < coming * (t + 1) / tiles; i += line) __builtin_prefetch(next + i);
                if (columns - c > LANES)
                    tile_of<Float32, 1, ROWS, 2>(tile, panel, to, stride, terms, add);
                else
                    tile_of<Float32, 1, ROWS, 1>(tile, panel, to, stride, terms, add);
            }
        }
}

struct Pass {
    const Sizes& s;
    const Kept kept;
    const Layer* layers;  // and one more, of which only the first norm is
    float eps;
    long tiles, at_a_time, blocks;

    Pass(const Sizes& sizes, float* room, const Layer* all, float e, int threads)
        : s(sizes), kept(sizes, room), layers(all), eps(e) {
        tiles = kept.rows / ROWS;
        const long rounds = blocks_of(tiles, threads * (MOST_ROWS / ROWS));
        at_a_time = blocks_of(tiles, threads * rounds), blocks = blocks_of(tiles, at_a_time);
    }
    long first(long block) const { return block * at_a_time * ROWS; }
    long count(long block) const { return least(at_a_time, tiles - block * at_a_time); }  // tiles
    long exist() const { return s.batch * s.tokens; }

    float* scratch(float** wide) const {  // of this thread: laid across, and in rows
        long widest = kept.hidden > kept.joint ? kept.hidden : kept.joint;
        if (widest < kept.dim) widest = kept.dim;
        char* start = room(2 * (widest * at_a_time * ROWS * sizeof(float) + 64));
        *wide = (float*)start + widest * at_a_time * ROWS;
        return (float*)start;
    }
    // found (rows, columns) = rows x panels, for whole tiles of rows, by way of ``left``; ``bias`` and ``more`` on top.
    void map(const float* rows, long row, long number, long deep, const float* panels, long columns, float* found,
             long stride, float* left, const float* bias = nullptr, const float* more = nullptr) const {
        s.half ? lay_left(rows, row, number, deep, (uint16_t*)left)
               : lay_across<Float32, ROWS>(rows, row, number * ROWS, deep, left);
        if (bias) with_bias(more, bias, number * ROWS, stride, columns, found);  // which may be where the rows were
        s.half ? multiply((uint16_t*)left, number, deep, (const uint16_t*)panels, columns, found, stride, bias)
               : multiply(left, number, deep, panels, columns, found, stride, bias);
    }
    void with_bias(const float* from, const float* bias, long rows, long stride, long width, float* to) const {
        for (long r = 0; r < rows; r++)
            for (long c = 0; c < width; c += LANES) {
                Floats sum = read(bias + c, width - c);
                if (from) sum += load(from + r * stride + c);
                store(to + r * stride + c, sum);
            }
    }
    void normed(long l, const float* rows, float* stats, const float* weight, const float* bias, long first, long count,
                float* out, long stride) const {
        for (long r = 0; r < count; r++)
            norm_row(rows + r * kept.dim, out + r * stride, weight, bias, s.dim, eps, stats + first + r,
                     stats + kept.rows + first + r);
    }

    // From a layer's input to its queries, keys and values.
    void begin(long l, long block, Clock& clock) const {
        const long from = first(block), rows = count(block) * ROWS;
        float *wide, *across = scratch(&wide), *found = s.folded ? kept.normed(l) + from * s.width : wide;
        const long row = s.folded ? s.width : kept.dim;
        if (s.folded) memset(found, 0, rows * row * sizeof(float));
        normed(l, kept.input(l) + from * kept.dim, kept.stats(l), layers[l].norm1, layers[l].bias1, from, rows, found,
               row);
        clock.lap(2);
        map(found, row, count(block), s.dim, layers[l].qkv, kept.asked(), kept.qkv(l) + from * kept.joint,
            kept.joint, across);
        for (long r = exist() > from ? exist() - from : 0; r < rows; r++)  // attention writes only what exists
            memset(kept.attended(l) + (from + r) * kept.inner, 0, kept.inner * sizeof(float));
        clock.lap(0);
    }

    // From what was attended to the next layer's input.
    void finish(long l, long block, Clock& clock) const {
        const Layer& layer = layers[l];
        const long from = first(block), rows = count(block) * ROWS, inner = s.heads * s.width;
        float *wide, *across = scratch(&wide), *middle = kept.middle(l) + from * kept.dim;
        map(kept.attended(l) + from * kept.inner, kept.inner, count(block), inner, layer.out, s.dim, middle,
            kept.dim, across, layer.out_bias, kept.input(l) + from * kept.dim);
        clock.lap(0);
        normed(l, middle, kept.stats(l) + 2 * kept.rows, layer.norm2, layer.bias2, from, rows, wide, kept.dim);
        clock.lap(2);
        map(wide, kept.dim, count(block), s.dim, layer.widen, s.hidden, wide, kept.hidden, across,
            layer.widen_bias);
        clock.lap(0);
        for (long i = 0; i < rows * kept.hidden; i += LANES) {
            Floats slope, found = gelu_of(load(wide + i), slope);
            store(wide + i, found);
            if (s.saves) store(kept.slope(l) + from * kept.hidden + i, slope);
        }
        clock.lap(3);
        float* next = kept.input(l + 1) + from * kept.dim;
        map(wide, kept.hidden, count(block), s.hidden, layer.narrow, s.dim, next, kept.dim, across,
            layer.narrow_bias, middle);
        clock.lap(0);
    }

    Problem attention(long l) const {
        Problem p;
        memset(&p, 0, sizeof(p));
        auto part = [&](float* start, long number, long row) {
            return Matrix{(char*)(start + number * s.heads * s.width), s.tokens * row, s.width, row};
        };
        p.query = part(kept.qkv(l), 0, kept.joint), p.key = part(kept.qkv(l), 1, kept.joint);
        p.value = part(kept.qkv(l), 2, kept.joint), p.out = part(kept.attended(l), 0, kept.inner);
        if (s.folded) p.key = p.value = {(char*)kept.normed(l), s.tokens * s.width, 0, s.width}, p.terms = s.dim;
        p.level = kept.level(l);
        p.count = s.batch, p.heads = s.heads, p.queries = p.keys = s.tokens, p.frame = s.frame, p.width = s.width;
        p.scale = 1 / sqrtf((float)s.width);
        return p;
    }

    void forward(const float* tokens, float* out, int threads) const {
#pragma omp parallel num_threads(threads)
        {
            Clock clock;
            for (long l = 0; l < s.depth; l++) {
#pragma omp for schedule(dynamic, 1)
                for (long block = 0; block < blocks; block++) {
                    l ? finish(l - 1, block, clock) : take(tokens, block);
                    begin(l, block, clock);
                }
                const Problem problem = attention(l);
#pragma omp for schedule(dynamic, 1)
                for (long i = 0; i < s.batch * s.heads; i++) Head<Float32>(problem, i).forward();
                clock.lap(1);
            }
#pragma omp for schedule(dynamic, 1)
            for (long block = 0; block < blocks; block++) {
                finish(s.depth - 1, block, clock);
                const long from = first(block), rows = least(count(block) * ROWS, exist() - from);
                normed(s.depth, kept.input(s.depth) + from * kept.dim, kept.stats(s.depth), layers[s.depth].norm1,
                       layers[s.depth].bias1, from, rows, out + from * s.dim, s.dim);
                clock.lap(2);
            }
        }
    }

    void take(const float* tokens, long block) const {
        for (long r = first(block); r < first(block) + count(block) * ROWS; r++) {
            float* row = kept.input(0) + r * kept.dim;
            memset(row, 0, kept.dim * sizeof(float));
            if (r < exist()) memcpy(row, tokens + r * s.dim, s.dim * sizeof(float));
        }
    }

    // ``gradient`` (rows, dim) of the sum += what flows back through a norm.
    void norm_back(const float* rows, const float* stats, const float* weight, long first, long count,
                   const float* upstream, long stride, float* gradient, bool add) const {
        for (long r = 0; r < count; r++) {
            float* to = gradient + r * kept.dim;
            norm_row_back(rows + r * kept.dim, upstream + r * stride, weight, s.dim, stats[first + r],
                          stats[kept.rows + first + r], [](long, Floats, Floats) {},
                          [&](long c, Floats found) { store(to + c, add ? found + load(to + c) : found); });
        }
    }

    // From the next layer's input back to what was attended.
    void finish_back(long l, long block, float* gradient, float* to_attended, Clock& clock) const {
        const Layer& layer = layers[l];
        const long from = first(block), rows = count(block) * ROWS, number = count(block);
        float *wide, *across = scratch(&wide);
        gradient += from * kept.dim;
        map(gradient, kept.dim, number, s.dim, layer.narrow_back, s.hidden, wide, kept.hidden, across);
        clock.lap(0);
        const float* slope = kept.slope(l) + from * kept.hidden;
        for (long i = 0; i < rows * kept.hidden; i += LANES) store(wide + i, load(wide + i) * load(slope + i));
        clock.lap(3);
        map(wide, kept.hidden, number, s.hidden, layer.widen_back, s.dim, wide, kept.dim, across);
        clock.lap(0);
        norm_back(kept.middle(l) + from * kept.dim, kept.stats(l) + 2 * kept.rows, layer.norm2, from, rows, wide,
                  kept.dim, gradient, true);
        clock.lap(2);
        map(gradient, kept.dim, number, s.dim, layer.out_back, s.heads * s.width, to_attended + from * kept.inner,
            kept.inner, across);
        clock.lap(0);
    }

    // From queries, keys and values back to the layer's input.
    void begin_back(long l, long block, float* gradient, float* to_joint, Clock& clock) const {
        const long from = first(block), rows = count(block) * ROWS, row = kept.to_joint, asked = kept.asked();
        float *wide, *across = scratch(&wide);
        to_joint += from * row;
        for (long r = exist() > from ? exist() - from : 0; r < rows; r++) memset(to_joint + r * row, 0, row * 4);
        map(to_joint, row, count(block), asked, layers[l].qkv_back, s.dim, wide, kept.dim, across);
        for (long r = 0; r < (s.folded ? rows : 0); r++)  // and what came to a token as a key and a value of each head
            for (long c = 0; c < s.dim; c += LANES) {
                Floats sum = load(wide + r * kept.dim + c);
                for (long h = 0; h < s.heads; h++) sum += load(to_joint + r * row + asked + h * s.width + c);
                store(wide + r * kept.dim + c, sum);
            }
        clock.lap(0);
        norm_back(kept.input(l) + from * kept.dim, kept.stats(l), layers[l].norm1, from, rows, wide, kept.dim,
                  gradient + from * kept.dim, true);
        clock.lap(2);
    }

    long for_backward() const { return kept.rows * (kept.dim + kept.to_joint + kept.inner); }

    void backward(const float* upstream, float* to_tokens, float* work, int threads) const {
        float *gradient = work, *to_joint = gradient + kept.rows * kept.dim,
              *to_attended = to_joint + kept.rows * kept.to_joint;
#pragma omp parallel num_threads(threads)
        {
            Clock clock;
            for (long l = s.depth - 1; l >= 0; l--) {
#pragma omp for schedule(dynamic, 1)
                for (long block = 0; block < blocks; block++) {
                    if (l == s.depth - 1)
                        end_back(upstream, block, gradient);
                    else
                        begin_back(l + 1, block, gradient, to_joint, clock);
                    finish_back(l, block, gradient, to_attended, clock);
                }
                Problem problem = attention(l);
                auto part = [&](float* start, long number, long row) {
                    return Matrix{(char*)(start + number * s.heads * s.width), s.tokens * row, s.width, row};
                };
                problem.upstream = part(to_attended, 0, kept.inner), problem.to_query = part(to_joint, 0, kept.to_joint);
                problem.to_key = part(to_joint, 1, kept.to_joint);
                problem.to_value = part(to_joint, 2, kept.to_joint);
#pragma omp for schedule(dynamic, 1)
                for (long i = 0; i < s.batch * s.heads; i++) Head<Float32>(problem, i).backward();
                clock.lap(1);
            }
#pragma omp for schedule(dynamic, 1)
            for (long block = 0; block < blocks; block++) {
                begin_back(0, block, gradient, to_joint, clock);
                for (long r = first(block); r < least(first(block) + count(block) * ROWS, exist()); r++)
                    memcpy(to_tokens + r * s.dim, gradient + r * kept.dim, s.dim * sizeof(float));
            }
        }
    }

    void end_back(const float* upstream, long block, float* gradient) const {
        const long from = first(block), rows = count(block) * ROWS, real = least(rows, exist() - from);
        memset(gradient + from * kept.dim, 0, rows * kept.dim * sizeof(float));
        norm_back(kept.input(s.depth) + from * kept.dim, kept.stats(s.depth), layers[s.depth].norm1, from, real,
                  upstream + from * s.dim, s.dim, gradient + from * kept.dim, false);
    }
};

}  // namespace
