#include "GenericDiffusionKernels.h"
#include "DiffusionIntegrator.h"

#include "openmm/VerletIntegrator.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/kernels.h"

#include <cmath>

using namespace OpenMM;

namespace OpenMMDiffMD {

GenericIntegrateDiffusionStepKernel::GenericIntegrateDiffusionStepKernel(const Platform &platform,
                                                                         ContextImpl &context)
    : IntegrateDiffusionStepKernel(Name(), platform),
      verletKernel(platform.createKernel(IntegrateVerletStepKernel::Name(), context)) {
    // The GPU platforms make a Context's arrays when an integrator's kernel of theirs is
    // initialized; without one, the Context would be used without them.
    verletKernel.getAs<IntegrateVerletStepKernel>().initialize(context.getSystem(),
                                                               VerletIntegrator(0.001));
}

void GenericIntegrateDiffusionStepKernel::initialize(const DiffusionIntegrator &integrator,
                                                     const diffmd::Molecules &molecules,
                                                     const diffmd::Options &options) {
    propagator = std::make_unique<diffmd::Propagator>(
        integrator.getModelFile(), integrator.getModelHash(), molecules, options);
    for (double mass : molecules.masses)
        impulseFactors.push_back(0.5 * options.lag_time / mass);
}

void GenericIntegrateDiffusionStepKernel::execute(ContextImpl &context,
                                                  const DiffusionIntegrator &integrator,
                                                  int forceGroups, bool forcesAreValid) {
    propagator->set_bath(integrator.getTemperature(), integrator.getFriction());
    context.getPositions(positions);
    context.getVelocities(velocities);
    if (forceGroups != 0) {
        if (!forcesAreValid)
            evaluateForces(context, forceGroups);
        addImpulse();
    }
    static_assert(sizeof(Vec3) == 3 * sizeof(double));
    propagator->step(&positions[0][0], &velocities[0][0], integrator.getRescue());
    context.setPositions(positions);
    context.setVelocities(velocities);
}

void GenericIntegrateDiffusionStepKernel::addLastImpulse(ContextImpl &context, int forceGroups) {
    evaluateForces(context, forceGroups);
    addImpulse();
    context.setVelocities(velocities);
}

void GenericIntegrateDiffusionStepKernel::evaluateForces(ContextImpl &context, int forceGroups) {
    const double energy = context.calcForcesAndEnergy(true, true, forceGroups);
    context.getForces(forces);
    for (size_t i = 0; i < forces.size(); i++)
        for (int axis = 0; axis < 3; axis++)
            if (!(std::abs(forces[i][axis]) < LARGEST_FORCE))
                refuseForce(i);
    // Forces that are not finite may cancel in a GPU's fixed point; their energies do not.
    if (!std::isfinite(energy))
        refuseEnergy();
}

void GenericIntegrateDiffusionStepKernel::addImpulse() {
    for (size_t i = 0; i < velocities.size(); i++)
        velocities[i] += forces[i] * impulseFactors[i];
}

void GenericIntegrateDiffusionStepKernel::createCheckpoint(std::ostream &stream) const {
    propagator->save(stream);
}

void GenericIntegrateDiffusionStepKernel::loadCheckpoint(std::istream &stream) {
    propagator->load(stream);
}

} // namespace OpenMMDiffMD
