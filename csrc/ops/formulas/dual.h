#pragma once

#include "macros.h"

#include <cmath>

namespace diffmd::formulas {
inline namespace DIFFMD_ISA {

/**
 * A number with its derivative along one direction, a + b eps with eps^2 = 0. A formula that is
 * a template over its number type gives its directional derivative when run on this one: that
 * is how the double backward comes out of the forward and backward formulas.
 */
template <class T> struct Dual {
    T value{}, tangent{};
};

template <class T> DIFFMD_HD Dual<T> operator+(Dual<T> a, Dual<T> b) {
    return {a.value + b.value, a.tangent + b.tangent};
}
template <class T> DIFFMD_HD Dual<T> operator-(Dual<T> a, Dual<T> b) {
    return {a.value - b.value, a.tangent - b.tangent};
}
template <class T> DIFFMD_HD Dual<T> operator*(Dual<T> a, Dual<T> b) {
    return {a.value * b.value, a.tangent * b.value + a.value * b.tangent};
}
template <class T> DIFFMD_HD Dual<T> operator+(Dual<T> a, T b) { return {a.value + b, a.tangent}; }
template <class T> DIFFMD_HD Dual<T> operator+(T a, Dual<T> b) { return {a + b.value, b.tangent}; }
template <class T> DIFFMD_HD Dual<T> operator-(Dual<T> a, T b) { return {a.value - b, a.tangent}; }
template <class T> DIFFMD_HD Dual<T> operator-(T a, Dual<T> b) { return {a - b.value, -b.tangent}; }
template <class T> DIFFMD_HD Dual<T> operator*(Dual<T> a, T b) {
    return {a.value * b, a.tangent * b};
}
template <class T> DIFFMD_HD Dual<T> operator*(T a, Dual<T> b) { return b * a; }

/** The number without its derivative. */
template <class T> DIFFMD_HD T primal(T a) { return a; }
template <class T> DIFFMD_HD T primal(Dual<T> a) { return a.value; }

DIFFMD_HD double square_root(double a) { return ::sqrt(a); }
/**
 * The derivative is taken as 0 at 0: lengths enter the formulas only where the product rule
 * multiplies it by 0 there.
 */
DIFFMD_HD Dual<double> square_root(Dual<double> a) {
    const double root = ::sqrt(a.value);
    return {root, root > 0 ? 0.5 * a.tangent / root : 0.0};
}

} // namespace DIFFMD_ISA
} // namespace diffmd::formulas
