#pragma once

#include "macros.h"

namespace diffmd::formulas {
inline namespace DIFFMD_ISA {

/** Where S_lm stands among the (l_max+1)^2 components. */
constexpr int component(int l, int m) { return l * l + l + m; }

namespace harmonics_detail {

constexpr double factorial(int n) { return n < 2 ? 1.0 : n * factorial(n - 1); }

constexpr double constant_sqrt(double x) {
    double root = x > 1 ? x : 1;
    for (int i = 0; i < 100; i++)
        root = 0.5 * (root + x / root);
    return root;
}

/** S_lm over the real or imaginary part of R_lm = r^l P_l^|m|(cos) exp(i |m| phi) / (l+|m|)!. */
constexpr double norm(int l, int m) {
    m = m < 0 ? -m : m;
    return constant_sqrt((2 * l + 1) * (m ? 2.0 : 1.0) * factorial(l - m) * factorial(l + m));
}

} // namespace harmonics_detail

/**
 * Real solid harmonics S_lm = r^l Y_lm of l = 0..LMax on e3nn's axes (l = 1 is (x, y, z): the
 * pole is y), with sum_m S_lm^2 = (2l+1) r^2l.
 *
 * @tparam Scalar  type of the constants
 * @tparam T       Scalar, a vector of it, or Dual of it
 * @param s        out: s[component(l, m)], an array or anything indexed like one
 *
 * Recurrences of the regular solid harmonics: Helgaker, Jorgensen and Olsen, Molecular
 * Electronic-Structure Theory, section 6.4.
 */
template <int LMax, class Scalar, class T, class Out>
DIFFMD_HD void solid_harmonics(T x, T y, T z, Out &&s) {
    using harmonics_detail::norm;
    const T r2 = x * x + y * y + z * z;
    s[0] = T{} + Scalar(1);
    static_for<1, LMax + 1>([&](auto degree) {
        constexpr int l = decltype(degree)::value;
        // m = +-l: R_ll = (z + i x) R_(l-1)(l-1) / 2l
        constexpr Scalar step = norm(l, l) / norm(l - 1, l - 1) / (2 * l);
        if constexpr (l == 1) {
            s[component(1, 1)] = z * step;
            s[component(1, -1)] = x * step;
        } else {
            const T re = s[component(l - 1, l - 1)], im = s[component(l - 1, 1 - l)];
            s[component(l, l)] = (z * re - x * im) * step;
            s[component(l, -l)] = (z * im + x * re) * step;
        }
        // |m| < l: (l^2-m^2) R_lm = (2l-1) y R_(l-1)m - r^2 R_(l-2)m
        static_for<1 - l, l>([&](auto order) {
            constexpr int m = decltype(order)::value;
            constexpr double over = norm(l, m) / (l * l - m * m);
            constexpr Scalar first = (2 * l - 1) * over / norm(l - 1, m);
            s[component(l, m)] = y * s[component(l - 1, m)] * first;
            if constexpr (m < l - 1 && -m < l - 1) {
                constexpr Scalar second = over / norm(l - 2, m);
                s[component(l, m)] = s[component(l, m)] - r2 * s[component(l - 2, m)] * second;
            }
        });
    });
}

/** A vector's components. */
template <class T> struct Vector {
    T x, y, z;
};

/**
 * Gradient of S_lm from the harmonics one degree lower: the derivatives of solid harmonics are
 * solid harmonics. With R_lm as above and its axes (X, Y, Z) = (z, x, y):
 * dR_lm/dZ = R_(l-1)m, (d/dX + i d/dY) R_lm = -R_(l-1)(m+1), (d/dX - i d/dY) R_lm = R_(l-1)(m-1).
 *
 * @tparam L, M    the degree (0 gives zero) and order
 * @param s        what solid_harmonics() gave
 */
template <int L, int M, class Scalar, class T, class In>
DIFFMD_HD Vector<T> harmonic_gradient(const In &s) {
    using harmonics_detail::norm;
    constexpr int m = M < 0 ? -M : M;
    Vector<T> out{T{}, T{}, T{}};
    // Sines (M < 0) go with sines in d/dX and d/dZ, with cosines in d/dY.
    constexpr int same = M < 0 ? -1 : 1;
    if constexpr (m <= L - 1)
        out.y = s[component(L - 1, M)] * Scalar(norm(L, m) / norm(L - 1, m));
    if constexpr (m + 1 <= L - 1) {
        constexpr Scalar up = norm(L, m) / norm(L - 1, m + 1) * (m ? 0.5 : 1.0);
        out.z = s[component(L - 1, same * (m + 1))] * -up;
        out.x = s[component(L - 1, -same * (m + 1))] * (M < 0 ? up : -up);
    }
    if constexpr (m >= 1) {
        constexpr Scalar down = 0.5 * norm(L, m) / norm(L - 1, m - 1);
        // The sine of order 0 is zero.
        if constexpr (M > 0 || m > 1)
            out.z = out.z + s[component(L - 1, same * (m - 1))] * down;
        if constexpr (M < 0 || m > 1)
            out.x = out.x + s[component(L - 1, -same * (m - 1))] * (M < 0 ? down : -down);
    }
    return out;
}

} // namespace DIFFMD_ISA
} // namespace diffmd::formulas
