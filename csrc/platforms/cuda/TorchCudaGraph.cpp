#include "TorchCudaGraph.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/GraphImplInterface.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

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
     * After a capture that CUDA has broken off, CUDAGraph leaves the allocators asking it whether
     * a stream is being captured; it is about to be destroyed.
     */
    void leavePool() noexcept {
        try {
            c10::cuda::CUDACachingAllocator::endAllocateToPool(device, memoryPool);
            c10::cuda::CUDACachingAllocator::releasePool(device, memoryPool);
            at::HostAllocator *const host = at::getHostAllocator(at::kCUDA);
            host->end_allocate_to_pool(memoryPool);
            host->release_pool(memoryPool);
        } catch (const std::exception &) {
            // They had left it already.
        }
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
