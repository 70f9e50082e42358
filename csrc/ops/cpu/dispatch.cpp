#include "kernels.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace diffmd::ops {

// Each in an object of kernels.cpp, see CMakeLists.txt.
namespace baseline {
const CpuKernels<float> &kernels_float();
const CpuKernels<double> &kernels_double();
} // namespace baseline
#ifdef DIFFMD_X86
namespace avx2 {
const CpuKernels<float> &kernels_float();
const CpuKernels<double> &kernels_double();
} // namespace avx2
namespace avx512 {
const CpuKernels<float> &kernels_float();
const CpuKernels<double> &kernels_double();
} // namespace avx512
#endif

namespace {

enum class Isa { baseline, avx2, avx512 };

#ifdef DIFFMD_X86
/** The most that DIFFMD_CPU_KERNELS allows, so that tests can run every set that there is. */
Isa allowed_isa() {
    const char *const set = std::getenv("DIFFMD_CPU_KERNELS");
    const std::string name = set ? set : "avx512";
    if (name == "avx512")
        return Isa::avx512;
    if (name == "avx2")
        return Isa::avx2;
    if (name == "baseline")
        return Isa::baseline;
    throw std::invalid_argument("DIFFMD_CPU_KERNELS: expected baseline, avx2 or avx512, got " +
                                name);
}
#endif

Isa best_isa() {
#ifdef DIFFMD_X86
    static const Isa isa = [] {
        const Isa most = allowed_isa();
        __builtin_cpu_init();
        if (most == Isa::avx512 && __builtin_cpu_supports("avx512f") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512bw"))
            return Isa::avx512;
        if (most != Isa::baseline && __builtin_cpu_supports("avx2") &&
            __builtin_cpu_supports("fma"))
            return Isa::avx2;
        return Isa::baseline;
    }();
    return isa;
#else
    return Isa::baseline;
#endif
}

} // namespace

template <class T> const CpuKernels<T> &cpu_kernels() {
    constexpr bool single = std::is_same_v<T, float>;
    if constexpr (single) {
#ifdef DIFFMD_X86
        switch (best_isa()) {
        case Isa::avx512:
            return avx512::kernels_float();
        case Isa::avx2:
            return avx2::kernels_float();
        case Isa::baseline:
            break;
        }
#endif
        return baseline::kernels_float();
    } else {
#ifdef DIFFMD_X86
        switch (best_isa()) {
        case Isa::avx512:
            return avx512::kernels_double();
        case Isa::avx2:
            return avx2::kernels_double();
        case Isa::baseline:
            break;
        }
#endif
        return baseline::kernels_double();
    }
}

template const CpuKernels<float> &cpu_kernels<float>();
template const CpuKernels<double> &cpu_kernels<double>();

} // namespace diffmd::ops
