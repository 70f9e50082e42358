#pragma once

#include "../formulas/macros.h"

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

/*
 * A kernel here is a struct with its arguments as members, the number NUM_PHASES, and
 * `template <int PHASE> void run(const Block &) const`: what one thread of a block does between
 * two barriers. The GPU runs the phases with barriers between them (launch.cuh); a loop over
 * blocks and threads runs the very same code on the CPU (host_loop.h), which is how the tests
 * compare every kernel with the CPU operators where there is no GPU.
 */
namespace diffmd::ops::cuda {

/** Threads of a block, in every kernel. */
constexpr int NUM_THREADS = 256;

/**
 * Shared memory a tile is cut to, in bytes. Kernels of about 48 registers leave room for five
 * blocks on a multiprocessor, which hide each other's barriers; half of its 256 KiB then stays
 * first-level cache, where the table's coefficients are. Kernels that need more for four rows
 * stay within the 48 KiB that any GPU gives unasked, with fewer rows if need be.
 */
constexpr size_t SHARED_GOAL = 24 * 1024, SHARED_LIMIT = 48 * 1024;

/** One thread's view of its block. */
struct Block {
    int64_t index;
    int thread;
    /** Aligned to 16 bytes. */
    std::byte *shared;
};

/** Hands out pieces of shared memory, each aligned to 16 bytes; on no memory it only counts. */
class Carver {
public:
    DIFFMD_HD explicit Carver(std::byte *memory) : memory(memory) {}
    template <class T> DIFFMD_HD T *take(int count) {
        T *piece = memory == nullptr ? nullptr : reinterpret_cast<T *>(memory + size);
        size += (size_t(count) * sizeof(T) + 15) / 16 * 16;
        return piece;
    }
    DIFFMD_HD size_t get_size() const { return size; }

private:
    std::byte *memory;
    size_t size = 0;
};

/** How a kernel is to be launched. */
struct Grid {
    int64_t num_blocks;
    size_t shared_bytes;
};

/**
 * Choose how many rows (edges, nodes) a block takes, and set kernel.tile to it.
 *
 * @param kernel    has a member tile and get_shared_bytes()
 * @param num_rows  rows in all
 * @throws std::logic_error if not even one row fits
 */
template <class Kernel> Grid fit_tile(Kernel &kernel, int64_t num_rows) {
    // Four rows of anything are a multiple of 16 bytes, and so are two of doubles: a tile can be
    // moved in packs. Four do not always fit: of the double backward, in doubles, two do at the
    // largest sizes.
    kernel.tile = NUM_THREADS;
    while (kernel.tile > 4 && kernel.get_shared_bytes() > SHARED_GOAL)
        kernel.tile /= 2;
    while (kernel.tile > 1 && kernel.get_shared_bytes() > SHARED_LIMIT)
        kernel.tile /= 2;
    if (kernel.get_shared_bytes() > SHARED_LIMIT)
        throw std::logic_error("a row needs " + std::to_string(kernel.get_shared_bytes()) +
                               " bytes of shared memory, expected at most " +
                               std::to_string(SHARED_LIMIT));
    return {(num_rows + kernel.tile - 1) / kernel.tile, kernel.get_shared_bytes()};
}

/** Rows of this block's tile, fewer in the last block. */
DIFFMD_HD int rows_of_tile(const Block &block, int tile, int64_t num_rows) {
    const int64_t left = num_rows - block.index * tile;
    return left < tile ? int(left) : tile;
}

/** 16 bytes, moved by one instruction. */
template <class T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T values[SIZE];
};

DIFFMD_HD bool is_aligned(const void *address) {
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

/** Copy `count` numbers with all threads, neighbouring threads neighbouring 16 bytes. */
template <class T> DIFFMD_HD void copy(const Block &block, int count, const T *from, T *to) {
    int done = 0;
    if (is_aligned(from) && is_aligned(to)) {
        const int num_packs = count / Pack<T>::SIZE;
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
        for (int i = block.thread; i < num_packs; i += NUM_THREADS)
            reinterpret_cast<Pack<T> *>(to)[i] = reinterpret_cast<const Pack<T> *>(from)[i];
        done = num_packs * Pack<T>::SIZE;
    }
    for (int i = done + block.thread; i < count; i += NUM_THREADS)
        to[i] = from[i];
}

/**
 * Call body(i, row, column) for each i = row * width + column below `count` that is this
 * thread's, neighbouring threads taking neighbours.
 *
 * @param size  step of i from one to the next
 */
template <class Body>
DIFFMD_HD void for_rows(const Block &block, int count, int width, int size, Body &&body) {
    // Only the first turn needs a division.
    const int step = size * NUM_THREADS, row_step = step / width, column_step = step % width;
    int row = size * block.thread / width, column = size * block.thread % width;
    for (int i = size * block.thread; i < count; i += step) {
        body(i, row, column);
        row += row_step, column += column_step;
        if (column >= width)
            column -= width, row++;
    }
}

/**
 * Write rows of `width` computed numbers one after the other, 16 bytes a thread.
 *
 * @param count  numbers in all
 * @param value  value(row, column)
 */
template <class T, class Value>
DIFFMD_HD void write_rows(const Block &block, int count, int width, T *to, Value &&value) {
    constexpr int size = Pack<T>::SIZE;
    const bool aligned = is_aligned(to);
    // A pack may reach into the next row: columns count from where it begins.
    for_rows(block, (count + size - 1) / size * size, width, size, [&](int i, int row, int column) {
        Pack<T> pack;
        for (int k = 0; k < size && i + k < count; k++) {
            pack.values[k] = value(row, column);
            if (++column == width)
                column = 0, row++;
        }
        if (aligned && i + size <= count)
            *reinterpret_cast<Pack<T> *>(to + i) = pack;
        else
            for (int k = 0; k < size && i + k < count; k++)
                to[i + k] = pack.values[k];
    });
}

} // namespace diffmd::ops::cuda
