#include "CudaStateExchange.h"

#include "openmm/OpenMMException.h"

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

void check(CUresult result, const char *what) {
    if (result != CUDA_SUCCESS)
        throw OpenMMException(std::string("found that CUDA could not ") + what + ": " +
                              CudaContext::getErrorString(result));
}

/** Makes a CUDA context the current one until it goes out of scope. */
class CurrentContext {
public:
    explicit CurrentContext(CUcontext context) {
        check(cuCtxPushCurrent(context), "enter torch's context");
    }
    ~CurrentContext() {
        CUcontext popped;
        cuCtxPopCurrent(&popped);
    }
    CurrentContext(const CurrentContext &) = delete;
    CurrentContext &operator=(const CurrentContext &) = delete;
};

} // namespace

CudaStateExchange::CudaStateExchange(CudaContext &cu) : cu(cu) {
    check(cuDevicePrimaryCtxRetain(&primaryContext, cu.getDevice()), "retain torch's context");
}

CudaStateExchange::~CudaStateExchange() { cuDevicePrimaryCtxRelease(cu.getDevice()); }

std::string CudaStateExchange::getDevice() const {
    return "cuda:" + std::to_string(cu.getDeviceIndex());
}

void CudaStateExchange::callTorch(const std::function<void()> &function) {
    const CurrentContext current(primaryContext);
    function();
}

void CudaStateExchange::initialize(double *positions, double *velocities, int) {
    this->positions = positions;
    this->velocities = velocities;
}

void CudaStateExchange::addArguments(ComputeKernel &kernel) {
    kernel->addArg(reinterpret_cast<CUdeviceptr>(positions));
    kernel->addArg(reinterpret_cast<CUdeviceptr>(velocities));
}

void CudaStateExchange::toTorch() {
    check(cuStreamSynchronize(cu.getCurrentStream()), "finish the kernels before a lag");
}

void CudaStateExchange::toPlatform() {}

void CudaStateExchange::finish() {
    check(cuStreamSynchronize(cu.getCurrentStream()), "finish the kernels of the last lag");
}

} // namespace OpenMMDiffMD
