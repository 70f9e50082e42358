#pragma once

#include "../formulas/macros.h"

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

/* Vector registers by the compiler's vector extension (gcc and clang), for any width. */

/** After a lambda's parameters: it is a loop's body, whose sums have to stay in registers. */
#define DIFFMD_INLINE __attribute__((always_inline))

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

/**
 * The next row at a pointer, which is moved on. Told nothing the compiler would compute all rows'
 * offsets before the loop over edges, and read them back from memory in it.
 */
template <class P> DIFFMD_HD P next_row(P &at, int n) {
    P here = at;
    at += n;
    asm("" : "+r"(at));
    return here;
}

/** Write a register past the caches, where there is an instruction for its width. */
template <class V, class T> DIFFMD_HD void stream_vector(T *to, V value) {
#ifdef __AVX512F__
    if constexpr (sizeof(V) == 64)
        return _mm512_stream_si512(reinterpret_cast<__m512i *>(to), (__m512i)value);
#endif
#ifdef __AVX__
    if constexpr (sizeof(V) == 32)
        return _mm256_stream_si256(reinterpret_cast<__m256i *>(to), (__m256i)value);
#endif
#ifdef __SSE2__
    if constexpr (sizeof(V) == 16)
        return _mm_stream_si128(reinterpret_cast<__m128i *>(to), (__m128i)value);
#endif
    store(to, value);
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
    /** Write past the caches (where the CPU can), to an address aligned to the registers. */
    DIFFMD_HD void stream(T *to) const {
        for (int i = 0; i < count; i++)
            stream_vector(to + i * width, part[i]);
    }
    /** Sum of the first n numbers, whatever the others are. */
    DIFFMD_HD T sum(int n) const {
        const auto four = fold(n);
        return (four[0] + four[1]) + (four[2] + four[3]);
    }
    /** The sums of four rows at once. */
    static DIFFMD_HD typename VectorOf<T, 4>::type sums(Row a, Row b, Row c, Row d, int n) {
        using Four = typename VectorOf<T, 4>::type;
        const Four p = a.fold(n), q = b.fold(n), r = c.fold(n), s = d.fold(n);
        const Four pq =
            __builtin_shufflevector(p, q, 0, 4, 1, 5) + __builtin_shufflevector(p, q, 2, 6, 3, 7);
        const Four rs =
            __builtin_shufflevector(r, s, 0, 4, 1, 5) + __builtin_shufflevector(r, s, 2, 6, 3, 7);
        return __builtin_shufflevector(pq, rs, 0, 1, 4, 5) +
               __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
    }
    /** Four sums, of every fourth of the first n numbers. */
    DIFFMD_HD typename VectorOf<T, 4>::type fold(int n) const {
        alignas(64) T all[N];
        for (int i = 0; i < count; i++)
            store(all + i * width, first(part[i], n - i * width));
        typename VectorOf<T, 4>::type out = {};
        for (int i = 0; i < N; i += 4)
            out = out + load<typename VectorOf<T, 4>::type>(all + i);
        return out;
    }
    /** The first n numbers of a register, then zeros. */
    static DIFFMD_HD V first(V numbers, int n) {
        using Index = decltype(numbers < numbers);
        Index index;
        for (int i = 0; i < width; i++)
            index[i] = i;
        return index < n ? numbers : V{};
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
