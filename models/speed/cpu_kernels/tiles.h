// Products in bf16, summed in float32, by the tile registers of processors with AMX.
#pragma once

#include "attention.h"

#if HAS_BF16 && defined(__AMX_BF16__) && defined(__linux__)
#define HAS_TILES 1
#else
#define HAS_TILES 0
#endif

#if HAS_TILES
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr long TERMS = 32;               // of a sum that one instruction adds: numbers of a tile's row
constexpr long HALF_PANEL = 16 * TERMS;  // numbers of the right factor in a tile: 16 columns
constexpr long LEFT = ROWS * TERMS;      // of the left factor

// The system lets a process use tiles once it has asked; 18 is the number of their state.
bool may_use_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

struct Tiles {  // a thread's tile registers: 0 to 3 are sums, 4 and 5 left factors, 6 and 7 right ones
    struct alignas(64) {
        uint8_t palette = 1, begin = 0, unused[14] = {};
        uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, 16, 16};
    } shape;
    Tiles() { _tile_loadconfig(&shape); }
    ~Tiles() { _tile_release(); }
};

// Rows (tiles * ROWS, deep) as left factors: one after the other along the sum, then the next ROWS rows.
void lay_left(const float* rows, long stride, long tiles, long deep, uint16_t* out) {
    const long steps = blocks_of(deep, TERMS);
    for (long r = 0; r < tiles * ROWS; r++)
        for (long k = 0; k < steps; k++) {
            const float* from = rows + r * stride + k * TERMS;
            uint16_t* to = out + (r / ROWS * steps + k) * LEFT + r % ROWS * TERMS;
            const long here = least(TERMS, deep - k * TERMS);
            write(to, read(from, here));
            write(to + LANES, here > LANES ? read(from + LANES, here - LANES) : Floats{});
        }
}

// A matrix as right factors: of 32 columns all tiles along the sum, two side by side; two terms of a column together.
void lay_right(const float* from, long down, long along, long deep, long columns, uint16_t* out) {
    const long steps = blocks_of(deep, TERMS);
    memset(out, 0, up_to(columns, COLUMNS) * steps * TERMS * sizeof(*out));
    for (long c = 0; c < columns; c++) {
        uint16_t* panel = out + c / COLUMNS * steps * 2 * HALF_PANEL + c % COLUMNS / 16 * HALF_PANEL + c % 16 * 2;
        for (long k = 0; k < deep; k++)
            panel[k / TERMS * 2 * HALF_PANEL + k % TERMS / 2 * 32 + k % 2] =
                BFloat16::narrow(from[k * down + c * along]);
    }
}

// Sums of ROWS rows, or of twice as many if ``PAIR``, and 32 columns.
template <bool PAIR>
INLINE void tiles_of(const uint16_t* left, const uint16_t* right, long steps, float* found, long stride, bool add,
                     const uint16_t* next, long coming) {
    const long row = stride * sizeof(float);
    float* below = found + ROWS * stride;
    if (add) {
        _tile_loadd(0, found, row);
        _tile_loadd(1, found + 16, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (PAIR && add) {
        _tile_loadd(2, below, row);
        _tile_loadd(3, below + 16, row);
    } else if (PAIR) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long k = 0; k < steps; k++, left += LEFT, right += 2 * HALF_PANEL) {
        for (long i = coming * k / steps; i < coming * (k + 1) / steps; i++) __builtin_prefetch(next + i * 32, 0, 2);
        _tile_loadd(6, right, 64);
        _tile_loadd(7, right + HALF_PANEL, 64);
        _tile_loadd(4, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (!PAIR) continue;
        _tile_loadd(5, left + steps * LEFT, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, found, row);
    _tile_stored(1, found + 16, row);
    if (!PAIR) return;
    _tile_stored(2, below, row);
    _tile_stored(3, below + 16, row);
}

// found (tiles * ROWS, columns) (+)= left x right, as ``lay_left`` and ``lay_right`` made them.
void multiply(const uint16_t* left, long tiles, long deep, const uint16_t* panels, long columns, float* found,
              long stride, bool add) {
    const Tiles registers;
    const long steps = blocks_of(deep, TERMS), panel = steps * 2 * HALF_PANEL, lines = panel / 32;
    for (long c = 0; c < columns; c += COLUMNS, panels += panel)
        for (long t = 0; t < tiles; t += 2) {  // weights come from afar: while these are used, the next are fetched
            const bool last = c + COLUMNS >= columns, pair = t + 1 < tiles;
            const long done = lines * t / tiles, coming = last ? 0 : lines * least(t + 2, tiles) / tiles - done;
            (pair ? tiles_of<true> : tiles_of<false>)(left + t * steps * LEFT, panels, steps,
                                                      found + t * ROWS * stride + c, stride, add,
                                                      panels + panel + done * 32, coming);
        }
}

}  // namespace
#else
namespace {  // never asked for: ``may_use_tiles`` says so
bool may_use_tiles() { return false; }
void lay_left(const float*, long, long, long, uint16_t*) {}
void lay_right(const float*, long, long, long, long, uint16_t*) {}
void multiply(const uint16_t*, long, long, const uint16_t*, long, float*, long, bool) {}
}  // namespace
#endif
