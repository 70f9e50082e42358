#pragma once

#include "tile.h"

#include <type_traits>

/* Block code of solid_harmonics. */
namespace diffmd::ops::cuda {

/** r^l Y_lm of a tile of vectors. */
template <class T, int LMax> struct HarmonicsForward {
    static constexpr int NUM_PHASES = 2, NUM_HARMONICS = (LMax + 1) * (LMax + 1);
    const T *vectors;
    int64_t num_edges;
    T *out;
    int tile;

    size_t get_shared_bytes() const { return tile * harmonics_stride(LMax) * sizeof(T); }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        T *const harmonics = reinterpret_cast<T *>(block.shared);
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, num_edges);
        if constexpr (PHASE == 0) {
            for (int row = block.thread; row < rows; row += NUM_THREADS) {
                const T *const x = vectors + 3 * (first + row);
                T s[NUM_HARMONICS];
                formulas::solid_harmonics<LMax, T>(x[0], x[1], x[2], s);
                for (int i = 0; i < NUM_HARMONICS; i++)
                    harmonics[row * harmonics_stride(LMax) + i] = s[i];
            }
        } else {
            static_assert(PHASE == 1);
            write_rows(block, rows * NUM_HARMONICS, NUM_HARMONICS, out + first * NUM_HARMONICS,
                       [&](int row, int i) { return harmonics[row * harmonics_stride(LMax) + i]; });
        }
    }
};

/**
 * Gradient of the vectors: on C = T. On C = Dual<double> and T = double the directional
 * derivatives of forward and backward along `direction`.
 */
template <class C, class T, int LMax> struct HarmonicsBackward {
    static constexpr bool DOUBLE_BACKWARD = !std::is_same_v<C, T>;
    static constexpr int NUM_PHASES = DOUBLE_BACKWARD ? 3 : 2;
    static constexpr int NUM_HARMONICS = (LMax + 1) * (LMax + 1), STRIDE = harmonics_stride(LMax);
    const T *vectors, *grad;
    int64_t num_edges;
    /** (E,3); with C = Dual<double> its derivative. */
    T *grad_out;
    /** (E,3) and (E,(L+1)^2), with C = Dual<double> only. */
    const T *direction;
    T *grad_harmonics;
    int tile;

    /** Gradients of the harmonics, then their tangents. */
    size_t get_shared_bytes() const {
        Carver carver(nullptr);
        carver.take<T>(tile * STRIDE);
        carver.take<T>(DOUBLE_BACKWARD ? tile * STRIDE : 0);
        return carver.get_size();
    }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        Carver carver(block.shared);
        T *const grads = carver.take<T>(tile * STRIDE);
        T *const tangents = carver.take<T>(DOUBLE_BACKWARD ? tile * STRIDE : 0);
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, num_edges);
        if constexpr (PHASE == 0) {
            const T *const from = grad + first * NUM_HARMONICS;
            for_rows(block, rows * NUM_HARMONICS, NUM_HARMONICS, 1,
                     [&](int i, int row, int c) { grads[row * STRIDE + c] = from[i]; });
        } else if constexpr (PHASE == 1) {
            for (int row = block.thread; row < rows; row += NUM_THREADS)
                backward(first + row, grads + row * STRIDE, tangents + row * STRIDE);
        } else {
            static_assert(PHASE == 2);
            write_rows(block, rows * NUM_HARMONICS, NUM_HARMONICS,
                       grad_harmonics + first * NUM_HARMONICS,
                       [&](int row, int c) { return tangents[row * STRIDE + c]; });
        }
    }

    DIFFMD_HD void backward(int64_t edge, const T *grads, T *tangents) const {
        const int64_t at = 3 * edge;
        C x[3], s[NUM_HARMONICS], weights[NUM_HARMONICS];
        for (int k = 0; k < 3; k++)
            if constexpr (DOUBLE_BACKWARD)
                x[k] = C{vectors[at + k], direction[at + k]};
            else
                x[k] = vectors[at + k];
        formulas::solid_harmonics<LMax, T>(x[0], x[1], x[2], s);
        for (int i = 0; i < NUM_HARMONICS; i++)
            weights[i] = C{} + grads[i];
        const auto sum = weighted_gradient<LMax, C>(s, weights);
        if constexpr (DOUBLE_BACKWARD) {
            for (int i = 0; i < NUM_HARMONICS; i++)
                tangents[i] = s[i].tangent;
            grad_out[at] = sum.x.tangent;
            grad_out[at + 1] = sum.y.tangent;
            grad_out[at + 2] = sum.z.tangent;
        } else {
            grad_out[at] = sum.x;
            grad_out[at + 1] = sum.y;
            grad_out[at + 2] = sum.z;
        }
    }
};

} // namespace diffmd::ops::cuda
