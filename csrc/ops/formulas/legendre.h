#pragma once

#include "macros.h"

namespace diffmd::formulas {
inline namespace DIFFMD_ISA {

/**
 * sum_m S_lm(a) S_lm(b) for l = 0..l_max by the addition theorem: (2l+1) |a|^l |b|^l P_l(cos),
 * as polynomials of the vectors, so smooth where one is zero.
 *
 * @tparam Scalar  type of the constants
 * @tparam T       Scalar, a vector of it, or Dual of it
 * @param d        a.b
 * @param q        |a|^2 |b|^2
 * @param g        out: l_max + 1 contractions
 */
template <class Scalar, class T> DIFFMD_HD void contract_harmonics(int l_max, T d, T q, T *g) {
    T before = T{}, p = T{} + Scalar(1);
    for (int l = 0; l <= l_max; l++) {
        g[l] = p * Scalar(2 * l + 1);
        // (l+1) P_(l+1) = (2l+1) d P_l - l q P_(l-1)
        const Scalar over = Scalar(1) / Scalar(l + 1);
        const T next = d * p * (Scalar(2 * l + 1) * over) - q * before * (Scalar(l) * over);
        before = p;
        p = next;
    }
}

/**
 * The same with the derivatives.
 *
 * @param g_d      out: derivatives with respect to d
 * @param g_q      out: derivatives with respect to q
 */
template <class Scalar, class T>
DIFFMD_HD void contract_harmonics(int l_max, T d, T q, T *g, T *g_d, T *g_q) {
    T before = T{}, before_d = T{}, before_q = T{};
    T p = T{} + Scalar(1), p_d = T{}, p_q = T{};
    for (int l = 0; l <= l_max; l++) {
        g[l] = p * Scalar(2 * l + 1);
        g_d[l] = p_d * Scalar(2 * l + 1);
        g_q[l] = p_q * Scalar(2 * l + 1);
        const Scalar over = Scalar(1) / Scalar(l + 1);
        const Scalar first = Scalar(2 * l + 1) * over, second = Scalar(l) * over;
        const T next = d * p * first - q * before * second;
        const T next_d = (p + d * p_d) * first - q * before_d * second;
        const T next_q = d * p_q * first - (before + q * before_q) * second;
        before = p, before_d = p_d, before_q = p_q;
        p = next, p_d = next_d, p_q = next_q;
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::formulas
