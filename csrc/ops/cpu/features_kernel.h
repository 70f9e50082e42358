#pragma once

#include "block.h"
#include "stream.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

/**
 * One edge's rows: Phi_lmn = Q_ln (u S_lm).
 *
 * @param s  u S_lm at s[lanes * component]
 * @param out  rows of n_max; N - n_max numbers behind the last row are overwritten
 */
template <class T, int N>
DIFFMD_HD void write_features(const RadialTable<T> &table, int interval, T t, const T *s, T *out) {
    const T *const c = interval_start(table, interval);
    const int layer = formulas::layer(table), n_max = table.n_max;
    for (int l = 0; l <= table.l_max; l++) {
        Row<T, N> q;
        radial_row<T, N>(c + l * N, layer, t, q);
        for (int m = 0; m < 2 * l + 1; m++) {
            (q * *s).write(out);
            s += lanes<T>;
            out += n_max;
        }
    }
}

template <class T, int N>
void features_forward(const Features<T> &in, int64_t begin, int64_t end, bool stream, T *out) {
    using V = EdgeVector<T>;
    const int l_max = in.table.l_max, components = (l_max + 1) * (l_max + 1);
    const int64_t size = components * in.table.n_max;
    Block<T> block;
    BlockHarmonics<T> harmonics;
    // Whole edges, written here first where they are not written in place.
    constexpr int capacity = 16384 / int(sizeof(T));
    static_assert(capacity >= max_components * formulas::max_radial);
    alignas(64) T rows[capacity + N];
    const int64_t held = stream ? capacity / size : 1;
    for (int64_t first = begin; first < end; first += block.size) {
        const int64_t count = end - first < block.size ? end - first : block.size;
        block.set(in.vectors + 3 * first, count, in.cutoff, in.table.num_intervals);
        harmonics.template set<false>(l_max, block.x, block.y, block.z);
        const V u = load<V>(block.envelope);
        for (int i = 0; i < components; i++)
            harmonics.value[i] = harmonics.value[i] * u;
        int64_t waiting = 0;
        for (int e = 0; e < count; e++) {
            const T *const s = reinterpret_cast<const T *>(harmonics.value) + e;
            T *const to = out + (first + e) * size;
            // What lies behind the last edges is not ours.
            if (!stream && (first + e + 1) * size + N - in.table.n_max <= end * size) {
                write_features<T, N>(in.table, block.interval[e], block.t[e], s, to);
                continue;
            }
            write_features<T, N>(in.table, block.interval[e], block.t[e], s, rows + waiting * size);
            if (++waiting == held || e + 1 == count) {
                stream_copy(to + (1 - waiting) * size, rows, waiting * size);
                waiting = 0;
            }
        }
    }
    stream_end();
}

/**
 * One edge's backward sums over rows and n: of g dQ/dt (u S), and of g Q d(u S)/d(x,y,z).
 * Four running rows a degree, so that a sum across a register is taken only once.
 */
template <class T, int N>
DIFFMD_HD void read_gradients(const RadialTable<T> &table, int interval, T t, const T *s,
                              const T *sx, const T *sy, const T *sz, const T *g, T sums[4]) {
    using R = Row<T, N>;
    const T *const c = interval_start(table, interval);
    const int layer = formulas::layer(table), n_max = table.n_max;
    R radial = R::zero(), x = R::zero(), y = R::zero(), z = R::zero();
    for (int l = 0; l <= table.l_max; l++) {
        R q, dq, a = R::zero(), ax = R::zero(), ay = R::zero(), az = R::zero();
        radial_row<T, N>(c + l * N, layer, t, q, dq);
        for (int m = 0; m < 2 * l + 1; m++) {
            const R row = R::read(g);
            a = a + row * *s;
            ax = ax + row * *sx;
            ay = ay + row * *sy;
            az = az + row * *sz;
            s += lanes<T>, sx += lanes<T>, sy += lanes<T>, sz += lanes<T>;
            g += n_max;
        }
        radial = radial + a * dq;
        x = x + ax * q;
        y = y + ay * q;
        z = z + az * q;
    }
    sums[0] = radial.sum(n_max);
    sums[1] = x.sum(n_max);
    sums[2] = y.sum(n_max);
    sums[3] = z.sum(n_max);
}

template <class T, int N>
void features_backward(const Features<T> &in, const T *grad, int64_t begin, int64_t end,
                       T *grad_out) {
    using V = EdgeVector<T>;
    const int l_max = in.table.l_max, components = (l_max + 1) * (l_max + 1);
    const int64_t size = components * in.table.n_max;
    const T over = T(1.0 / in.cutoff);
    Block<T> block;
    BlockHarmonics<T> h;
    for (int64_t first = begin; first < end; first += block.size) {
        const int64_t count = end - first < block.size ? end - first : block.size;
        block.set(in.vectors + 3 * first, count, in.cutoff, in.table.num_intervals);
        h.template set<true>(l_max, block.x, block.y, block.z);
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
            // Rows are read N wide; behind the last edges there is nothing to read.
            if ((first + e + 1) * size + N - in.table.n_max > in.num_edges * size) {
                std::memset(rows, 0, sizeof(rows));
                std::memcpy(rows, g, size * sizeof(T));
                g = rows;
            }
            T sums[4];
            const auto at = [e](const V *v) { return reinterpret_cast<const T *>(v) + e; };
            read_gradients<T, N>(in.table, block.interval[e], block.t[e], at(h.value), at(h.dx),
                                 at(h.dy), at(h.dz), g, sums);
            const T radial = T(2) * sums[0] * block.dt[e];
            T *const to = grad_out + 3 * (first + e);
            to[0] = (radial * block.x[e] + sums[1]) * over;
            to[1] = (radial * block.y[e] + sums[2]) * over;
            to[2] = (radial * block.z[e] + sums[3]) * over;
        }
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
