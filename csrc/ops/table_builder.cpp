#include "table_builder.h"

#include "formulas/radial.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <mutex>
#include <new>
#include <numbers>

namespace diffmd::ops {

using formulas::max_degree;
using formulas::max_radial;
using formulas::RadialTable;
using formulas::TablePrecision;

namespace {

/** sum_k a_k x^2k, a_0 = 1/(2l+1)!!, a_k = -a_(k-1) / (2k (2l+2k+1)). */
long double power_series(int l, long double x) {
    long double term = 1.0L;
    for (int k = 1; k <= l; k++)
        term /= 2 * k + 1;
    long double sum = term;
    for (int k = 1; std::fabs(term) > 1e-24L * std::fabs(sum) && k < 100; k++) {
        term *= -x * x / (2.0L * k * (2 * l + 2 * k + 1));
        sum += term;
    }
    return sum;
}

/** j_l by upward recurrence, for x > l. */
long double recurrence(int l, long double x) {
    long double before = std::cos(x) / x, value = std::sin(x) / x;
    for (int k = 0; k < l; k++) {
        const long double next = (2 * k + 1) / x * value - before;
        before = value;
        value = next;
    }
    return value;
}

using Roots = std::array<std::array<long double, max_radial + max_degree>, max_degree + 1>;

/** Roots of j_l by bisection between neighbouring ones of j_(l-1), which they interlace. */
Roots find_roots() {
    Roots roots{};
    for (int n = 0; n < max_radial + max_degree; n++)
        roots[0][n] = (n + 1) * std::numbers::pi_v<long double>;
    for (int l = 1; l <= max_degree; l++)
        for (int n = 0; n < max_radial + max_degree - l; n++) {
            long double low = roots[l - 1][n], high = roots[l - 1][n + 1];
            const bool low_sign = std::signbit(recurrence(l, low));
            // Ends when the midpoint is one of the ends.
            for (long double middle = (low + high) / 2; middle > low && middle < high;
                 middle = (low + high) / 2)
                (std::signbit(recurrence(l, middle)) == low_sign ? low : high) = middle;
            roots[l][n] = low;
        }
    return roots;
}

/**
 * Coefficients of t^0..t^(From-1), shortened to Size by dropping the T_k of highest k one after
 * the other: close to the best polynomial on -1 <= t <= 1, and each coefficient keeps its
 * relative accuracy, so that derivatives do.
 */
template <int Size, std::size_t From> void economize(std::array<long double, From> &c) {
    std::array<std::array<long double, From>, From> chebyshev{};
    chebyshev[0][0] = chebyshev[1][1] = 1.0L;
    for (std::size_t j = 2; j < From; j++)
        for (std::size_t k = 0; k <= j; k++)
            chebyshev[j][k] = (k ? 2 * chebyshev[j - 1][k - 1] : 0.0L) - chebyshev[j - 2][k];
    for (int j = int(From) - 1; j >= Size; j--) {
        const long double weight = c[j] / chebyshev[j][j];
        for (int k = 0; k <= j; k++)
            c[k] -= weight * chebyshev[j][k];
    }
}

template <class T> RadialTable<T> build(int l_max, int n_max) {
    constexpr int degree = TablePrecision<T>::degree, size = degree + 1;
    const long double largest = bessel_root(l_max, n_max);
    const int intervals =
        std::max(4, int(std::ceil(largest / (4 * TablePrecision<T>::resolution))));
    RadialTable<T> table{nullptr, intervals, l_max, n_max, formulas::padded(n_max)};
    const std::size_t count = num_coefficients(table);
    const long double scale = (long double)(intervals)*intervals;
    T *const c = static_cast<T *>(::operator new(count * sizeof(T), std::align_val_t(64)));
    std::fill(c, c + count, T(0));
    table.coefficients = c;
    for (int l = 0; l <= l_max; l++)
        for (int n = 0; n < n_max; n++) {
            const long double root = bessel_root(l, n + 1);
            const long double norm = std::sqrt(2.0L) / std::fabs(recurrence(l + 1, root));
            for (int k = 0; k < intervals; k++) {
                // About the middle of the interval in y = s^2, t = (y - middle) / half:
                // d/dy (j_l(x)/x^l) = -z^2/2 j_(l+1)(x)/x^(l+1), x = z s.
                const long double half = (k + 0.5L) / scale;
                const long double x = root * std::sqrt((k * (k + 1.0L) + 0.5L) / scale);
                std::array<long double, size + 8> powers;
                long double factor = norm * std::pow(root, l);
                for (int j = 0; j < size + 8; j++) {
                    powers[j] = factor * bessel_over_power(l + j, x);
                    factor *= -root * root / 2 * half / (j + 1);
                }
                economize<size>(powers);
                T *const at = c + std::size_t(k) * formulas::stride(table) +
                              std::size_t(l) * table.n_padded + n;
                for (int power = 0; power < size; power++)
                    at[power * formulas::layer(table)] = T(powers[power]);
            }
        }
    return table;
}

} // namespace

long double bessel_over_power(int l, long double x) {
    return x < l + 1 ? power_series(l, x) : recurrence(l, x) / std::pow(x, l);
}

long double bessel_root(int l, int n) {
    static const Roots roots = find_roots();
    return roots[l][n - 1];
}

template <class T> const RadialTable<T> &radial_table(int l_max, int n_max) {
    static std::array<std::array<std::once_flag, max_radial>, max_degree + 1> built;
    static std::array<std::array<RadialTable<T>, max_radial>, max_degree + 1> tables;
    std::call_once(built[l_max][n_max - 1],
                   [&] { tables[l_max][n_max - 1] = build<T>(l_max, n_max); });
    return tables[l_max][n_max - 1];
}

template <class T> std::size_t num_coefficients(const RadialTable<T> &table) {
    return std::size_t(table.num_intervals + 1) * formulas::stride(table);
}

template const RadialTable<float> &radial_table<float>(int, int);
template const RadialTable<double> &radial_table<double>(int, int);
template std::size_t num_coefficients(const RadialTable<float> &);
template std::size_t num_coefficients(const RadialTable<double> &);

} // namespace diffmd::ops
