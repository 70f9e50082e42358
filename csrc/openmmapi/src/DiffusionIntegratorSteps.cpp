// What a DiffusionIntegrator does in its Context: steps, and what they leave to be asked for.

#include "DiffusionIntegrator.h"
#include "DiffusionKernels.h"
#include "GenericDiffusionKernels.h"
#include "Messages.h"
#include "propagator.h"

#include "openmm/CMMotionRemover.h"
#include "openmm/Context.h"
#include "openmm/System.h"
#include "openmm/internal/AssertionUtilities.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/internal/OSRngSeed.h"

#include <numeric>

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

/** Force groups, as bit flags, that hold forces; what only changes velocities is none. */
int findForceGroups(const System &system) {
    int groups = 0;
    for (int i = 0; i < system.getNumForces(); i++) {
        const Force &force = system.getForce(i);
        if (dynamic_cast<const CMMotionRemover *>(&force) == nullptr)
            groups |= 1 << force.getForceGroup();
    }
    return groups;
}

long long sum(const std::vector<int64_t> &counts) {
    return std::accumulate(counts.begin(), counts.end(), 0LL);
}

/** Sets a flag until it goes out of scope. */
template <class Flag> class Raised {
public:
    explicit Raised(Flag &flag) : flag(flag) { flag = true; }
    ~Raised() { flag = false; }
    Raised(const Raised &) = delete;
    Raised &operator=(const Raised &) = delete;

private:
    Flag &flag;
};

} // namespace

void DiffusionIntegrator::initialize(ContextImpl &contextRef) {
    if (owner != nullptr && &contextRef.getOwner() != owner)
        throw OpenMMException("This Integrator is already bound to a context");
    const System &system = contextRef.getSystem();
    checkSystem(system);

    diffmd::Molecules molecules;
    for (int i = 0; i < getNumParticles(); i++) {
        molecules.species.push_back(particles[i].species);
        molecules.masses.push_back(system.getParticleMass(i));
        molecules.molecule_of_particle.push_back(particles[i].molecule);
    }
    molecules.kinetic_energy_quantiles = kineticEnergyQuantiles;
    for (const Bond &bond : bonds)
        molecules.bonds.push_back({bond.particle1, bond.particle2, bond.minLength, bond.maxLength});
    for (const ContactLimit &limit : contactLimits)
        molecules.contact_limits.push_back({limit.species1, limit.species2, limit.minDistance});
    diffmd::Options options;
    options.lag_time = getStepSize();
    options.thermostatted = thermostatted;
    options.max_temperature = maxTemperature;
    options.sampler = diffmd::sampler_from_name(sampler);
    options.num_sampling_steps = numSamplingSteps;
    options.sigma_min = sigmaMin;
    options.sigma_max = sigmaMax;
    options.rho = rho;
    options.max_resamples = maxResamples;
    options.conserve_angular_momentum = conserveAngularMomentum;
    options.molecules_per_batch = moleculesPerBatch;
    options.seed = static_cast<unsigned int>(randomNumberSeed ? randomNumberSeed : osrngseed());
    const Platform &platform = contextRef.getPlatform();
    const std::string name = IntegrateDiffusionStepKernel::Name();
    kernel = platform.supportsKernels({name})
                 ? platform.createKernel(name, contextRef)
                 : Kernel(new GenericIntegrateDiffusionStepKernel(platform, contextRef));
    try {
        kernel.getAs<IntegrateDiffusionStepKernel>().initialize(*this, molecules, options);
    } catch (const std::exception &error) {
        kernel = Kernel();
        throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
    }
    isInitialized = true;
    hasSetPositions = forcesAreValid = false;
    expectedReports = 0;
    stepCountAfterLag = -1;
    numInterruptions = 0;
    forceGroupsInSystem = findForceGroups(system);
    context = &contextRef;
    owner = &contextRef.getOwner();
}

void DiffusionIntegrator::cleanup() {
    isInitialized = false;
    kernel = Kernel();
}

std::vector<std::string> DiffusionIntegrator::getKernelNames() {
    // None that a platform must have: the generic kernel serves every platform.
    return {};
}

IntegrateDiffusionStepKernel &DiffusionIntegrator::getKernel() {
    if (context == nullptr || !isInitialized)
        throw OpenMMException("This Integrator is not bound to a context!");
    return kernel.getAs<IntegrateDiffusionStepKernel>();
}

const IntegrateDiffusionStepKernel &DiffusionIntegrator::getKernel() const {
    return const_cast<DiffusionIntegrator *>(this)->getKernel();
}

void DiffusionIntegrator::stateChanged(State::DataType changed) {
    if (isStepping || !isInitialized)
        return;
    if ((expectedReports & changed) != 0) {
        expectedReports &= ~changed;
        // None came if a later integrator of a CompoundIntegrator refused its part: then this one
        // is of something else, or of the same state again.
        if (hashOfState() == loadedState)
            return;
    }
    forcesAreValid = false;
    if (changed == State::Positions || changed == State::Velocities) {
        getKernel().forgetHistory();
        numInterruptions++;
    }
    if (changed == State::Positions)
        hasSetPositions = true;
}

double DiffusionIntegrator::computeKineticEnergy() {
    std::vector<Vec3> velocities;
    context->getVelocities(velocities);
    const System &system = context->getSystem();
    double energy = 0.0;
    for (int i = 0; i < system.getNumParticles(); i++)
        energy += 0.5 * system.getParticleMass(i) * velocities[i].dot(velocities[i]);
    return energy;
}

void DiffusionIntegrator::step(int steps) {
    IntegrateDiffusionStepKernel &steppingKernel = getKernel();
    // The bindings let other threads run, which may call this by mistake.
    if (isInStep.exchange(true))
        throw OpenMMException("DiffusionIntegrator: found a call of step() while another has not "
                              "returned, expected one at a time; wait for the other thread, or "
                              "give each its own Context");
    const Raised inStep(isInStep);
    if (!hasSetPositions)
        throw OpenMMException("Particle positions have not been set");
    // Another integrator of a CompoundIntegrator moved the particles: no report says so.
    if (stepCountAfterLag >= 0 && context->getStepCount() != stepCountAfterLag) {
        steppingKernel.forgetHistory();
        forcesAreValid = false;
        numInterruptions++;
        stepCountAfterLag = -1;
    }
    const int forceGroups = getIntegrationForceGroups() & forceGroupsInSystem;
    std::array<Vec3, 3> box;
    context->getPeriodicBoxVectors(box[0], box[1], box[2]);
    if (forceGroups != lastForceGroups || box != lastBox || context->getTime() != lastTime)
        forcesAreValid = false;
    lastForceGroups = forceGroups;
    lastBox = box;
    expectedReports = 0;
    for (int i = 0; i < steps; i++) {
        if (context->updateContextState())
            forcesAreValid = false;
        const bool reuseForces = forcesAreValid;
        forcesAreValid = false;
        try {
            const Raised raised(isStepping);
            steppingKernel.execute(*context, *this, forceGroups, reuseForces);
            // Forces that depend on time act at the end of the lag, and if they fail the lag has
            // been taken all the same.
            context->setTime(context->getTime() + getStepSize());
            stepCountAfterLag = context->getStepCount() + 1;
            context->setStepCount(stepCountAfterLag);
            if (forceGroups != 0)
                steppingKernel.addLastImpulse(*context, forceGroups);
        } catch (const std::exception &error) {
            numInterruptions++;
            throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
        }
        forcesAreValid = true;
        lastTime = context->getTime();
    }
}

long long DiffusionIntegrator::getNumResamples() const {
    return sum(getKernel().getTally().num_resamples);
}

long long DiffusionIntegrator::getNumResamples(int molecule) const {
    const auto counts = getKernel().getTally().num_resamples;
    ASSERT_VALID_INDEX(molecule, counts);
    return counts[molecule];
}

long long DiffusionIntegrator::getNumRescues() const {
    return sum(getKernel().getTally().num_rescues);
}

long long DiffusionIntegrator::getNumRescues(int molecule) const {
    const auto counts = getKernel().getTally().num_rescues;
    ASSERT_VALID_INDEX(molecule, counts);
    return counts[molecule];
}

long long DiffusionIntegrator::getNumInterruptions() const {
    getKernel(); // Refuses where there is no Context.
    return numInterruptions;
}

std::string DiffusionIntegrator::getLastRefusal() const {
    return getKernel().getTally().last_refusal.describe();
}

void DiffusionIntegrator::getLastRefusalParameters(long long &lag, int &molecule,
                                                   std::string &quantity, std::vector<int> &atoms,
                                                   std::vector<double> &values, double &minValue,
                                                   double &maxValue) const {
    const diffmd::Refusal refusal = getKernel().getTally().last_refusal;
    lag = refusal.lag;
    molecule = refusal.molecule;
    quantity = diffmd::name_of(refusal.quantity);
    atoms = refusal.atoms;
    values = refusal.values;
    minValue = refusal.min_value;
    maxValue = refusal.max_value;
}

long long DiffusionIntegrator::getNumEvaluations() const { return getKernel().getNumEvaluations(); }

double DiffusionIntegrator::getNetworkTime() const { return getKernel().getNetworkTime(); }

} // namespace OpenMMDiffMD
