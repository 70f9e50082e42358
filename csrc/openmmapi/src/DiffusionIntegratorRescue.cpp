// Lags that cannot be drawn are run with the reference force, in a Context of one molecule.

#include "Checks.h"
#include "DiffusionIntegrator.h"
#include "Messages.h"

#include "openmm/CMMotionRemover.h"
#include "openmm/Context.h"
#include "openmm/CustomIntegrator.h"
#include "openmm/LangevinMiddleIntegrator.h"
#include "openmm/State.h"
#include "openmm/System.h"
#include "openmm/VerletIntegrator.h"

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

/** Whether a force changes the state by itself, beside what the rescue's integrator does. */
bool isMover(const Force &force) {
    return isBarostat(force) || isThermostat(force) ||
           dynamic_cast<const CMMotionRemover *>(&force) != nullptr;
}

/** Whether an integrator keeps velocities half a step before the positions' time. */
bool isLeapfrog(const Integrator &integrator) {
    return dynamic_cast<const VerletIntegrator *>(&integrator) != nullptr ||
           dynamic_cast<const LangevinMiddleIntegrator *>(&integrator) != nullptr;
}

/** Change velocities by the forces of a time, ps. */
void addForces(Context &context, double time, std::vector<Vec3> &velocities) {
    const Integrator &integrator = context.getIntegrator();
    const State state =
        context.getState(State::Forces, false, integrator.getIntegrationForceGroups());
    const std::vector<Vec3> &forces = state.getForces();
    for (size_t i = 0; i < velocities.size(); i++)
        velocities[i] += forces[i] * (time / context.getSystem().getParticleMass(i));
}

std::vector<Vec3> asVectors(const std::vector<double> &values) {
    std::vector<Vec3> vectors(values.size() / 3);
    for (size_t i = 0; i < values.size(); i++)
        vectors[i / 3][i % 3] = values[i];
    return vectors;
}

void runLag(Context &context, double lagTime, std::vector<double> &positions,
            std::vector<double> &velocities) {
    Integrator &integrator = context.getIntegrator();
    const double stepSize = integrator.getStepSize();
    const bool leapfrog = isLeapfrog(integrator);
    std::vector<Vec3> v = asVectors(velocities);
    context.setPositions(asVectors(positions));
    if (leapfrog)
        addForces(context, -0.5 * stepSize, v);
    context.setVelocities(v);
    integrator.step(std::lround(lagTime / stepSize));
    const State state = context.getState(State::Positions | State::Velocities);
    v = state.getVelocities();
    if (leapfrog)
        addForces(context, 0.5 * stepSize, v);
    for (size_t i = 0; i < positions.size(); i++) {
        positions[i] = state.getPositions()[i / 3][i % 3];
        velocities[i] = v[i / 3][i % 3];
    }
}

} // namespace

void DiffusionIntegrator::checkRescueContext(Context &rescueContext) const {
    const std::string what = "found a rescue Context ";
    const System &system = rescueContext.getSystem();
    const Integrator &integrator = rescueContext.getIntegrator();
    if (&integrator == this)
        throw OpenMMException(join(what, "of this integrator itself, expected one with the "
                                         "reference force"));
    std::vector<std::vector<double>> masses(getNumMolecules());
    for (const Particle &particle : particles)
        masses[particle.molecule].push_back(particle.mass);
    for (int molecule = 0; molecule < getNumMolecules(); molecule++) {
        const int numParticles = masses[molecule].size();
        if (system.getNumParticles() != numParticles)
            throw OpenMMException(join(what, "of ", system.getNumParticles(),
                                       " particles, expected ", numParticles, " as in molecule ",
                                       molecule, "; give a Context of one such molecule"));
        for (int i = 0; i < numParticles; i++) {
            const double mass = system.getParticleMass(i), expected = masses[molecule][i];
            if (!isMass(mass, expected))
                throw OpenMMException(join(what, "with mass ", mass, " Da of particle ", i,
                                           ", expected ", expected, " Da as in molecule ", molecule,
                                           "; make its System from the same atoms in this order"));
        }
    }
    if (system.getNumConstraints() > 0)
        throw OpenMMException(join(what, "with ", system.getNumConstraints(),
                                   " constraints, expected none; make its System with "
                                   "constraints=None"));
    for (int i = 0; i < system.getNumForces(); i++)
        if (isMover(system.getForce(i)))
            throw OpenMMException(join(what, "with a ", system.getForce(i).getName(),
                                       ", expected forces that do not change the state by "
                                       "themselves; remove it (removeCMMotion=False in "
                                       "createSystem)"));
    const double steps = getStepSize() / integrator.getStepSize();
    if (!(steps >= 0.5) || std::abs(steps - std::round(steps)) > STEP_TOLERANCE * steps)
        throw OpenMMException(join(what, "with step size ", integrator.getStepSize(),
                                   " ps, expected one that divides the lag time ", getStepSize(),
                                   " ps; set another step size"));
    const auto *langevin = dynamic_cast<const LangevinMiddleIntegrator *>(&integrator);
    if (langevin != nullptr && (!thermostatted || langevin->getTemperature() != temperature ||
                                langevin->getFriction() != friction))
        throw OpenMMException(
            join(what, "with a LangevinMiddleIntegrator of ", langevin->getTemperature(), " K and ",
                 langevin->getFriction(), " 1/ps, expected ",
                 thermostatted ? join("one of ", temperature, " K and ", friction, " 1/ps")
                               : std::string("no bath, since this integrator adds its own; use a "
                                             "VerletIntegrator")));
    if (thermostatted && dynamic_cast<const VerletIntegrator *>(&integrator) != nullptr)
        throw OpenMMException(join(what,
                                   "with a VerletIntegrator, expected the bath that the "
                                   "model has learned; use a LangevinMiddleIntegrator of ",
                                   temperature, " K and ", friction, " 1/ps"));
    if (!isLeapfrog(integrator) && dynamic_cast<const CustomIntegrator *>(&integrator) == nullptr)
        throw OpenMMException(join(what, "with an integrator whose velocities are of an unknown "
                                         "time, expected a VerletIntegrator, "
                                         "LangevinMiddleIntegrator or CustomIntegrator"));
}

void DiffusionIntegrator::setRescueContext(Context *context, std::shared_ptr<void> owner) {
    if (isInStep)
        throw OpenMMException("DiffusionIntegrator: found a rescue Context set while step() has "
                              "not returned, which may be using the one of before; do so between "
                              "steps");
    if (context == nullptr) {
        rescue = nullptr;
    } else {
        try {
            checkRescueContext(*context);
        } catch (const OpenMMException &error) {
            throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
        }
        rescue = [this, context, owner = std::move(owner), lagTime = getStepSize()](
                     std::vector<double> &positions, std::vector<double> &velocities) {
            // Its step size or bath may have been set anew since.
            checkRescueContext(*context);
            runLag(*context, lagTime, positions, velocities);
        };
    }
}

} // namespace OpenMMDiffMD
