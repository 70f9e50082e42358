#pragma once

#include "block.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace diffmd::ops::cuda {

/** In which order a host loop runs the threads of a block. */
enum class ThreadOrder { ascending, descending, shuffled };

/**
 * Run a kernel's block code on the CPU, all threads of a phase before the next phase. Shared
 * memory is of the size that is asked of the GPU and starts as NaN, so that a sanitizer sees
 * what is written beyond it, and what is read before it was written becomes NaN. A result that
 * depends on the order of the threads lacks a barrier.
 */
template <class Kernel>
void run_on_host(const Kernel &kernel, const Grid &grid,
                 ThreadOrder order = ThreadOrder::ascending) {
    std::vector<int> threads(NUM_THREADS);
    std::iota(threads.begin(), threads.end(), 0);
    if (order == ThreadOrder::descending)
        std::reverse(threads.begin(), threads.end());
    if (order == ThreadOrder::shuffled)
        std::shuffle(threads.begin(), threads.end(), std::mt19937(7));
    for (int64_t index = 0; index < grid.num_blocks; index++) {
        std::vector<Pack<std::byte>> shared(grid.shared_bytes / sizeof(Pack<std::byte>));
        auto *const bytes = reinterpret_cast<std::byte *>(shared.data());
        std::fill_n(bytes, grid.shared_bytes, std::byte(0xff));
        const auto run_phase = [&](auto phase) {
            for (int thread : threads)
                kernel.template run<decltype(phase)::value>(Block{index, thread, bytes});
        };
        formulas::static_for<0, Kernel::NUM_PHASES>(run_phase);
    }
}

} // namespace diffmd::ops::cuda
