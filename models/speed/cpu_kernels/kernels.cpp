// What Python calls; ``numbers``: see the functions there, which fill them.

#include "transformer.h"

extern "C" int lanes() { return LANES; }
extern "C" int has_bf16() { return HAS_BF16; }

extern "C" void attend(const long* numbers, float scale, int bf16, int backward, int threads) {
    Problem problem;
    memcpy(&problem, numbers, offsetof(Problem, scale));
    problem.scale = scale, problem.terms = 0;
#if HAS_BF16
    if (bf16) return run<BFloat16>(problem, backward, threads);
#endif
    run<Float32>(problem, backward, threads);
}

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

// All of a mask: ones, scaled, and zeros, of ``rows`` rows of ``columns``; for tests.
extern "C" void mask(uint64_t seed, int64_t limit, long rows, long columns, float* out) {
    const Dropout dropout{seed, limit};
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c += LANES)
            write(out + r * columns + c, dropout.applied(all(1), dropout.row(r), c, dropout.scale()), columns - c);
}

// Floats of a packed matrix (deep, columns), and the packing of one whose entries lie ``down`` and ``along`` apart.
extern "C" long packed(long deep, long columns) { return up_to(columns, COLUMNS) * deep; }
extern "C" void pack(const float* from, long down, long along, long deep, long columns, float* out) {
    memset(out, 0, packed(deep, columns) * sizeof(float));
    for (long c = 0; c < columns; c++)
        for (long k = 0; k < deep; k++)
            out[c / COLUMNS * COLUMNS * deep + k * COLUMNS + c % COLUMNS] = from[k * down + c * along];
}

// The same in bf16, for processors with tiles: whether this one has them, numbers, and the packing.
extern "C" int has_tiles() { return may_use_tiles(); }
extern "C" long packed_half(long deep, long columns) { return up_to(columns, COLUMNS) * up_to(deep, 32); }
extern "C" void pack_half(const float* from, long down, long along, long deep, long columns, uint16_t* out) {
    lay_right(from, down, along, deep, columns, out);
}

// Floats that a transformer's forward keeps, and that its backward needs beside them.
extern "C" long transformer_room(const long* sizes, int backward) {
    Sizes s;
    memcpy(&s, sizes, sizeof(s));
    const Pass pass(s, nullptr, nullptr, 0, 1);
    return backward ? pass.for_backward() : pass.kept.all();
}

extern "C" void transformer(const long* sizes, const long* layers, float eps, const float* given, float* out,
                            float* room, float* work, int threads) {
    Sizes s;
    memcpy(&s, sizes, sizeof(s));
    const Pass pass(s, room, (const Layer*)layers, eps, threads);
    work ? pass.backward(given, out, work, threads) : pass.forward(given, out, threads);
}

extern "C" void transformer_spent(double* out) {  // since it was last asked
    memcpy(out, spent, sizeof(spent));
    memset(spent, 0, sizeof(spent));
}
