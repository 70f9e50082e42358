#pragma once

#include "simd.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

/** Copy past the caches (where the CPU can): lines that are written whole are not read first. */
template <class T> DIFFMD_HD void stream_copy(T *to, const T *from, int64_t count) {
#ifdef __SSE2__
    auto *out = reinterpret_cast<char *>(to);
    const auto *in = reinterpret_cast<const char *>(from);
    int64_t bytes = count * int64_t(sizeof(T));
    const int64_t misaligned = -reinterpret_cast<intptr_t>(to) & 63;
    const int64_t head = misaligned < bytes ? misaligned : bytes;
    std::memcpy(out, in, head);
    out += head, in += head, bytes -= head;
    for (; bytes >= 64; out += 64, in += 64, bytes -= 64) {
#if defined(__AVX512F__)
        _mm512_stream_si512(reinterpret_cast<__m512i *>(out), _mm512_loadu_si512(in));
#elif defined(__AVX__)
        for (int k = 0; k < 64; k += 32)
            _mm256_stream_si256(reinterpret_cast<__m256i *>(out + k),
                                _mm256_loadu_si256(reinterpret_cast<const __m256i *>(in + k)));
#else
        for (int k = 0; k < 64; k += 16)
            _mm_stream_si128(reinterpret_cast<__m128i *>(out + k),
                             _mm_loadu_si128(reinterpret_cast<const __m128i *>(in + k)));
#endif
    }
    std::memcpy(out, in, bytes);
#else
    std::memcpy(to, from, count * sizeof(T));
#endif
}

/** Makes what was streamed visible to other threads. */
DIFFMD_HD void stream_end() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
