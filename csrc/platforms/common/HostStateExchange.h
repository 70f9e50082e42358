#ifndef OPENMM_HOST_STATE_EXCHANGE_H_
#define OPENMM_HOST_STATE_EXCHANGE_H_

#include "CommonDiffusionKernels.h"

namespace OpenMMDiffMD {

/**
 * The network works on the CPU: arrays of the platform are copied into the tensors before a lag
 * and back after it. For platforms whose memory torch does not see.
 */
class HostStateExchange : public StateExchange {
public:
    /** @param cc  whose particles are exchanged */
    explicit HostStateExchange(OpenMM::ComputeContext &cc) : cc(cc) {}
    std::string getDevice() const override { return "cpu"; }
    void callTorch(const std::function<void()> &function) override { function(); }
    void initialize(double *positions, double *velocities, int numParticles) override;
    void addArguments(OpenMM::ComputeKernel &kernel) override;
    void toTorch() override;
    void toPlatform() override;

private:
    OpenMM::ComputeContext &cc;
    double *positions = nullptr, *velocities = nullptr;
    /** What the kernels read and write, (numParticles, 3). */
    OpenMM::ComputeArray positionArray, velocityArray;
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_HOST_STATE_EXCHANGE_H_*/
