#pragma once

/*
 * What every formula header needs: functions for host and device, and a namespace of its own
 * for each instruction set. The CPU kernels are compiled several times with different flags;
 * without that namespace the linker would keep one copy of each inline function, and a plain
 * machine could be given the AVX-512 one.
 */
#ifdef __CUDACC__
#define DIFFMD_HD __host__ __device__ __forceinline__
#else
#define DIFFMD_HD inline __attribute__((always_inline))
#endif

#ifndef DIFFMD_ISA
#define DIFFMD_ISA generic
#endif

namespace diffmd::formulas {
inline namespace DIFFMD_ISA {

/** Highest degree l and most radial functions of a degree that the operators take. */
constexpr int max_degree = 6, max_radial = 16;

/** A compile-time integer as a value. */
template <int N> struct Int {
    static constexpr int value = N;
};

/** body(Int<Begin>{}), ..., body(Int<End - 1>{}): a loop whose index is a constant. */
template <int Begin, int End, class Body> DIFFMD_HD void static_for(Body &&body) {
    if constexpr (Begin < End) {
        body(Int<Begin>{});
        static_for<Begin + 1, End>(body);
    }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::formulas
