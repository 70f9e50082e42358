#ifndef OPENMM_COMMON_DIFFUSION_KERNELS_H_
#define OPENMM_COMMON_DIFFUSION_KERNELS_H_

#include "DiffusionKernels.h"
#include "device_propagator.h"

#include "openmm/common/ComputeArray.h"
#include "openmm/common/ComputeContext.h"

#include <functional>
#include <memory>
#include <string>

namespace OpenMMDiffMD {

/** How a platform's kernels and torch reach the same particles. */
class StateExchange {
public:
    virtual ~StateExchange() = default;
    /** Get the device of the tensors, as torch names it. */
    virtual std::string getDevice() const = 0;
    /** Call something that works with tensors. */
    virtual void callTorch(const std::function<void()> &function) = 0;
    /**
     * Set what the kernels read and write, once.
     *
     * @param positions, velocities  the DevicePropagator's state, (numParticles, 3)
     */
    virtual void initialize(double *positions, double *velocities, int numParticles) = 0;
    /** Add positions and velocities to a kernel's arguments, as arrays of double. */
    virtual void addArguments(OpenMM::ComputeKernel &kernel) = 0;
    /** What the platform's kernels have written is to be seen by torch. */
    virtual void toTorch() = 0;
    /** What torch has written, all its work done, is to be seen by the platform's kernels. */
    virtual void toPlatform() = 0;
    /** The platform's kernels are to be done with what they read and write, which goes. */
    virtual void finish() {}
};

/**
 * Takes lags on the arrays of a GPU platform: particles are gathered from posq (with the
 * correction of mixed precision) and velm in the order of the System, whatever order the platform
 * keeps them in, moved by a DevicePropagator, and written back. Forces stay on the device too.
 */
class CommonIntegrateDiffusionStepKernel : public IntegrateDiffusionStepKernel {
public:
    /**
     * @param platform  the platform
     * @param cc        its arrays and compiler for one Context
     * @param exchange  how torch reaches them
     */
    CommonIntegrateDiffusionStepKernel(const OpenMM::Platform &platform, OpenMM::ComputeContext &cc,
                                       std::unique_ptr<StateExchange> exchange)
        : IntegrateDiffusionStepKernel(Name(), platform), cc(cc), exchange(std::move(exchange)) {}
    ~CommonIntegrateDiffusionStepKernel() override;
    void initialize(const DiffusionIntegrator &integrator, const diffmd::Molecules &molecules,
                    const diffmd::Options &options) override;
    void execute(OpenMM::ContextImpl &context, const DiffusionIntegrator &integrator,
                 int forceGroups, bool forcesAreValid) override;
    void addLastImpulse(OpenMM::ContextImpl &context, int forceGroups) override;
    void forgetHistory() override { propagator->forget_history(); }
    diffmd::Tally getTally() const override { return propagator->get_tally(); }
    long long getNumEvaluations() const override { return propagator->get_num_evaluations(); }
    double getNetworkTime() const override { return propagator->get_network_seconds(); }
    void createCheckpoint(std::ostream &stream) const override;
    void loadCheckpoint(std::istream &stream) override;

private:
    void compileKernels();
    void evaluateForces(OpenMM::ContextImpl &context, int forceGroups);
    void gather(double impulseTime);
    void scatter();

    OpenMM::ComputeContext &cc;
    std::unique_ptr<StateExchange> exchange;
    std::unique_ptr<diffmd::DevicePropagator> propagator;
    /** ps */
    double halfLag = 0.0;
    /** (numParticles, 3) kJ/mol/nm in the order of the System; how far each atom was wrapped. */
    OpenMM::ComputeArray forces, cellOffsets;
    /** A particle whose force is not finite, -1 if there is none. */
    OpenMM::ComputeArray refusedAtom;
    OpenMM::ComputeKernel gatherKernel, scatterKernel, forceKernel, impulseKernel;
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_COMMON_DIFFUSION_KERNELS_H_*/
