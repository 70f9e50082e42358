#pragma once

#include "../formulas/harmonics.h"
#include "../formulas/radial.h"
#include "../launchers.h"
#include "simd.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

using formulas::component;
using formulas::max_degree;

/** Components of all degrees up to the highest. */
constexpr int max_components = (max_degree + 1) * (max_degree + 1);

/** A block of edges (as many as a register has lanes): what depends on their vectors only. */
template <class T> struct Block {
    static constexpr int size = lanes<T>;
    /** Vectors over the cutoff; 0 beyond it. */
    alignas(64) T x[size], y[size], z[size];
    /** Local coordinate in the table, its derivative with respect to s^2; the envelope's. */
    alignas(64) T t[size], dt[size], envelope[size], envelope_derivative[size];
    int interval[size];

    /** @param count  edges that there are; the others are given zero vectors */
    DIFFMD_HD void set(const T *vectors, int64_t count, double cutoff, int num_intervals) {
        const double over = 1.0 / cutoff;
        for (int e = 0; e < size; e++) {
            const T *const v = vectors + 3 * e;
            double a = 0, b = 0, c = 0;
            if (e < count)
                a = v[0] * over, b = v[1] * over, c = v[2] * over;
            const double square = a * a + b * b + c * c;
            const auto place = formulas::locate(square, num_intervals);
            // High powers of long vectors must not overflow into inf * 0.
            const bool outside = square >= 1.0;
            x[e] = outside ? T(0) : T(a);
            y[e] = outside ? T(0) : T(b);
            z[e] = outside ? T(0) : T(c);
            interval[e] = place.interval;
            t[e] = T(place.t);
            dt[e] = T(place.dt_dy);
            envelope[e] = T(place.envelope);
            envelope_derivative[e] = T(place.envelope_derivative);
        }
    }
};

/** Harmonics of a block: [component][edge]. */
template <class T> struct BlockHarmonics {
    using V = EdgeVector<T>;
    V value[max_components];
    V dx[max_components], dy[max_components], dz[max_components];

    /** The values of l = 0..L, and their gradients if wanted. */
    template <int L, bool Gradients> DIFFMD_HD void set(const T *x, const T *y, const T *z) {
        formulas::solid_harmonics<L, T>(load<V>(x), load<V>(y), load<V>(z), value);
        if constexpr (Gradients)
            formulas::static_for<0, L + 1>([&](auto degree) {
                constexpr int l = decltype(degree)::value;
                formulas::static_for<-l, l + 1>([&](auto order) {
                    constexpr int m = decltype(order)::value;
                    const auto g = formulas::harmonic_gradient<l, m, T, V>(value);
                    dx[component(l, m)] = g.x;
                    dy[component(l, m)] = g.y;
                    dz[component(l, m)] = g.z;
                });
            });
    }

    /** The same for an l_max known at run time. */
    template <bool Gradients> void set(int l_max, const T *x, const T *y, const T *z) {
        formulas::static_for<0, max_degree + 1>([&](auto degree) {
            constexpr int L = decltype(degree)::value;
            if (l_max == L)
                set<L, Gradients>(x, y, z);
        });
    }
};

/** Radial functions of one degree for one edge: a row over n by Horner's rule. */
template <class T, int N> DIFFMD_HD void radial_row(const T *c, int layer, T t, Row<T, N> &value) {
    constexpr int degree = formulas::TablePrecision<T>::degree;
    value = Row<T, N>::read(c + degree * layer);
    for (int k = degree - 1; k >= 0; k--)
        value = value * t + Row<T, N>::read(c + k * layer);
}

/** The same with the derivatives with respect to t. */
template <class T, int N>
DIFFMD_HD void radial_row(const T *c, int layer, T t, Row<T, N> &value, Row<T, N> &derivative) {
    constexpr int degree = formulas::TablePrecision<T>::degree;
    value = Row<T, N>::read(c + degree * layer);
    derivative = Row<T, N>::zero();
    for (int k = degree - 1; k >= 0; k--) {
        derivative = derivative * t + value;
        value = value * t + Row<T, N>::read(c + k * layer);
    }
}

/** Coefficients of an interval's first power and degree. */
template <class T> DIFFMD_HD const T *interval_start(const RadialTable<T> &table, int interval) {
    return table.coefficients + int64_t(interval) * formulas::stride(table);
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
