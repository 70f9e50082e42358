#pragma once

namespace diffmd::formulas {

/**
 * Degree of the polynomials that stand for the radial functions, and the largest z/4K, z the
 * highest root and K the number of intervals, at which they and their first derivatives are
 * exact to rounding (a Chebyshev series of cos(z s) on 1/K ends like (z/4K)^k / k!).
 */
template <class T> struct TablePrecision;
template <> struct TablePrecision<float> {
    static constexpr int degree = 6;
    static constexpr double resolution = 0.14;
};
template <> struct TablePrecision<double> {
    static constexpr int degree = 11;
    static constexpr double resolution = 0.18;
};

/**
 * The radial functions Q_ln(s^2) = N_ln j_l(z_ln s)/s^l on 0 <= s < 1 as piecewise polynomials.
 *
 * Intervals are uniform in s; on each, the polynomials are in a coordinate -1 <= t <= 1 that is
 * linear in s^2, which keeps the functions even in s, hence their gradients exact at zero.
 * Coefficients are ordered [interval][power][l][n], n padded with zeros to n_padded. One
 * interval more holds zeros only: that of lengths beyond the cutoff.
 */
template <class T> struct RadialTable {
    const T *coefficients;
    int num_intervals, l_max, n_max, n_padded;
};

/** n_max rounded up to what vector registers hold. */
constexpr int padded(int n_max) { return n_max <= 4 ? 4 : n_max <= 8 ? 8 : 16; }

} // namespace diffmd::formulas
