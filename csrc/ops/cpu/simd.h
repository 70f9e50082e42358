#pragma once

#include "../formulas/macros.h"

#include <cstdint>
#include <cstring>

/* Vector registers by the compiler's vector extension (gcc and clang), for any width. */
namespace diffmd::ops {
inline namespace DIFFMD_ISA {

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

/** N numbers in one register. */
template <class T, int N> struct VectorOf {
    typedef T type __attribute__((vector_size(N * sizeof(T)), may_alias));
};

/** Numbers that fill a register: the edges of a block. */
template <class T> constexpr int lanes = register_bytes / int(sizeof(T));
template <class T> using EdgeVector = typename VectorOf<T, lanes<T>>::type;

template <class V, class T> DIFFMD_HD V load(const T *from) {
    V out;
    std::memcpy(&out, from, sizeof(V));
    return out;
}
template <class V, class T> DIFFMD_HD void store(T *to, V value) {
    std::memcpy(to, &value, sizeof(V));
}

/** A row of N numbers (4, 8 or 16) in as few registers as hold it. */
template <class T, int N> struct Row {
    static constexpr int width = N < lanes<T> ? N : lanes<T>, count = N / width;
    using V = typename VectorOf<T, width>::type;
    V part[count];

    static DIFFMD_HD Row zero() { return {}; }
    static DIFFMD_HD Row read(const T *from) {
        Row out;
        for (int i = 0; i < count; i++)
            out.part[i] = load<V>(from + i * width);
        return out;
    }
    DIFFMD_HD void write(T *to) const {
        for (int i = 0; i < count; i++)
            store(to + i * width, part[i]);
    }
    /** Sum of the first n numbers, whatever the others are. */
    DIFFMD_HD T sum(int n) const {
        alignas(64) T all[N];
        write(all);
        T out = 0;
        for (int i = 0; i < N; i++)
            out += i < n ? all[i] : T(0);
        return out;
    }
    friend DIFFMD_HD Row operator+(Row a, Row b) {
        for (int i = 0; i < count; i++)
            a.part[i] = a.part[i] + b.part[i];
        return a;
    }
    friend DIFFMD_HD Row operator*(Row a, Row b) {
        for (int i = 0; i < count; i++)
            a.part[i] = a.part[i] * b.part[i];
        return a;
    }
    friend DIFFMD_HD Row operator*(Row a, T b) {
        for (int i = 0; i < count; i++)
            a.part[i] = a.part[i] * b;
        return a;
    }
};

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
