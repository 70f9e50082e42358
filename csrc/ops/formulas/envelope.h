#pragma once

#include "dual.h"

namespace diffmd::formulas {
inline namespace DIFFMD_ISA {

/** p of the envelope u(s) = 1 - (p+1)(p+2)/2 s^p + p(p+2) s^(p+1) - p(p+1)/2 s^(p+2). */
constexpr int envelope_power = 6;

/** The envelope and its derivative with respect to s^2. */
template <class T> struct Envelope {
    T value, derivative;
};

/**
 * u(s) and du/d(s^2) at 0 <= s < 1, where y = s^2. Written as (1-s)^3 sum_k (k+1)(k+2)/2 s^k,
 * k < p, so that the small values near the cutoff keep their relative accuracy.
 *
 * @tparam T  double or Dual<double>
 *
 * Gasteiger, Gross and Guennemann, arXiv 2003.03123, eq. 8.
 */
template <class T> DIFFMD_HD Envelope<T> envelope(T y, T s) {
    constexpr int p = envelope_power;
    static_assert(p % 2 == 0 && p >= 4, "even and at least 4: two derivatives at zero length");
    const T rest = 1.0 - s;
    const T rest2 = rest * rest;
    T sum = T{} + double(p * (p + 1) / 2);
    for (int k = p - 2; k >= 0; k--)
        sum = sum * s + double((k + 1) * (k + 2) / 2);
    // u' = -p(p+1)(p+2)/2 s^(p-1) (1-s)^2, and du/d(s^2) = u'/(2s)
    T power = y;
    for (int k = 2; k < p / 2; k++)
        power = power * y;
    return {rest2 * rest * sum, power * rest2 * (-0.25 * p * (p + 1) * (p + 2))};
}

} // namespace DIFFMD_ISA
} // namespace diffmd::formulas
