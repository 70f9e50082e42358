#pragma once

#include "tile.h"

/* Block code of spherical_fourier_bessel: Phi = R_ln S_lm, R = envelope times radial function. */
namespace diffmd::ops::cuda {

/** Features of a tile of edges: the factors into shared memory, then their products out. */
template <class T, int LMax> struct FeaturesForward {
    static constexpr int NUM_PHASES = 3, NUM_HARMONICS = (LMax + 1) * (LMax + 1);
    Features<T> in;
    T *out;
    int tile;

    struct Shared {
        Places<T> places;
        T *radial, *harmonics;
        /** For each component, where the radial functions of its l begin. */
        int *radial_of_component;
        size_t size;

        DIFFMD_HD Shared(Carver carver, const FeaturesForward &k)
            : places(carver, k.tile), radial(carver.take<T>(k.tile * formulas::layer(k.in.table))),
              harmonics(carver.take<T>(k.tile * harmonics_stride(LMax))),
              radial_of_component(carver.take<int>(NUM_HARMONICS)), size(carver.get_size()) {}
    };
    size_t get_shared_bytes() const { return Shared(Carver(nullptr), *this).size; }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        const Shared shared(Carver(block.shared), *this);
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, in.num_edges);
        if constexpr (PHASE == 0) {
            for (int row = block.thread; row < rows; row += NUM_THREADS)
                shared.places.load(row, in.vectors + 3 * (first + row), in.cutoff,
                                   in.table.num_intervals);
            for (int i = block.thread; i < NUM_HARMONICS; i += NUM_THREADS)
                shared.radial_of_component[i] = degree_of(i) * in.table.n_padded;
        } else if constexpr (PHASE == 1) {
            harmonics_of_tile<LMax>(block, rows, shared.places, shared.harmonics);
            radial_of_tile<T, T>(block, in.table, rows, shared.places, shared.radial, nullptr);
        } else {
            static_assert(PHASE == 2);
            write(block, shared, rows, out + first * NUM_HARMONICS * in.table.n_max);
        }
    }

    DIFFMD_HD void write(const Block &block, const Shared &shared, int rows, T *to) const {
        const int n_max = in.table.n_max, layer = formulas::layer(in.table);
        const int components = rows * NUM_HARMONICS;
        // A row of n numbers is one component of one edge: R of its l, times one harmonic.
        const auto radial = [&](int c) {
            return shared.radial + c / NUM_HARMONICS * layer +
                   shared.radial_of_component[c % NUM_HARMONICS];
        };
        const auto harmonic = [&](int c) {
            return shared.harmonics[c / NUM_HARMONICS * harmonics_stride(LMax) + c % NUM_HARMONICS];
        };
        if (n_max % Pack<T>::SIZE == 0 && is_aligned(to)) {
            for_rows(block, components * n_max, n_max, Pack<T>::SIZE, [&](int i, int c, int n) {
                auto pack = *reinterpret_cast<const Pack<T> *>(radial(c) + n);
                const T s = harmonic(c);
                for (T &number : pack.values)
                    number *= s;
                *reinterpret_cast<Pack<T> *>(to + i) = pack;
            });
        } else {
            write_rows(block, components * n_max, n_max, to,
                       [&](int c, int n) { return radial(c)[n] * harmonic(c); });
        }
    }
};

/**
 * What backward and double backward share. On numbers C = T: the vectors' gradient. On
 * C = Dual<double> with the vectors' tangent: its directional derivative too.
 */
template <class C, class T, int LMax> struct FeaturesContraction {
    static constexpr int NUM_HARMONICS = (LMax + 1) * (LMax + 1);

    struct Shared {
        Places<C> places;
        C *radial, *radial_derivatives, *harmonics, *weights, *slopes;
        T *grad;
        size_t size;

        DIFFMD_HD Shared(Carver carver, const formulas::RadialTable<T> &table, int tile)
            : places(carver, tile), radial(carver.take<C>(tile * formulas::layer(table))),
              radial_derivatives(carver.take<C>(tile * formulas::layer(table))),
              harmonics(carver.take<C>(tile * harmonics_stride(LMax))),
              weights(carver.take<C>(tile * harmonics_stride(LMax))),
              slopes(carver.take<C>(tile * harmonics_stride(LMax))),
              grad(carver.take<T>(tile * NUM_HARMONICS * table.n_max)), size(carver.get_size()) {}
    };

    DIFFMD_HD static void evaluate(const Block &block, const Shared &shared,
                                   const formulas::RadialTable<T> &table, int rows) {
        harmonics_of_tile<LMax>(block, rows, shared.places, shared.harmonics);
        radial_of_tile<C, T>(block, table, rows, shared.places, shared.radial,
                             shared.radial_derivatives);
    }

    /** Sums over n, a thread for each edge and component: of grad R and grad dR/dy S. */
    DIFFMD_HD static void sum_radial(const Block &block, const Shared &shared,
                                     const formulas::RadialTable<T> &table, int rows) {
        const int n_max = table.n_max, layer = formulas::layer(table);
        const int begin = first_of_row<T>(block.thread, n_max);
        for (int i = block.thread; i < rows * NUM_HARMONICS; i += NUM_THREADS) {
            const int row = i / NUM_HARMONICS, c = i - row * NUM_HARMONICS;
            const int from = row * layer + degree_of(c) * table.n_padded;
            C weight{}, slope{};
            for (int turn = 0, n = begin; turn < n_max; turn++) {
                const T grad = shared.grad[i * n_max + n];
                weight = weight + shared.radial[from + n] * grad;
                slope = slope + shared.radial_derivatives[from + n] * grad;
                if (++n == n_max)
                    n = 0;
            }
            const int to = row * harmonics_stride(LMax) + c;
            shared.weights[to] = weight;
            shared.slopes[to] = slope * shared.harmonics[to];
        }
    }

    /** d sum(grad Phi)/dx of one row, x the vector over the cutoff. */
    DIFFMD_HD static formulas::Vector<C> gradient(const Shared &shared, int row) {
        const int from = row * harmonics_stride(LMax);
        formulas::Vector<C> sum =
            weighted_gradient<LMax>(shared.harmonics + from, shared.weights + from);
        C slope{};
        for (int c = 0; c < NUM_HARMONICS; c++)
            slope = slope + shared.slopes[from + c];
        slope = slope + slope;
        sum.x = sum.x + slope * shared.places.x[row];
        sum.y = sum.y + slope * shared.places.y[row];
        sum.z = sum.z + slope * shared.places.z[row];
        return sum;
    }
};

/** Gradient of the vectors. */
template <class T, int LMax> struct FeaturesBackward {
    using Contraction = FeaturesContraction<T, T, LMax>;
    using Shared = typename Contraction::Shared;
    static constexpr int NUM_PHASES = 4;
    Features<T> in;
    const T *grad;
    T *grad_out;
    int tile;

    size_t get_shared_bytes() const { return Shared(Carver(nullptr), in.table, tile).size; }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        const Shared shared(Carver(block.shared), in.table, tile);
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, in.num_edges);
        if constexpr (PHASE == 0) {
            const int width = Contraction::NUM_HARMONICS * in.table.n_max;
            copy(block, rows * width, grad + first * width, shared.grad);
            for (int row = block.thread; row < rows; row += NUM_THREADS)
                shared.places.load(row, in.vectors + 3 * (first + row), in.cutoff,
                                   in.table.num_intervals);
        } else if constexpr (PHASE == 1) {
            Contraction::evaluate(block, shared, in.table, rows);
        } else if constexpr (PHASE == 2) {
            Contraction::sum_radial(block, shared, in.table, rows);
        } else {
            static_assert(PHASE == 3);
            const T over = T(1 / in.cutoff);
            for (int row = block.thread; row < rows; row += NUM_THREADS) {
                const auto sum = Contraction::gradient(shared, row);
                T *const to = grad_out + 3 * (first + row);
                to[0] = sum.x * over;
                to[1] = sum.y * over;
                to[2] = sum.z * over;
            }
        }
    }
};

/** Derivatives of features and of the backward's result along a direction of the vectors. */
template <int LMax> struct FeaturesDoubleBackward {
    using Dual = formulas::Dual<double>;
    using Contraction = FeaturesContraction<Dual, double, LMax>;
    using Shared = typename Contraction::Shared;
    static constexpr int NUM_PHASES = 4;
    Features<double> in;
    const double *grad, *direction;
    double *grad_features, *grad_vectors;
    int tile;

    size_t get_shared_bytes() const { return Shared(Carver(nullptr), in.table, tile).size; }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        const Shared shared(Carver(block.shared), in.table, tile);
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, in.num_edges);
        const int width = Contraction::NUM_HARMONICS * in.table.n_max;
        if constexpr (PHASE == 0) {
            copy(block, rows * width, grad + first * width, shared.grad);
            for (int row = block.thread; row < rows; row += NUM_THREADS) {
                const double *const x = in.vectors + 3 * (first + row);
                const double *const dx = direction + 3 * (first + row);
                shared.places.set(row, Dual{x[0] / in.cutoff, dx[0] / in.cutoff},
                                  Dual{x[1] / in.cutoff, dx[1] / in.cutoff},
                                  Dual{x[2] / in.cutoff, dx[2] / in.cutoff},
                                  in.table.num_intervals);
            }
        } else if constexpr (PHASE == 1) {
            Contraction::evaluate(block, shared, in.table, rows);
        } else if constexpr (PHASE == 2) {
            Contraction::sum_radial(block, shared, in.table, rows);
        } else {
            static_assert(PHASE == 3);
            for (int row = block.thread; row < rows; row += NUM_THREADS) {
                const auto sum = Contraction::gradient(shared, row);
                double *const to = grad_vectors + 3 * (first + row);
                to[0] = sum.x.tangent / in.cutoff;
                to[1] = sum.y.tangent / in.cutoff;
                to[2] = sum.z.tangent / in.cutoff;
            }
            write_rows(block, rows * width, width, grad_features + first * width,
                       [&](int row, int column) {
                           const int c = column / in.table.n_max;
                           const int n = column - c * in.table.n_max;
                           const Dual radial = shared.radial[row * formulas::layer(in.table) +
                                                             degree_of(c) * in.table.n_padded + n];
                           const Dual harmonic = shared.harmonics[row * harmonics_stride(LMax) + c];
                           return (radial * harmonic).tangent;
                       });
        }
    }
};

} // namespace diffmd::ops::cuda
