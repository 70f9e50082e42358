#pragma once

#include "simd.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

template <class T> using Eight = typename VectorOf<T, 8>::type;
template <class T> using Four = typename VectorOf<T, 4>::type;

/** Columns that a sum takes at once: eight, or what a register holds (gcc keeps more in memory). */
template <class T> constexpr int columns_at_once = lanes<T> < 8 ? lanes<T> : 8;
template <class T> using Columns = typename VectorOf<T, columns_at_once<T>>::type;

/** Rows and vectors of columns of a product that stay in registers. */
template <class T, class V, int ROWS, int COLUMNS>
DIFFMD_HD void multiply_tile(const T *a, int64_t row_a, int inner, const T *b, int64_t row_b,
                             const T *bias, T *c, int64_t row_c) {
    constexpr int width = sizeof(V) / sizeof(T);
    V sum[ROWS][COLUMNS];
    for (int column = 0; column < COLUMNS; column++) {
        const V start = bias ? load<V>(bias + column * width) : V{};
        for (int row = 0; row < ROWS; row++)
            sum[row][column] = start;
    }
    for (int k = 0; k < inner; k++) {
        V right[COLUMNS];
        for (int column = 0; column < COLUMNS; column++)
            right[column] = load<V>(b + k * row_b + column * width);
        for (int row = 0; row < ROWS; row++) {
            const T left = a[row * row_a + k];
            for (int column = 0; column < COLUMNS; column++)
                sum[row][column] = sum[row][column] + right[column] * left;
        }
    }
    for (int row = 0; row < ROWS; row++)
        for (int column = 0; column < COLUMNS; column++)
            store(c + row * row_c + column * width, sum[row][column]);
}

/** Columns of a product, as many as stand in COLUMNS vectors: they stay in the cache for all rows.
 */
template <class T, class V, int COLUMNS>
void multiply_columns(const T *a, int64_t row_a, int rows, int inner, const T *b, int64_t row_b,
                      const T *bias, T *c, int64_t row_c) {
    for (; rows >= 4; rows -= 4, a += 4 * row_a, c += 4 * row_c)
        multiply_tile<T, V, 4, COLUMNS>(a, row_a, inner, b, row_b, bias, c, row_c);
    switch (rows) {
    case 3:
        return multiply_tile<T, V, 3, COLUMNS>(a, row_a, inner, b, row_b, bias, c, row_c);
    case 2:
        return multiply_tile<T, V, 2, COLUMNS>(a, row_a, inner, b, row_b, bias, c, row_c);
    case 1:
        return multiply_tile<T, V, 1, COLUMNS>(a, row_a, inner, b, row_b, bias, c, row_c);
    }
}

/**
 * c = a b + bias of small matrices.
 *
 * @param a     (rows, inner), rows row_a apart
 * @param b     (inner, columns)
 * @param bias  (columns); null for none
 * @param c     (rows, columns), rows row_c apart
 */
template <class T>
void multiply(const T *a, int64_t row_a, int rows, int inner, const T *b, int columns,
              const T *bias, T *c, int64_t row_c) {
    const auto bias_at = [&](int column) { return bias ? bias + column : bias; };
    constexpr int width = columns_at_once<T>;
    int at = 0;
    for (; at + 2 * width <= columns; at += 2 * width)
        multiply_columns<T, Columns<T>, 2>(a, row_a, rows, inner, b + at, columns, bias_at(at),
                                           c + at, row_c);
    for (; at + width <= columns; at += width)
        multiply_columns<T, Columns<T>, 1>(a, row_a, rows, inner, b + at, columns, bias_at(at),
                                           c + at, row_c);
    for (; at + 4 <= columns; at += 4)
        multiply_columns<T, Four<T>, 1>(a, row_a, rows, inner, b + at, columns, bias_at(at), c + at,
                                        row_c);
    for (; at < columns; at++)
        multiply_columns<T, T, 1>(a, row_a, rows, inner, b + at, columns, bias_at(at), c + at,
                                  row_c);
}

/** exp(x) in single precision to 2 units in the last place; 0 below -87, infinite above 88. */
DIFFMD_HD Eight<float> exponential(Eight<float> given) {
    using Integers = typename VectorOf<int32_t, 8>::type;
    // What is not a number is left alone.
    Eight<float> x = given < -87.0f ? Eight<float>{} - 87.0f : given;
    x = x > 88.0f ? Eight<float>{} + 88.0f : x;
    // Adding 1.5 2^23 rounds to an integer, which then stands in the last bits.
    const Eight<float> shifted = x * 1.44269504f + 12582912.0f;
    const Eight<float> whole = shifted - 12582912.0f;
    const Eight<float> r = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;
    Eight<float> sum = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
    constexpr float factors[] = {1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f};
    for (const float factor : factors)
        sum = sum * r + factor;
    Integers bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    const Integers power = (bits << 23) + (127 << 23);
    Eight<float> scale;
    std::memcpy(&scale, &power, sizeof(scale));
    sum = given < -87.0f ? Eight<float>{} : sum * scale;
    return given > 88.0f ? Eight<float>{} + __builtin_inff() : sum;
}

DIFFMD_HD Eight<double> exponential(Eight<double> x) {
    for (int i = 0; i < 8; i++)
        x[i] = __builtin_exp(x[i]);
    return x;
}

/** Replace n numbers by function(eight of them); behind the last are zeros. */
template <class T, class Function> DIFFMD_HD void transform(T *x, int n, Function function) {
    int at = 0;
    for (; at + 8 <= n; at += 8)
        store(x + at, function(load<Eight<T>>(x + at)));
    if (at < n) {
        Eight<T> last{};
        std::memcpy(&last, x + at, (n - at) * sizeof(T));
        last = function(last);
        std::memcpy(x + at, &last, (n - at) * sizeof(T));
    }
}

/** x / (1 + exp(-x)) of n numbers. */
template <class T> DIFFMD_HD void silu(T *x, int n) {
    transform(x, n, [](Eight<T> v) { return v / (T(1) + exponential(-v)); });
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
