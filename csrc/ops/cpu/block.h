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
        alignas(64) T v[3 * size];
        if (count == size) {
            std::memcpy(v, vectors, sizeof(v));
        } else {
            std::memset(v, 0, sizeof(v));
            std::memcpy(v, vectors, 3 * count * sizeof(T));
        }
        // Loops without branches over arrays of our own: the compiler makes them vector code.
        const double over = 1.0 / cutoff;
        alignas(64) double square[size];
        for (int e = 0; e < size; e++) {
            const double a = v[3 * e] * over, b = v[3 * e + 1] * over, c = v[3 * e + 2] * over;
            square[e] = a * a + b * b + c * c;
            // High powers of long vectors must not overflow into inf * 0.
            const bool outside = square[e] >= 1.0;
            x[e] = outside ? T(0) : T(a);
            y[e] = outside ? T(0) : T(b);
            z[e] = outside ? T(0) : T(c);
        }
        for (int e = 0; e < size; e++) {
            const auto place = formulas::locate(square[e], num_intervals);
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

/**
 * Radial functions of degrees 0..L for one edge, a row over n each, by Horner's rule. (Longer
 * registers that take two rows at once are slower: processors multiply either two short ones or
 * one long one a cycle, and those that follow are short.)
 */
template <class T, int N, int L> struct RadialRows {
    using R = Row<T, N>;
    R value[L + 1], derivative[L + 1];

    /** The values, and their derivatives with respect to t if wanted. */
    template <bool Derivatives> DIFFMD_HD void set(const T *c, T t) {
        constexpr int degree = formulas::TablePrecision<T>::degree, layer = (L + 1) * N;
        for (int l = 0; l <= L; l++) {
            value[l] = R::read(c + degree * layer + l * N);
            derivative[l] = R::zero();
        }
        for (int k = degree - 1; k >= 0; k--)
            for (int l = 0; l <= L; l++) {
                if constexpr (Derivatives)
                    derivative[l] = derivative[l] * t + value[l];
                value[l] = value[l] * t + R::read(c + k * layer + l * N);
            }
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
