#pragma once

#include "block.h"

#include "../formulas/harmonics.h"
#include "../formulas/radial.h"
#include "../launchers.h"

/* What the kernels of features and invariants do with a tile of vectors in shared memory. */
namespace diffmd::ops::cuda {

using formulas::component;

/** The type of the constants of a formula in numbers of type C. */
template <class C> struct ScalarOf {
    using type = C;
};
template <class T> struct ScalarOf<formulas::Dual<T>> {
    using type = T;
};
template <class C> using Scalar = typename ScalarOf<C>::type;

/** A number of the formulas' double as the kernel's C. */
template <class C, class D> DIFFMD_HD C convert(D number) {
    if constexpr (sizeof(C) == sizeof(D))
        return number;
    else
        return C(number);
}

/** Scaled vectors (0 beyond the cutoff) and their places in the table, for the rows of a tile. */
template <class C> struct Places {
    int *interval;
    C *x, *y, *z, *t, *dt_dy, *envelope, *envelope_derivative;

    DIFFMD_HD Places(Carver &carver, int tile)
        : interval(carver.take<int>(tile)), x(carver.take<C>(tile)), y(carver.take<C>(tile)),
          z(carver.take<C>(tile)), t(carver.take<C>(tile)), dt_dy(carver.take<C>(tile)),
          envelope(carver.take<C>(tile)), envelope_derivative(carver.take<C>(tile)) {}

    /**
     * Set one row.
     *
     * @tparam D         double or Dual<double>
     * @param vx, vy, vz  vector over cutoff
     */
    template <class D> DIFFMD_HD void set(int row, D vx, D vy, D vz, int num_intervals) const {
        const D square = vx * vx + vy * vy + vz * vz;
        const formulas::Place<D> place = formulas::locate(square, num_intervals);
        // High powers of long vectors must not overflow into inf * 0.
        const bool outside = formulas::primal(square) >= 1.0;
        interval[row] = place.interval;
        x[row] = outside ? C{} : convert<C>(vx);
        y[row] = outside ? C{} : convert<C>(vy);
        z[row] = outside ? C{} : convert<C>(vz);
        t[row] = convert<C>(place.t);
        dt_dy[row] = convert<C>(place.dt_dy);
        envelope[row] = convert<C>(place.envelope);
        envelope_derivative[row] = convert<C>(place.envelope_derivative);
    }

    /** Set one row from a vector in memory. */
    template <class T>
    DIFFMD_HD void load(int row, const T *vector, double cutoff, int num_intervals) const {
        set(row, vector[0] / cutoff, vector[1] / cutoff, vector[2] / cutoff, num_intervals);
    }
};

/**
 * Radial functions times envelope of a tile, and derivatives with respect to y = s^2.
 *
 * @param values, derivatives  (rows, L+1, n_padded); derivatives may be null
 */
template <class C, class T>
DIFFMD_HD void radial_of_tile(const Block &block, const formulas::RadialTable<T> &table, int rows,
                              const Places<C> &places, C *values, C *derivatives) {
    // Threads of one row read neighbouring coefficients; a thread keeps its (l, n).
    const int width = formulas::layer(table), lanes = NUM_THREADS / width;
    const int lane = block.thread / width, column = block.thread - lane * width;
    if (lane >= lanes)
        return;
    for (int row = lane; row < rows; row += lanes) {
        const T *c = table.coefficients + places.interval[row] * formulas::stride(table) + column;
        C q, dq_dt;
        formulas::polynomial<formulas::TablePrecision<T>::degree>(c, width, places.t[row], q,
                                                                  dq_dt);
        const C u = places.envelope[row];
        values[row * width + column] = u * q;
        if (derivatives != nullptr)
            derivatives[row * width + column] =
                places.envelope_derivative[row] * q + u * dq_dt * places.dt_dy[row];
    }
}

/** Row of (l_max+1)^2 harmonics in shared memory: odd, so that rows start in different banks. */
DIFFMD_HD constexpr int harmonics_stride(int l_max) { return (l_max + 1) * (l_max + 1) | 1; }

/** Solid harmonics of a tile, a thread for each row. */
template <int LMax, class C>
DIFFMD_HD void harmonics_of_tile(const Block &block, int rows, const Places<C> &places,
                                 C *harmonics) {
    constexpr int num = (LMax + 1) * (LMax + 1);
    for (int row = block.thread; row < rows; row += NUM_THREADS) {
        C s[num];
        formulas::solid_harmonics<LMax, Scalar<C>>(places.x[row], places.y[row], places.z[row], s);
        for (int i = 0; i < num; i++)
            harmonics[row * harmonics_stride(LMax) + i] = s[i];
    }
}

/** Sum of weight * gradient of S_lm over all (l, m): the harmonics' backward. */
template <int LMax, class C>
DIFFMD_HD formulas::Vector<C> weighted_gradient(const C *harmonics, const C *weights) {
    formulas::Vector<C> sum{C{}, C{}, C{}};
    formulas::static_for<1, LMax + 1>([&](auto degree) {
        constexpr int l = decltype(degree)::value;
        formulas::static_for<-l, l + 1>([&](auto order) {
            constexpr int m = decltype(order)::value;
            const auto gradient = formulas::harmonic_gradient<l, m, Scalar<C>, C>(harmonics);
            const C weight = weights[component(l, m)];
            sum.x = sum.x + gradient.x * weight;
            sum.y = sum.y + gradient.y * weight;
            sum.z = sum.z + gradient.z * weight;
        });
    });
    return sum;
}

/** The degree l of a component. */
DIFFMD_HD int degree_of(int index) {
    int l = 0;
    while ((l + 1) * (l + 1) <= index)
        l++;
    return l;
}

/** Where in a row of n numbers a thread starts, so that a warp's reads fall in all banks. */
template <class T> DIFFMD_HD int first_of_row(int thread, int n) {
    return int(thread * sizeof(T) * n / 128) % n;
}

} // namespace diffmd::ops::cuda
