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
 * @param write  write(row) takes them in order
 */
template <class T, int N, int L, class Write>
DIFFMD_HD void features_of_edge(const RadialTable<T> &table, const T *c, T t, const T *s,
                                Write &&write) {
    if constexpr (L >= 0) {
        RadialRows<T, N, L> q;
        q.template set<false>(c, t);
        formulas::static_for<0, L + 1>([&](auto degree) DIFFMD_INLINE {
            constexpr int l = decltype(degree)::value;
            const Row<T, N> row = q.value[l];
            for (int i = l * l; i < (l + 1) * (l + 1); i++)
                write(row * s[lanes<T> * i]);
        });
    } else {
        const int layer = formulas::layer(table);
        for (int l = 0; l <= table.l_max; l++) {
            Row<T, N> q;
            radial_row<T, N>(c + l * N, layer, t, q);
            for (int i = l * l; i < (l + 1) * (l + 1); i++)
                write(q * s[lanes<T> * i]);
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
            // What lies behind the last edges is not ours.
            alignas(64) T rows[max_components * N];
            const bool inside = (first + e + 1) * size + N - n_max <= end * size;
            T *at = stream ? lines.next() : inside ? to : rows;
            if (direct) {
                at = to;
                features_of_edge<T, N, L>(
                    in.table, c, t, s, [&](R row) DIFFMD_INLINE { row.stream(next_row(at, N)); });
                continue;
            }
            features_of_edge<T, N, L>(in.table, c, t, s,
                                      [&](R row) DIFFMD_INLINE { row.write(next_row(at, n_max)); });
            if (stream)
                lines.add(size);
            else if (!inside)
                std::memcpy(to, rows, size * sizeof(T));
        }
    }
    if (stream) {
        lines.finish();
        stream_end();
    }
}

/**
 * One edge's backward sums over components: four rows, whose sums over n are wanted.
 *
 * @tparam L  l_max, or -1, as above
 */
template <class T, int N, int L> struct GradientRows {
    using R = Row<T, N>;
    /** Of g d(u Q)/d(s^2) S, and of g Q dS/d(x,y,z). */
    R radial = R::zero(), x = R::zero(), y = R::zero(), z = R::zero();

    /**
     * @param c  coefficients of the edge's interval
     * @param ut, du  what dQ/dt and Q have to be multiplied with to give d(u Q)/d(s^2)
     * @param s, sx, sy, sz  S_lm and its derivatives at [lanes * component]
     * @param g  the features' gradient, rows of n_max; N - n_max numbers more are read
     */
    DIFFMD_HD void set(const RadialTable<T> &table, const T *c, T t, T ut, T du, const T *s,
                       const T *sx, const T *sy, const T *sz, const T *g) {
        if constexpr (L >= 0) {
            RadialRows<T, N, L> q;
            q.template set<true>(c, t);
            formulas::static_for<0, L + 1>([&](auto degree) DIFFMD_INLINE {
                constexpr int l = decltype(degree)::value;
                const R row = q.value[l];
                add<l>(l, table.n_max, row, q.derivative[l] * ut + row * du, s, sx, sy, sz, g);
            });
        } else {
            for (int l = 0; l <= table.l_max; l++) {
                R q, dq;
                radial_row<T, N>(c + l * N, formulas::layer(table), t, q, dq);
                add<-1>(l, table.n_max, q, dq * ut + q * du, s, sx, sy, sz, g);
            }
        }
    }

private:
    /** One degree; D is its number where that is known. */
    template <int D>
    DIFFMD_HD void add(int l, int n_max, R q, R dq, const T *s, const T *sx, const T *sy,
                       const T *sz, const T *&g) {
        // Two sums of each kind, for an addition waits for the one before it.
        R a[2] = {}, ax[2] = {}, ay[2] = {}, az[2] = {};
        const auto component = [&](int i, int k) DIFFMD_INLINE {
            const R row = R::read(next_row(g, n_max));
            const int at = lanes<T> * i;
            a[k] = a[k] + row * s[at];
            // The harmonic of degree 0 is constant.
            if constexpr (D != 0) {
                ax[k] = ax[k] + row * sx[at];
                ay[k] = ay[k] + row * sy[at];
                az[k] = az[k] + row * sz[at];
            }
        };
        if constexpr (D >= 0) {
            formulas::static_for<D * D, (D + 1) * (D + 1)>([&](auto index) DIFFMD_INLINE {
                constexpr int i = decltype(index)::value;
                component(i, i % 2);
            });
        } else {
            component(l * l, 0);
            for (int i = l * l + 1; i < (l + 1) * (l + 1); i += 2) {
                component(i, 0);
                component(i + 1, 1);
            }
        }
        radial = radial + (a[0] + a[1]) * dq;
        x = x + (ax[0] + ax[1]) * q;
        y = y + (ay[0] + ay[1]) * q;
        z = z + (az[0] + az[1]) * q;
    }
};

template <class T, int N, int L>
void features_backward(const Features<T> &in, const T *grad, int64_t begin, int64_t end,
                       T *grad_out) {
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
            GradientRows<T, N, L> sums;
            const auto at = [e](const EdgeVector<T> *v) {
                return reinterpret_cast<const T *>(v) + e;
            };
            const T u = block.envelope[e];
            sums.set(in.table, interval_start(in.table, block.interval[e]), block.t[e],
                     u * block.dt[e], block.envelope_derivative[e], at(h.value), at(h.dx), at(h.dy),
                     at(h.dz), g);
            const auto four = Row<T, N>::sums(sums.radial, sums.x, sums.y, sums.z, n_max);
            const T radial = T(2) * four[0];
            T *const to = grad_out + 3 * (first + e);
            to[0] = (radial * block.x[e] + u * four[1]) * over;
            to[1] = (radial * block.y[e] + u * four[2]) * over;
            to[2] = (radial * block.z[e] + u * four[3]) * over;
        }
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
