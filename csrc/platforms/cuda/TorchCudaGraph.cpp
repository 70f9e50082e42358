#include "TorchCudaGraph.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/GraphImplInterface.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

// Of ATen/cuda/CUDAContextLight.h, which needs the headers of cuBLAS, cuSPARSE and cuSOLVER too.
namespace at::cuda {
TORCH_CUDA_CPP_API void clearCublasWorkspacesForStream(cudaStream_t stream);
}

namespace OpenMMDiffMD {
namespace {

cudaStreamCaptureMode toCuda(at::GraphCaptureMode mode) {
    switch (mode) {
    case at::GraphCaptureMode::ThreadLocal:
        return cudaStreamCaptureModeThreadLocal;
    case at::GraphCaptureMode::Relaxed:
        return cudaStreamCaptureModeRelaxed;
    default:
        return cudaStreamCaptureModeGlobal;
    }
}

/** torch's CUDAGraph as a graph of its common interface. */
class TorchCudaGraph : public at::GraphImplInterface {
public:
    explicit TorchCudaGraph(const at::GraphImplArgs &args) : graph(args.keep_graph) {}

    void capture_begin(at::MempoolId_t wantedPool, at::GraphCaptureMode mode) override {
        const bool isOwn = wantedPool == at::MempoolId_t{0, 0};
        memoryPool = isOwn ? at::cuda::graph_pool_handle() : wantedPool;
        device = c10::cuda::current_device();
        // cuBLAS's workspace of this stream, made by the calls before, is in the ordinary pool, and
        // torch frees it when any graph captured on the stream is destroyed, which may be another
        // Context's: torch has 32 streams. The capture makes one in the graph's pool instead.
        at::cuda::clearCublasWorkspacesForStream(c10::cuda::getCurrentCUDAStream());
        try {
            graph.capture_begin(memoryPool, toCuda(mode));
        } catch (...) {
            leavePool();
            throw;
        }
    }
    void capture_end() override {
        try {
            graph.capture_end();
        } catch (...) {
            leavePool();
            throw;
        }
    }
    void instantiate() override { graph.instantiate(); }
    void replay() override { graph.replay(); }
    void reset() override { graph.reset(); }
    at::MempoolId_t pool() const override { return memoryPool; }
    void enable_debug_mode() override { graph.enable_debug_mode(); }
    void debug_dump(const std::string &path) override { graph.debug_dump(path); }

private:
    /**
     * After a capture that CUDA has broken off, CUDAGraph may leave the allocators asking it
     * whether a stream is being captured, and the pool with them; it is about to be destroyed.
     */
    void leavePool() noexcept {
        const auto attempt = [](const auto &step) {
            try {
                step();
            } catch (const std::exception &) {
                // Done already.
            }
        };
        at::HostAllocator *const host = at::getHostAllocator(at::kCUDA);
        attempt([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(device, memoryPool); });
        attempt([&] { host->end_allocate_to_pool(memoryPool); });
        try {
            // Only of a graph whose capture has ended, which then gives the pool back itself.
            graph.pool();
            return;
        } catch (const std::exception &) {
        }
        attempt([&] { c10::cuda::CUDACachingAllocator::releasePool(device, memoryPool); });
        attempt([&] { host->release_pool(memoryPool); });
    }

    at::cuda::CUDAGraph graph;
    at::MempoolId_t memoryPool{0, 0};
    c10::DeviceIndex device = -1;
};

} // namespace

void registerTorchCudaGraph() {
    if (at::has_graph_impl(at::kCUDA))
        return;
    at::GraphImplRegistry()->Register(
        c10::DeviceTypeName(at::kCUDA, /*lower_case=*/false),
        [](at::GraphImplArgs args) -> std::unique_ptr<at::GraphImplInterface> {
            return std::make_unique<TorchCudaGraph>(args);
        });
}

} // namespace OpenMMDiffMD
