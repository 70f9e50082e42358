#pragma once

#include "tile.h"

#include "../formulas/legendre.h"

#include <cmath>

/*
 * Block code of fourier_bessel_invariants. The velocities' radial functions are evaluated once
 * for each node; an edge's numbers are products of two radial functions and the contraction of
 * their harmonics, which is a polynomial of the scalar product: components are never made.
 */
namespace diffmd::ops::cuda {

/** Radial functions times envelope of the velocities, into the scratch. */
template <class T> struct NodesRadial {
    static constexpr int NUM_PHASES = 2;
    const T *velocities;
    int64_t num_nodes;
    double cutoff;
    formulas::RadialTable<T> table;
    /** (N,L+1,n_padded) each; derivatives with respect to y = s^2 may be null. */
    T *radial, *derivatives;
    int tile;

    size_t get_shared_bytes() const {
        Carver carver(nullptr);
        const Places<T> places(carver, tile);
        return carver.get_size();
    }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        Carver carver(block.shared);
        const Places<T> places(carver, tile);
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, num_nodes);
        if constexpr (PHASE == 0) {
            for (int row = block.thread; row < rows; row += NUM_THREADS)
                places.load(row, velocities + 3 * (first + row), cutoff, table.num_intervals);
        } else {
            static_assert(PHASE == 1);
            const int64_t at = first * formulas::layer(table);
            radial_of_tile<T, T>(block, table, rows, places, radial + at,
                                 derivatives == nullptr ? nullptr : derivatives + at);
        }
    }
};

template <class T> DIFFMD_HD T dot(const formulas::Vector<T> &a, const formulas::Vector<T> &b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

/**
 * Where there is no such node: a GPU cannot refuse an argument without being waited for, so the
 * edge gets NaN, and no memory that is not the tensors' is touched.
 */
constexpr int64_t NO_NODE = -1;

/** What the two edge kernels keep in shared memory of a tile of edges. */
template <class T> struct EdgeTile {
    Places<T> places;
    /** (rows,2) nodes i and j; (rows,2,L+1) contractions of the harmonics with theirs. */
    int64_t *nodes;
    T *contractions;

    DIFFMD_HD EdgeTile(Carver &carver, int tile, int l_max)
        : places(carver, tile), nodes(carver.take<int64_t>(2 * tile)),
          contractions(carver.take<T>(tile * 2 * (l_max + 1))) {}

    DIFFMD_HD void load(int row, int64_t edge, const Invariants<T> &in) const {
        places.load(row, in.edges.vectors + 3 * edge, in.edges.cutoff,
                    in.edges.table.num_intervals);
        for (int side = 0; side < 2; side++) {
            const int64_t node = in.edge_index[side * in.edges.num_edges + edge];
            nodes[2 * row + side] = node >= 0 && node < in.num_nodes ? node : NO_NODE;
        }
    }
    /** Scaled velocity of an edge's node, 0 beyond the cutoff. */
    DIFFMD_HD formulas::Vector<T> velocity(int row, int side, const Invariants<T> &in) const {
        const int64_t node = nodes[2 * row + side];
        if (node == NO_NODE)
            return {T(NAN), T(NAN), T(NAN)};
        const T *const v = in.velocities + 3 * node;
        const formulas::Vector<double> b{v[0] / in.velocity_cutoff, v[1] / in.velocity_cutoff,
                                         v[2] / in.velocity_cutoff};
        if (dot(b, b) >= 1.0)
            return {T{}, T{}, T{}};
        return {T(b.x), T(b.y), T(b.z)};
    }
    /** Where a node's radial functions begin, and the contraction that multiplies them. */
    DIFFMD_HD int64_t radial_of_node(int row, int side, int layer, int first) const {
        const int64_t node = nodes[2 * row + side];
        return (node == NO_NODE ? 0 : node) * layer + first;
    }
    DIFFMD_HD T contraction(int row, int side, int l_max, int l) const {
        return nodes[2 * row + side] == NO_NODE ? T(NAN)
                                                : contractions[(2 * row + side) * (l_max + 1) + l];
    }
    DIFFMD_HD formulas::Vector<T> vector(int row) const {
        return {places.x[row], places.y[row], places.z[row]};
    }
};

/** Invariants and envelope of a tile of edges. */
template <class T> struct InvariantsForward {
    static constexpr int NUM_PHASES = 3;
    Invariants<T> in;
    /** (N,L+1,n_padded) from NodesRadial. */
    const T *nodes_radial;
    T *invariants, *envelope;
    int tile;

    struct Shared {
        EdgeTile<T> edges;
        T *radial;
        /** For each of an edge's numbers, which row of n_max it is in. */
        int *group;
        size_t size;

        DIFFMD_HD Shared(Carver carver, const InvariantsForward &k)
            : edges(carver, k.tile, k.in.edges.table.l_max),
              radial(carver.take<T>(k.tile * formulas::layer(k.in.edges.table))),
              group(carver.take<int>(k.get_width())), size(carver.get_size()) {}
    };
    size_t get_shared_bytes() const { return Shared(Carver(nullptr), *this).size; }
    DIFFMD_HD int get_width() const {
        return in.edges.table.n_max * (1 + 2 * (in.edges.table.l_max + 1));
    }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        const Shared shared(Carver(block.shared), *this);
        const EdgeTile<T> &edges = shared.edges;
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, in.edges.num_edges);
        const int l_max = in.edges.table.l_max;
        if constexpr (PHASE == 0) {
            for (int row = block.thread; row < rows; row += NUM_THREADS) {
                edges.load(row, first + row, in);
                envelope[first + row] = edges.places.envelope[row];
            }
            for (int i = block.thread; i < get_width(); i += NUM_THREADS)
                shared.group[i] = i / in.edges.table.n_max;
        } else if constexpr (PHASE == 1) {
            for (int i = block.thread; i < 2 * rows; i += NUM_THREADS) {
                const int row = i / 2, side = i % 2;
                const auto a = edges.vector(row), b = edges.velocity(row, side, in);
                formulas::contract_harmonics<T>(l_max, dot(a, b), dot(a, a) * dot(b, b),
                                                edges.contractions + i * (l_max + 1));
            }
            radial_of_tile<T, T>(block, in.edges.table, rows, edges.places, shared.radial, nullptr);
        } else {
            static_assert(PHASE == 2);
            write(block, shared, rows, invariants + first * get_width());
        }
    }

    DIFFMD_HD void write(const Block &block, const Shared &shared, int rows, T *to) const {
        const auto &table = in.edges.table;
        const int n_max = table.n_max, layer = formulas::layer(table), width = get_width();
        // The group's radial functions of the edge and of the node, and the contraction.
        struct Factors {
            const T *edge, *node;
            T contraction;
        };
        const auto factors = [&](int row, int group) {
            const int l = group == 0 ? 0 : (group - 1) / 2, side = (group - 1) & 1;
            Factors f{shared.radial + row * layer + l * table.n_padded, nullptr, T(1)};
            if (group > 0) {
                f.node = nodes_radial +
                         shared.edges.radial_of_node(row, side, layer, l * table.n_padded);
                f.contraction = shared.edges.contraction(row, side, table.l_max, l);
            }
            return f;
        };
        const auto number = [](const Factors &f, int n) {
            return f.node == nullptr ? f.edge[n] : f.edge[n] * f.node[n] * f.contraction;
        };
        if (n_max % Pack<T>::SIZE == 0 && is_aligned(to)) {
            for_rows(block, rows * width, width, Pack<T>::SIZE, [&](int i, int row, int column) {
                const int group = shared.group[column], n = column - group * n_max;
                const Factors f = factors(row, group);
                auto pack = *reinterpret_cast<const Pack<T> *>(f.edge + n);
                if (f.node != nullptr) {
                    const auto node = *reinterpret_cast<const Pack<T> *>(f.node + n);
                    for (int k = 0; k < Pack<T>::SIZE; k++)
                        pack.values[k] *= node.values[k] * f.contraction;
                }
                *reinterpret_cast<Pack<T> *>(to + i) = pack;
            });
        } else {
            write_rows(block, rows * width, width, to, [&](int row, int column) {
                const int group = shared.group[column];
                return number(factors(row, group), column - group * n_max);
            });
        }
    }
};

/** Gradients of a tile of edges' vectors, and its part of their velocities' gradients. */
template <class T> struct InvariantsBackward {
    static constexpr int NUM_PHASES = 4;
    Invariants<T> in;
    /** (N,L+1,n_padded) each, from NodesRadial. */
    const T *nodes_radial, *nodes_derivatives;
    const T *grad_invariants, *grad_envelope;
    /** (E,3), (E,2,3) */
    T *grad_vectors, *edge_gradients;
    int tile;

    struct Shared {
        EdgeTile<T> edges;
        /** As the contractions: their derivatives with respect to a.b and |a|^2 |b|^2. */
        T *by_dot, *by_squares;
        T *radial, *radial_derivatives, *grad;
        /** For each group of an edge's gradients: with respect to y of edge and node, and the
         *  contraction. */
        T *edge_slopes, *node_slopes, *contraction_slopes;
        size_t size;

        DIFFMD_HD Shared(Carver carver, const InvariantsBackward &k)
            : edges(carver, k.tile, k.in.edges.table.l_max),
              by_dot(carver.take<T>(k.tile * (k.get_num_groups() - 1))),
              by_squares(carver.take<T>(k.tile * (k.get_num_groups() - 1))),
              radial(carver.take<T>(k.tile * formulas::layer(k.in.edges.table))),
              radial_derivatives(carver.take<T>(k.tile * formulas::layer(k.in.edges.table))),
              grad(carver.take<T>(k.tile * k.get_num_groups() * k.in.edges.table.n_max)),
              edge_slopes(carver.take<T>(k.tile * k.get_num_groups())),
              node_slopes(carver.take<T>(k.tile * k.get_num_groups())),
              contraction_slopes(carver.take<T>(k.tile * k.get_num_groups())),
              size(carver.get_size()) {}
    };
    size_t get_shared_bytes() const { return Shared(Carver(nullptr), *this).size; }
    DIFFMD_HD int get_num_groups() const { return 1 + 2 * (in.edges.table.l_max + 1); }

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        const Shared shared(Carver(block.shared), *this);
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, in.edges.num_edges);
        if constexpr (PHASE == 0) {
            const int width = get_num_groups() * in.edges.table.n_max;
            copy(block, rows * width, grad_invariants + first * width, shared.grad);
            for (int row = block.thread; row < rows; row += NUM_THREADS)
                shared.edges.load(row, first + row, in);
        } else if constexpr (PHASE == 1) {
            contract(block, shared, rows);
            radial_of_tile<T, T>(block, in.edges.table, rows, shared.edges.places, shared.radial,
                                 shared.radial_derivatives);
        } else if constexpr (PHASE == 2) {
            sum_radial(block, shared, rows);
        } else {
            static_assert(PHASE == 3);
            for (int row = block.thread; row < rows; row += NUM_THREADS)
                finish(shared, row, first + row);
        }
    }

    DIFFMD_HD void contract(const Block &block, const Shared &shared, int rows) const {
        const int l_max = in.edges.table.l_max;
        for (int i = block.thread; i < 2 * rows; i += NUM_THREADS) {
            const int row = i / 2, side = i % 2;
            const auto a = shared.edges.vector(row), b = shared.edges.velocity(row, side, in);
            const int at = i * (l_max + 1);
            formulas::contract_harmonics<T>(l_max, dot(a, b), dot(a, a) * dot(b, b),
                                            shared.edges.contractions + at, shared.by_dot + at,
                                            shared.by_squares + at);
        }
    }

    /** Sums over n, a thread for each edge and group of n_max numbers. */
    DIFFMD_HD void sum_radial(const Block &block, const Shared &shared, int rows) const {
        const auto &table = in.edges.table;
        const int groups = get_num_groups(), layer = formulas::layer(table);
        for (int i = block.thread; i < rows * groups; i += NUM_THREADS) {
            const int row = i / groups, group = i - row * groups;
            const int l = group == 0 ? 0 : (group - 1) / 2, side = (group - 1) & 1;
            const int from = row * layer + l * table.n_padded;
            const T *const grad = shared.grad + i * table.n_max;
            T edge_slope{}, node_slope{}, contraction_slope{};
            if (group == 0) {
                for (int n = 0; n < table.n_max; n++)
                    edge_slope += grad[n] * shared.radial_derivatives[from + n];
            } else {
                const int64_t node =
                    shared.edges.radial_of_node(row, side, layer, l * table.n_padded);
                for (int n = 0; n < table.n_max; n++) {
                    const T of_node = nodes_radial[node + n];
                    const T weighted = grad[n] * shared.radial[from + n];
                    edge_slope += grad[n] * shared.radial_derivatives[from + n] * of_node;
                    node_slope += weighted * nodes_derivatives[node + n];
                    contraction_slope += weighted * of_node;
                }
                const T contraction = shared.edges.contraction(row, side, table.l_max, l);
                edge_slope *= contraction;
                node_slope *= contraction;
            }
            shared.edge_slopes[i] = edge_slope;
            shared.node_slopes[i] = node_slope;
            shared.contraction_slopes[i] = contraction_slope;
        }
    }

    DIFFMD_HD void finish(const Shared &shared, int row, int64_t edge) const {
        const int groups = get_num_groups();
        const auto a = shared.edges.vector(row);
        T slope = grad_envelope[edge] * shared.edges.places.envelope_derivative[row] +
                  shared.edge_slopes[row * groups];
        formulas::Vector<T> sum{T{}, T{}, T{}};
        for (int side = 0; side < 2; side++) {
            const auto b = shared.edges.velocity(row, side, in);
            T node_slope{}, by_dot{}, by_squares{};
            const int num_degrees = groups / 2;
            for (int l = 0; l < num_degrees; l++) {
                const int at = row * groups + 1 + 2 * l + side;
                const int contraction = (2 * row + side) * num_degrees + l;
                slope += shared.edge_slopes[at];
                node_slope += shared.node_slopes[at];
                by_dot += shared.contraction_slopes[at] * shared.by_dot[contraction];
                by_squares += shared.contraction_slopes[at] * shared.by_squares[contraction];
            }
            slope += by_squares * dot(b, b);
            node_slope += by_squares * dot(a, a);
            sum.x += by_dot * b.x;
            sum.y += by_dot * b.y;
            sum.z += by_dot * b.z;
            const T over = T(1 / in.velocity_cutoff);
            T *const to = edge_gradients + (2 * edge + side) * 3;
            to[0] = (2 * node_slope * b.x + by_dot * a.x) * over;
            to[1] = (2 * node_slope * b.y + by_dot * a.y) * over;
            to[2] = (2 * node_slope * b.z + by_dot * a.z) * over;
        }
        const T over = T(1 / in.edges.cutoff);
        grad_vectors[3 * edge] = (2 * slope * a.x + sum.x) * over;
        grad_vectors[3 * edge + 1] = (2 * slope * a.y + sum.y) * over;
        grad_vectors[3 * edge + 2] = (2 * slope * a.z + sum.z) * over;
    }
};

/** Sum of each node's parts of its velocity's gradient, in the order given. */
template <class T> struct NodesSum {
    static constexpr int NUM_PHASES = 1;
    const T *edge_gradients;
    const int64_t *order, *starts;
    int64_t num_nodes;
    T *grad_velocities;
    static constexpr int tile = NUM_THREADS / 4;

    template <int PHASE> DIFFMD_HD void run(const Block &block) const {
        const int64_t first = block.index * tile;
        const int rows = rows_of_tile(block, tile, num_nodes);
        for (int i = block.thread; i < 3 * rows; i += NUM_THREADS) {
            const int64_t node = first + i / 3;
            T sum{};
            for (int64_t k = starts[node]; k < starts[node + 1]; k++)
                sum += edge_gradients[3 * order[k] + i % 3];
            grad_velocities[3 * first + i] = sum;
        }
    }
};

} // namespace diffmd::ops::cuda
