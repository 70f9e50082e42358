// The plugin: OpenMM calls registerKernelFactories when it loads this library.

#include "CudaStateExchange.h"
#ifdef DIFFMD_TORCH_HAS_CUDA
#include "TorchCudaGraph.h"
#endif

#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"
#include "openmm/internal/windowsExport.h"

#include <ATen/Context.h>

using namespace OpenMM;

namespace OpenMMDiffMD {

/** Makes the step kernels of Contexts on the CUDA platform. */
class CudaDiffusionKernelFactory : public KernelFactory {
public:
    KernelImpl *createKernelImpl(std::string name, const Platform &platform,
                                 ContextImpl &context) const override {
        if (name != IntegrateDiffusionStepKernel::Name())
            throw OpenMMException("found a request for kernel " + name + ", expected " +
                                  IntegrateDiffusionStepKernel::Name());
        const auto *data = static_cast<CudaPlatform::PlatformData *>(context.getPlatformData());
        CudaContext &cu = *data->contexts[0];
        return new CommonIntegrateDiffusionStepKernel(platform, cu,
                                                      std::make_unique<CudaStateExchange>(cu));
    }
};

} // namespace OpenMMDiffMD

extern "C" OPENMM_EXPORT void registerPlatforms() {}

extern "C" OPENMM_EXPORT void registerKernelFactories() {
    // A torch without CUDA leaves the network on the CPU: the generic kernel does that.
    if (!at::hasCUDA())
        return;
#ifdef DIFFMD_TORCH_HAS_CUDA
    OpenMMDiffMD::registerTorchCudaGraph();
#endif
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).getName() == "CUDA")
            Platform::getPlatform(i).registerKernelFactory(
                OpenMMDiffMD::IntegrateDiffusionStepKernel::Name(),
                new OpenMMDiffMD::CudaDiffusionKernelFactory());
}
