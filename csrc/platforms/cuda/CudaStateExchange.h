#ifndef OPENMM_CUDA_STATE_EXCHANGE_H_
#define OPENMM_CUDA_STATE_EXCHANGE_H_

#include "CommonDiffusionKernels.h"

#include "openmm/cuda/CudaContext.h"

namespace OpenMMDiffMD {

/**
 * The CUDA platform's kernels write straight into the tensors. OpenMM works in a CUDA context of
 * its own, torch in the device's primary context; both see all memory of the device. What one has
 * enqueued is waited for before the other goes on.
 */
class CudaStateExchange : public StateExchange {
public:
    /** @param cu  whose particles are exchanged */
    explicit CudaStateExchange(OpenMM::CudaContext &cu);
    ~CudaStateExchange() override;
    CudaStateExchange(const CudaStateExchange &) = delete;
    CudaStateExchange &operator=(const CudaStateExchange &) = delete;
    std::string getDevice() const override;
    void callTorch(const std::function<void()> &function) override;
    void initialize(double *positions, double *velocities, int numParticles) override;
    void addArguments(OpenMM::ComputeKernel &kernel) override;
    void toTorch() override;
    void toPlatform() override;
    void finish() override;

private:
    OpenMM::CudaContext &cu;
    CUcontext primaryContext = nullptr;
    double *positions = nullptr, *velocities = nullptr;
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_CUDA_STATE_EXCHANGE_H_*/
