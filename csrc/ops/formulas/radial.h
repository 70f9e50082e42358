#pragma once

#include "envelope.h"
#include "radial_table.h"

namespace diffmd::formulas {
inline namespace DIFFMD_ISA {

/** Numbers of one power in one interval, and of one interval. */
template <class T> DIFFMD_HD int layer(const RadialTable<T> &table) {
    return (table.l_max + 1) * table.n_padded;
}
template <class T> DIFFMD_HD int stride(const RadialTable<T> &table) {
    return (TablePrecision<T>::degree + 1) * layer(table);
}

/** Where a length falls in the table, and the envelope there. */
template <class T> struct Place {
    int interval;
    T t, dt_dy, envelope, envelope_derivative;
};

/**
 * Find the interval and the local coordinate of y = s^2, always in double: the functions'
 * phase z s is up to 60, so a float32 argument would cost 60 eps.
 *
 * Beyond the cutoff (y >= 1) the interval is the one of zeros and the envelope is exactly 0; a
 * y that is not a number gives a t that is none either.
 *
 * @tparam T  double or Dual<double>
 */
template <class T> DIFFMD_HD Place<T> locate(T y, int num_intervals) {
    // Selections rather than branches: the CPU kernels' loops over edges become vector code.
    const bool inside = primal(y) < 1.0, outside = primal(y) >= 1.0;
    const T s = square_root(y);
    const int found = inside ? int(primal(s) * num_intervals) : num_intervals;
    // Just below the cutoff the product may round up to num_intervals.
    const int k = inside && found == num_intervals ? num_intervals - 1 : found;
    const double scale = double(num_intervals) * num_intervals;
    const double over = 2.0 / (2.0 * k + 1.0);
    const T t = (y * scale - (double(k) * (k + 1.0) + 0.5)) * over;
    const Envelope<T> u = envelope(y, s);
    return {k, outside ? T{} : t, outside ? T{} : T{} + scale * over, outside ? T{} : u.value,
            outside ? T{} : u.derivative};
}

/**
 * A polynomial of the table and its derivative with respect to t, by Horner's rule.
 *
 * @tparam Degree  of the polynomial
 * @tparam C       type of the coefficients
 * @tparam T       type of t: C, or Dual of it
 * @param c        coefficient of t^0
 * @param stride   numbers from one power to the next
 */
template <int Degree, class C, class T>
DIFFMD_HD void polynomial(const C *c, int stride, T t, T &value, T &derivative) {
    value = T{} + c[Degree * stride];
    derivative = T{};
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int k = Degree - 1; k >= 0; k--) {
        derivative = derivative * t + value;
        value = value * t + c[k * stride];
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::formulas
