#pragma once

#include "../formulas/legendre.h"
#include "block.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

template <class T, int N>
void velocity_radial(const Invariants<T> &in, int64_t begin, int64_t end, T *scaled, T *radial,
                     T *derivative) {
    using R = Row<T, N>;
    const RadialTable<T> &table = in.edges.table;
    const int layer = formulas::layer(table);
    Block<T> block;
    for (int64_t first = begin; first < end; first += block.size) {
        const int64_t count = end - first < block.size ? end - first : block.size;
        block.set(in.velocities + 3 * first, count, in.velocity_cutoff, table.num_intervals);
        for (int e = 0; e < count; e++) {
            const T x = block.x[e], y = block.y[e], z = block.z[e];
            T *const to = scaled + 4 * (first + e);
            to[0] = x, to[1] = y, to[2] = z, to[3] = x * x + y * y + z * z;
            const T *const c = interval_start(table, block.interval[e]);
            const T u = block.envelope[e];
            for (int l = 0; l <= table.l_max; l++) {
                const int64_t at = (first + e) * layer + l * N;
                R q, dq;
                radial_row<T, N>(c + l * N, layer, block.t[e], q, dq);
                (q * u).write(radial + at);
                if (derivative)
                    (q * block.envelope_derivative[e] + dq * (u * block.dt[e]))
                        .write(derivative + at);
            }
        }
    }
}

/** A block of edges with one of their ends' velocities: the contractions over m. */
template <class T> struct BlockEnd {
    static constexpr int size = lanes<T>;
    using V = EdgeVector<T>;
    /** The velocities over their cutoff. */
    alignas(64) T x[size], y[size], z[size], square[size];
    /** [l][edge], and derivatives with respect to a.b and |a|^2 |b|^2. */
    V g[max_degree + 1], g_d[max_degree + 1], g_q[max_degree + 1];

    template <bool Derivatives>
    DIFFMD_HD void set(const Block<T> &block, const T *scaled, const int64_t *nodes, int count,
                       int l_max) {
        for (int e = 0; e < size; e++) {
            const T zero[4] = {};
            const T *const v = e < count ? scaled + 4 * nodes[e] : zero;
            x[e] = v[0], y[e] = v[1], z[e] = v[2], square[e] = v[3];
        }
        const V ax = load<V>(block.x), ay = load<V>(block.y), az = load<V>(block.z);
        const V d = ax * load<V>(x) + ay * load<V>(y) + az * load<V>(z);
        const V q = (ax * ax + ay * ay + az * az) * load<V>(square);
        if constexpr (Derivatives)
            formulas::contract_harmonics<T>(l_max, d, q, g, g_d, g_q);
        else
            formulas::contract_harmonics<T>(l_max, d, q, g);
    }

    static DIFFMD_HD T lane(const V *v, int l, int e) {
        return reinterpret_cast<const T *>(v + l)[e];
    }
};

template <class T, int N>
void invariants_forward(const Invariants<T> &in, const T *scaled, const T *radial, int64_t begin,
                        int64_t end, T *invariants, T *envelope) {
    using R = Row<T, N>;
    const RadialTable<T> &table = in.edges.table;
    const int l_max = table.l_max, n_max = table.n_max, layer = formulas::layer(table);
    const int64_t size = n_max * (1 + 2 * (l_max + 1));
    const int64_t *const node_i = in.edge_index, *const node_j = in.edge_index + in.edges.num_edges;
    Block<T> block;
    BlockEnd<T> i, j;
    for (int64_t first = begin; first < end; first += block.size) {
        const int count = int(end - first < block.size ? end - first : block.size);
        block.set(in.edges.vectors + 3 * first, count, in.edges.cutoff, table.num_intervals);
        i.template set<false>(block, scaled, node_i + first, count, l_max);
        j.template set<false>(block, scaled, node_j + first, count, l_max);
        for (int e = 0; e < count; e++) {
            const T *const c = interval_start(table, block.interval[e]);
            const T *const radial_i = radial + node_i[first + e] * layer;
            const T *const radial_j = radial + node_j[first + e] * layer;
            const bool last = (first + e + 1) * size + N - n_max > end * size;
            alignas(64) T rows[(1 + 2 * (max_degree + 1)) * N];
            T *const to = invariants + (first + e) * size;
            T *row = last ? rows : to;
            for (int l = 0; l <= l_max; l++) {
                R q;
                radial_row<T, N>(c + l * N, layer, block.t[e], q);
                q = q * block.envelope[e];
                if (l == 0) {
                    q.write(row);
                    row += n_max;
                }
                (q * R::read(radial_i + l * N) * i.lane(i.g, l, e)).write(row);
                row += n_max;
                (q * R::read(radial_j + l * N) * j.lane(j.g, l, e)).write(row);
                row += n_max;
            }
            if (last)
                std::memcpy(to, rows, size * sizeof(T));
            envelope[first + e] = block.envelope[e];
        }
    }
}

/**
 * Backward sums of one end of one edge over l and n: g times the invariants' derivatives with
 * respect to a.b, to |a|^2 |b|^2, and to |b|^2 by the velocity's radial functions.
 */
template <class T, int N> struct EndSums {
    using R = Row<T, N>;
    R d = R::zero(), q = R::zero(), square = R::zero();

    /**
     * One degree's row.
     *
     * @param edge, edge_derivative  the edge's radial functions and their derivatives
     * @param along                  in and out: sum of the derivative with respect to |a|^2 by
     *                               the edge's radial functions
     */
    DIFFMD_HD void add(R grad, R edge, R edge_derivative, R end, R end_derivative, T g, T g_d,
                       T g_q, R &along) {
        const R weighted = grad * end, product = weighted * edge;
        d = d + product * g_d;
        q = q + product * g_q;
        along = along + weighted * edge_derivative * g;
        square = square + grad * edge * end_derivative * g;
    }
};

template <class T, int N>
void invariants_backward(const Invariants<T> &in, const T *scaled, const T *radial,
                         const T *derivative, const T *grad_invariants, const T *grad_envelope,
                         int64_t begin, int64_t end, T *grad_vectors, T *edge_gradients) {
    using R = Row<T, N>;
    const RadialTable<T> &table = in.edges.table;
    const int l_max = table.l_max, n_max = table.n_max, layer = formulas::layer(table);
    const int64_t size = n_max * (1 + 2 * (l_max + 1));
    const int64_t *const node_i = in.edge_index, *const node_j = in.edge_index + in.edges.num_edges;
    const T over = T(1.0 / in.edges.cutoff), velocity_over = T(1.0 / in.velocity_cutoff);
    Block<T> block;
    BlockEnd<T> i, j;
    for (int64_t first = begin; first < end; first += block.size) {
        const int count = int(end - first < block.size ? end - first : block.size);
        block.set(in.edges.vectors + 3 * first, count, in.edges.cutoff, table.num_intervals);
        i.template set<true>(block, scaled, node_i + first, count, l_max);
        j.template set<true>(block, scaled, node_j + first, count, l_max);
        for (int e = 0; e < count; e++) {
            const T *const c = interval_start(table, block.interval[e]);
            const int64_t at_i = node_i[first + e] * layer, at_j = node_j[first + e] * layer;
            const T *g = grad_invariants + (first + e) * size;
            alignas(64) T rows[(1 + 2 * (max_degree + 1)) * N];
            // Rows are read N wide; behind the last edges there is nothing to read.
            if ((first + e + 1) * size + N - n_max > in.edges.num_edges * size) {
                std::memset(rows, 0, sizeof(rows));
                std::memcpy(rows, g, size * sizeof(T));
                g = rows;
            }
            const T u = block.envelope[e], du = block.envelope_derivative[e];
            R along = R::zero();
            EndSums<T, N> sums_i, sums_j;
            for (int l = 0; l <= l_max; l++) {
                R q, dq;
                radial_row<T, N>(c + l * N, layer, block.t[e], q, dq);
                dq = q * du + dq * (u * block.dt[e]);
                q = q * u;
                if (l == 0) {
                    along = R::read(g) * dq;
                    g += n_max;
                }
                sums_i.add(R::read(g), q, dq, R::read(radial + at_i + l * N),
                           R::read(derivative + at_i + l * N), i.lane(i.g, l, e),
                           i.lane(i.g_d, l, e), i.lane(i.g_q, l, e), along);
                g += n_max;
                sums_j.add(R::read(g), q, dq, R::read(radial + at_j + l * N),
                           R::read(derivative + at_j + l * N), j.lane(j.g, l, e),
                           j.lane(j.g_d, l, e), j.lane(j.g_q, l, e), along);
                g += n_max;
            }
            const T a[3] = {block.x[e], block.y[e], block.z[e]};
            const T square = a[0] * a[0] + a[1] * a[1] + a[2] * a[2];
            const T vi[3] = {i.x[e], i.y[e], i.z[e]}, vj[3] = {j.x[e], j.y[e], j.z[e]};
            const T d_i = sums_i.d.sum(n_max), d_j = sums_j.d.sum(n_max);
            const T q_i = sums_i.q.sum(n_max), q_j = sums_j.q.sum(n_max);
            const T radial_part = T(2) * (along.sum(n_max) + grad_envelope[first + e] * du +
                                          q_i * i.square[e] + q_j * j.square[e]);
            const T part_i = T(2) * (q_i * square + sums_i.square.sum(n_max));
            const T part_j = T(2) * (q_j * square + sums_j.square.sum(n_max));
            T *const to = grad_vectors + 3 * (first + e), *const ends =
                                                              edge_gradients + 6 * (first + e);
            for (int k = 0; k < 3; k++) {
                to[k] = (d_i * vi[k] + d_j * vj[k] + radial_part * a[k]) * over;
                ends[k] = (d_i * a[k] + part_i * vi[k]) * velocity_over;
                ends[3 + k] = (d_j * a[k] + part_j * vj[k]) * velocity_over;
            }
        }
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
