#pragma once

#include "formulas/radial_table.h"

#include <cstddef>

namespace diffmd::ops {

/** j_l(x)/x^l, to long double's rounding, for x >= 0. */
long double bessel_over_power(int l, long double x);

/** The n-th positive root of j_l, n = 1, 2, ... */
long double bessel_root(int l, int n);

/**
 * The table of the radial functions, built on first use (milliseconds) and kept for the life of
 * the process; its rows are aligned to 64 bytes. Any thread may call.
 *
 * @param l_max, n_max  0..formulas::max_degree, 1..formulas::max_radial
 */
template <class T> const formulas::RadialTable<T> &radial_table(int l_max, int n_max);

/** How many coefficients a table has. */
template <class T> std::size_t num_coefficients(const formulas::RadialTable<T> &table);

} // namespace diffmd::ops
