#pragma once

#include "block.h"
#include "stream.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

/**
 * One edge's rows: Phi_lmn = Q_ln (u S_lm).
 *
 * @tparam L     l_max, for loops that are unrolled; -1 where it is known at run time only
 * @param c      coefficients of the edge's interval
 * @param s      u S_lm at s[lanes * component]
 * @param write  write(component, row) takes them in order
 */
template <class T, int N, int L, class Write>
DIFFMD_HD void features_of_edge(const RadialTable<T> &table, const T *c, T t, const T *s,
                                Write &&write) {
    if constexpr (L >= 0) {
        RadialRows<T, N, L> q;
        q.set(c, t);
        formulas::static_for<0, L + 1>([&](auto degree) {
            constexpr int l = decltype(degree)::value;
            for (int i = l * l; i < (l + 1) * (l + 1); i++)
                write(i, q.value[l] * s[lanes<T> * i]);
        });
    } else {
        const int layer = formulas::layer(table);
        for (int l = 0; l <= table.l_max; l++) {
            Row<T, N> q;
            radial_row<T, N>(c + l * N, layer, t, q);
            for (int i = l * l; i < (l + 1) * (l + 1); i++)
                write(i, q * s[lanes<T> * i]);
        }
    }
}

template <class T, int N, int L>
void features_forward(const Features<T> &in, int64_t begin, int64_t end, bool stream, T *out) {
    using V = EdgeVector<T>;
    using R = Row<T, N>;
    const int l_max = in.table.l_max, components = (l_max + 1) * (l_max + 1);
    const int n_max = in.table.n_max;
    const int64_t size = components * n_max;
    // Rows without padding go past the caches as they come.
    const bool direct = stream && n_max == N && uintptr_t(out) % 64 == 0;
    LineWriter<T, max_components * N> lines(out + begin * size);
    Block<T> block;
    BlockHarmonics<T> harmonics;
    for (int64_t first = begin; first < end; first += block.size) {
        const int64_t count = end - first < block.size ? end - first : block.size;
        block.set(in.vectors + 3 * first, count, in.cutoff, in.table.num_intervals);
        harmonics.template set<false>(in.table.l_max, block.x, block.y, block.z);
        const V u = load<V>(block.envelope);
        for (int i = 0; i < components; i++)
            harmonics.value[i] = harmonics.value[i] * u;
        for (int e = 0; e < count; e++) {
            const T *const c = interval_start(in.table, block.interval[e]);
            const T *const s = reinterpret_cast<const T *>(harmonics.value) + e;
            const T t = block.t[e];
            T *const to = out + (first + e) * size;
            if (direct) {
                features_of_edge<T, N, L>(in.table, c, t, s,
                                          [&](int i, R row) { row.stream(to + i * N); });
            } else if (stream) {
                T *const here = lines.next();
                features_of_edge<T, N, L>(in.table, c, t, s,
                                          [&](int i, R row) { row.write(here + i * n_max); });
                lines.add(size);
            } else if ((first + e + 1) * size + N - n_max <= end * size) {
                features_of_edge<T, N, L>(in.table, c, t, s,
                                          [&](int i, R row) { row.write(to + i * n_max); });
            } else {
                // What lies behind the last edges is not ours.
                alignas(64) T rows[max_components * N];
                features_of_edge<T, N, L>(in.table, c, t, s,
                                          [&](int i, R row) { row.write(rows + i * n_max); });
                std::memcpy(to, rows, size * sizeof(T));
            }
        }
    }
    if (stream) {
        lines.finish();
        stream_end();
    }
}

/** One edge's backward sums over components: four rows, whose sums over n are wanted. */
template <class T, int N> struct GradientRows {
    using R = Row<T, N>;
    /** Of g dQ/dt (u S), and of g Q d(u S)/d(x,y,z). */
    R radial = R::zero(), x = R::zero(), y = R::zero(), z = R::zero();

    /**
     * @param c  coefficients of the edge's interval
     * @param s, sx, sy, sz  u S_lm and its derivatives at [lanes * component]
     * @param g  the features' gradient, rows of n_max; N - n_max numbers more are read
     */
    DIFFMD_HD void set(const RadialTable<T> &table, const T *c, T t, const T *s, const T *sx,
                       const T *sy, const T *sz, const T *g) {
        const int layer = formulas::layer(table);
        for (int l = 0; l <= table.l_max; l++) {
            R q, dq, a = R::zero(), ax = R::zero(), ay = R::zero(), az = R::zero();
            radial_row<T, N>(c + l * N, layer, t, q, dq);
            for (int i = l * l; i < (l + 1) * (l + 1); i++) {
                const R row = R::read(g + i * table.n_max);
                const int at = lanes<T> * i;
                a = a + row * s[at];
                ax = ax + row * sx[at];
                ay = ay + row * sy[at];
                az = az + row * sz[at];
            }
            radial = radial + a * dq;
            x = x + ax * q;
            y = y + ay * q;
            z = z + az * q;
        }
    }
};

template <class T, int N>
void features_backward(const Features<T> &in, const T *grad, int64_t begin, int64_t end,
                       T *grad_out) {
    using V = EdgeVector<T>;
    const int l_max = in.table.l_max, components = (l_max + 1) * (l_max + 1);
    const int n_max = in.table.n_max;
    const int64_t size = components * n_max, ahead = 4 * size;
    const T over = T(1.0 / in.cutoff);
    Block<T> block;
    BlockHarmonics<T> h;
    for (int64_t first = begin; first < end; first += block.size) {
        const int64_t count = end - first < block.size ? end - first : block.size;
        block.set(in.vectors + 3 * first, count, in.cutoff, in.table.num_intervals);
        h.template set<true>(in.table.l_max, block.x, block.y, block.z);
        // d(u S) = u dS + S du, with du/dx = 2 x du/d(s^2)
        const V u = load<V>(block.envelope), du = load<V>(block.envelope_derivative) * T(2);
        const V ux = du * load<V>(block.x), uy = du * load<V>(block.y), uz = du * load<V>(block.z);
        for (int i = 0; i < components; i++) {
            h.dx[i] = h.dx[i] * u + h.value[i] * ux;
            h.dy[i] = h.dy[i] * u + h.value[i] * uy;
            h.dz[i] = h.dz[i] * u + h.value[i] * uz;
            h.value[i] = h.value[i] * u;
        }
        for (int e = 0; e < count; e++) {
            const T *g = grad + (first + e) * size;
            alignas(64) T rows[max_components * N];
            // An edge is more work than the processor looks ahead of; addresses may be anything.
            for (int64_t i = 0; i < size; i += 64 / int(sizeof(T)))
                __builtin_prefetch(
                    reinterpret_cast<const void *>(uintptr_t(g + i) + ahead * sizeof(T)));
            // Rows are read N wide; behind the last edges there is nothing to read.
            if ((first + e + 1) * size + N - n_max > in.num_edges * size) {
                std::memset(rows, 0, sizeof(rows));
                std::memcpy(rows, g, size * sizeof(T));
                g = rows;
            }
            GradientRows<T, N> sums;
            const auto at = [e](const V *v) { return reinterpret_cast<const T *>(v) + e; };
            sums.set(in.table, interval_start(in.table, block.interval[e]), block.t[e], at(h.value),
                     at(h.dx), at(h.dy), at(h.dz), g);
            const auto four = Row<T, N>::sums(sums.radial, sums.x, sums.y, sums.z, n_max);
            const T radial = T(2) * four[0] * block.dt[e];
            T *const to = grad_out + 3 * (first + e);
            to[0] = (radial * block.x[e] + four[1]) * over;
            to[1] = (radial * block.y[e] + four[2]) * over;
            to[2] = (radial * block.z[e] + four[3]) * over;
        }
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
