#ifndef OPENMM_GENERIC_DIFFUSION_KERNELS_H_
#define OPENMM_GENERIC_DIFFUSION_KERNELS_H_

#include "DiffusionKernels.h"
#include "propagator.h"

#include "openmm/Vec3.h"

#include <memory>
#include <vector>

namespace OpenMMDiffMD {

/**
 * Takes lags in main memory and reaches the particles through the Context, so that it serves
 * every platform. On Reference and CPU, whose arrays are in main memory, nothing is gained by
 * more.
 */
class GenericIntegrateDiffusionStepKernel : public IntegrateDiffusionStepKernel {
public:
    GenericIntegrateDiffusionStepKernel(const OpenMM::Platform &platform,
                                        OpenMM::ContextImpl &context);
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
    void evaluateForces(OpenMM::ContextImpl &context, int forceGroups);
    void addImpulse();

    /** Not used but for having been initialized. */
    OpenMM::Kernel verletKernel;
    std::unique_ptr<diffmd::Propagator> propagator;
    /** For each particle: half a lag over its mass, ps/Da. */
    std::vector<double> impulseFactors;
    std::vector<OpenMM::Vec3> positions, velocities, forces;
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_GENERIC_DIFFUSION_KERNELS_H_*/
