// The plugin: OpenMM calls registerKernelFactories when it loads this library.

#include "GenericDiffusionKernels.h"
#include "HostStateExchange.h"

#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"
#include "openmm/internal/windowsExport.h"
#include "openmm/opencl/OpenCLContext.h"

using namespace OpenMM;

namespace OpenMMDiffMD {

/** Makes the step kernels of Contexts on the OpenCL platform. */
class OpenCLDiffusionKernelFactory : public KernelFactory {
public:
    KernelImpl *createKernelImpl(std::string name, const Platform &platform,
                                 ContextImpl &context) const override {
        if (name != IntegrateDiffusionStepKernel::Name())
            throw OpenMMException("found a request for kernel " + name + ", expected " +
                                  IntegrateDiffusionStepKernel::Name());
        const auto *data = static_cast<OpenCLPlatform::PlatformData *>(context.getPlatformData());
        OpenCLContext &cl = *data->contexts[0];
        // The kernels compute in double precision, whatever the Context's.
        if (!cl.getSupportsDoublePrecision())
            return new GenericIntegrateDiffusionStepKernel(platform, context);
        return new CommonIntegrateDiffusionStepKernel(platform, cl,
                                                      std::make_unique<HostStateExchange>(cl));
    }
};

} // namespace OpenMMDiffMD

extern "C" OPENMM_EXPORT void registerPlatforms() {}

extern "C" OPENMM_EXPORT void registerKernelFactories() {
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).getName() == "OpenCL")
            Platform::getPlatform(i).registerKernelFactory(
                OpenMMDiffMD::IntegrateDiffusionStepKernel::Name(),
                new OpenMMDiffMD::OpenCLDiffusionKernelFactory());
}
