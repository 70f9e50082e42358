#pragma once

#include "block.h"

#include <stdexcept>
#include <string>
#include <utility>

#include <cuda_runtime.h>

namespace diffmd::ops::cuda {

template <class Kernel, int... PHASES>
__device__ __forceinline__ void run_phases(const Kernel &kernel, const Block &block,
                                           std::integer_sequence<int, PHASES...>) {
    // A barrier before each phase but the first.
    ((PHASES > 0 ? __syncthreads() : void(), kernel.template run<PHASES>(block)), ...);
}

template <class Kernel>
__global__ void __launch_bounds__(NUM_THREADS) run_kernel(const __grid_constant__ Kernel kernel) {
    extern __shared__ float4 shared[];
    const Block block{int64_t(blockIdx.x), int(threadIdx.x), reinterpret_cast<std::byte *>(shared)};
    run_phases(kernel, block, std::make_integer_sequence<int, Kernel::NUM_PHASES>());
}

/**
 * Enqueue a kernel on a stream of the current device.
 *
 * @throws std::runtime_error with CUDA's message if it is refused
 */
template <class Kernel> void launch(const Kernel &kernel, const Grid &grid, void *stream) {
    if (grid.num_blocks == 0)
        return;
    run_kernel<<<unsigned(grid.num_blocks), NUM_THREADS, grid.shared_bytes,
                 static_cast<cudaStream_t>(stream)>>>(kernel);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess)
        throw std::runtime_error(std::string("CUDA refused a kernel of diffmd: ") +
                                 cudaGetErrorString(error));
}

/** What the operators run their kernels with. */
inline auto on_stream(void *stream) {
    return [stream](const auto &kernel, const Grid &grid) { launch(kernel, grid, stream); };
}

} // namespace diffmd::ops::cuda
