#pragma once

#include "block.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

/** (count,3) to [3][edge], zeros where there are no edges. */
template <class T> DIFFMD_HD void transpose_vectors(const T *from, int count, T (*to)[lanes<T>]) {
    for (int e = 0; e < lanes<T>; e++)
        for (int k = 0; k < 3; k++)
            to[k][e] = e < count ? from[3 * e + k] : T(0);
}

template <class T>
void harmonics_forward(const T *vectors, int l_max, int64_t begin, int64_t end, T *out) {
    constexpr int size = lanes<T>;
    const int components = (l_max + 1) * (l_max + 1);
    alignas(64) T r[3][size];
    BlockHarmonics<T> h;
    for (int64_t first = begin; first < end; first += size) {
        const int count = int(end - first < size ? end - first : size);
        transpose_vectors(vectors + 3 * first, count, r);
        h.template set<false>(l_max, r[0], r[1], r[2]);
        const T *const s = reinterpret_cast<const T *>(h.value);
        for (int e = 0; e < count; e++)
            for (int i = 0; i < components; i++)
                out[(first + e) * components + i] = s[i * size + e];
    }
}

template <class T>
void harmonics_backward(const T *vectors, const T *grad, int l_max, int64_t begin, int64_t end,
                        T *grad_out) {
    constexpr int size = lanes<T>;
    using V = EdgeVector<T>;
    const int components = (l_max + 1) * (l_max + 1);
    alignas(64) T r[3][size], g[max_components][size] = {};
    BlockHarmonics<T> h;
    for (int64_t first = begin; first < end; first += size) {
        const int count = int(end - first < size ? end - first : size);
        transpose_vectors(vectors + 3 * first, count, r);
        h.template set<true>(l_max, r[0], r[1], r[2]);
        for (int e = 0; e < count; e++)
            for (int i = 0; i < components; i++)
                g[i][e] = grad[(first + e) * components + i];
        V sums[3] = {};
        for (int i = 0; i < components; i++) {
            const V row = load<V>(g[i]);
            sums[0] = sums[0] + row * h.dx[i];
            sums[1] = sums[1] + row * h.dy[i];
            sums[2] = sums[2] + row * h.dz[i];
        }
        for (int e = 0; e < count; e++)
            for (int k = 0; k < 3; k++)
                grad_out[3 * (first + e) + k] = sums[k][e];
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
