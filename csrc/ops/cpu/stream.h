#pragma once

#include "simd.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

/**
 * Writes numbers that come in order past the caches (where the CPU can), line by line: lines that
 * are written whole are not read first. They are held here for a while, because a line can be
 * taken up only when the rows it is made of have left the processor's store buffer.
 */
template <class T, int64_t Most> class LineWriter {
public:
    /** @param to  where the first number goes */
    DIFFMD_HD explicit LineWriter(T *to) {
        const int64_t misaligned = int64_t(uintptr_t(to) % 64 / sizeof(T));
        line = to - misaligned;
        begin = end = misaligned;
    }
    /** Where the next numbers, at most Most, have to be written. */
    DIFFMD_HD T *next() { return held + end; }
    /** Take up as many. */
    DIFFMD_HD void add(int64_t count) {
        end += count;
        // At most what came before these.
        flush(end - count);
        if (end + Most > capacity) {
            flush(end);
            const int64_t whole = end / per_line * per_line;
            std::memcpy(held, held + whole, (end - whole) * sizeof(T));
            line += whole, begin -= whole, end -= whole;
        }
    }
    DIFFMD_HD void finish() {
        flush(end);
        std::memcpy(line + begin, held + begin, (end - begin) * sizeof(T));
    }

private:
    static constexpr int64_t per_line = 64 / int64_t(sizeof(T));
    static constexpr int64_t capacity = 4 * Most + 2 * per_line;
    using V = EdgeVector<T>;

    /** Write whole lines that end before `until`. */
    DIFFMD_HD void flush(int64_t until) {
        if (begin % per_line && until / per_line > begin / per_line) {
            const int64_t rest = per_line - begin % per_line;
            std::memcpy(line + begin, held + begin, rest * sizeof(T));
            begin += rest;
        }
        for (; begin + per_line <= until; begin += per_line)
            for (int64_t i = 0; i < per_line; i += lanes<T>)
                stream_vector(line + begin + i, load<V>(held + begin + i));
    }

    alignas(64) T held[capacity];
    T *line;
    int64_t begin, end;
};

/** Makes what was streamed visible to other threads. */
DIFFMD_HD void stream_end() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
