#include "DiffusionIntegrator.h"
#include "propagator.h"

#include "openmm/CMMotionRemover.h"
#include "openmm/Context.h"
#include "openmm/MonteCarloAnisotropicBarostat.h"
#include "openmm/MonteCarloBarostat.h"
#include "openmm/MonteCarloFlexibleBarostat.h"
#include "openmm/MonteCarloMembraneBarostat.h"
#include "openmm/OpenMMException.h"
#include "openmm/System.h"
#include "openmm/internal/AssertionUtilities.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/internal/OSRngSeed.h"

#include <cmath>
#include <numeric>
#include <sstream>

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

/** Relative difference of masses beyond which a particle is not the element it is said to be. */
constexpr double MASS_TOLERANCE = 5e-3;
/** Relative difference of step sizes that rounding of units explains. */
constexpr double STEP_TOLERANCE = 1e-6;

template <class... Parts> std::string join(const Parts &...parts) {
    std::ostringstream text;
    (text << ... << parts);
    return text.str();
}

void requireNumber(const char *name, double value, bool allowZero) {
    if (!std::isfinite(value) || value < 0 || (value == 0 && !allowZero))
        throw OpenMMException(join("DiffusionIntegrator: found ", name, " ", value, ", expected a ",
                                   allowZero ? "number of at least 0" : "positive number"));
}

bool isBarostat(const Force &force) {
    return dynamic_cast<const MonteCarloBarostat *>(&force) != nullptr ||
           dynamic_cast<const MonteCarloAnisotropicBarostat *>(&force) != nullptr ||
           dynamic_cast<const MonteCarloFlexibleBarostat *>(&force) != nullptr ||
           dynamic_cast<const MonteCarloMembraneBarostat *>(&force) != nullptr;
}

} // namespace

DiffusionIntegrator::DiffusionIntegrator(const std::string &modelFile, const std::string &modelHash,
                                         double lagTime, double temperature, double friction,
                                         bool thermostatted)
    : modelFile(modelFile), modelHash(modelHash), temperature(temperature), friction(friction),
      thermostatted(thermostatted), maxTemperature(temperature) {
    requireNumber("lag time", lagTime, false);
    requireNumber("temperature", temperature, true);
    requireNumber("friction", friction, true);
    Integrator::setStepSize(lagTime);
    setConstraintTolerance(1e-5);
}

DiffusionIntegrator::~DiffusionIntegrator() = default;

int DiffusionIntegrator::addMolecule(double kineticEnergyQuantile) {
    requireNumber("kinetic energy quantile", kineticEnergyQuantile, false);
    kineticEnergyQuantiles.push_back(kineticEnergyQuantile);
    return getNumMolecules() - 1;
}

double DiffusionIntegrator::getKineticEnergyQuantile(int molecule) const {
    ASSERT_VALID_INDEX(molecule, kineticEnergyQuantiles);
    return kineticEnergyQuantiles[molecule];
}

int DiffusionIntegrator::addParticle(int species, double mass, int molecule) {
    requireNumber("particle mass", mass, false);
    if (species < 0 || molecule < 0 || molecule >= getNumMolecules())
        throw OpenMMException(join("DiffusionIntegrator: found species ", species, " in molecule ",
                                   molecule, ", expected a species of at least 0 in one of ",
                                   getNumMolecules(), " molecules"));
    particles.push_back({species, mass, molecule});
    return getNumParticles() - 1;
}

void DiffusionIntegrator::getParticleParameters(int index, int &species, double &mass,
                                                int &molecule) const {
    ASSERT_VALID_INDEX(index, particles);
    const Particle &particle = particles[index];
    species = particle.species;
    mass = particle.mass;
    molecule = particle.molecule;
}

int DiffusionIntegrator::addBond(int particle1, int particle2, double minLength, double maxLength) {
    requireNumber("smallest bond length", minLength, true);
    requireNumber("largest bond length", maxLength, false);
    const int last = getNumParticles() - 1;
    if (particle1 < 0 || particle2 < 0 || particle1 > last || particle2 > last ||
        particles[particle1].molecule != particles[particle2].molecule || particle1 == particle2)
        throw OpenMMException(join("DiffusionIntegrator: found a bond between particles ",
                                   particle1, " and ", particle2,
                                   ", expected two particles of one molecule; give bonded atoms "
                                   "the same molecule id"));
    bonds.push_back({particle1, particle2, minLength, maxLength});
    return getNumBonds() - 1;
}

void DiffusionIntegrator::getBondParameters(int index, int &particle1, int &particle2,
                                            double &minLength, double &maxLength) const {
    ASSERT_VALID_INDEX(index, bonds);
    const Bond &bond = bonds[index];
    particle1 = bond.particle1;
    particle2 = bond.particle2;
    minLength = bond.minLength;
    maxLength = bond.maxLength;
}

void DiffusionIntegrator::setTemperature(double temp) {
    requireNumber("temperature", temp, true);
    if (thermostatted && temp != temperature)
        throw OpenMMException(join("DiffusionIntegrator: found temperature ", temp, " K, expected ",
                                   temperature,
                                   " K, which the model has learned together with its heat bath; "
                                   "use a model of the frictionless flow"));
    temperature = temp;
}

void DiffusionIntegrator::setFriction(double coeff) {
    requireNumber("friction", coeff, true);
    if (thermostatted && coeff != friction)
        throw OpenMMException(join("DiffusionIntegrator: found friction ", coeff,
                                   " 1/ps, expected ", friction,
                                   " 1/ps, which the model has learned together with its heat "
                                   "bath; use a model of the frictionless flow"));
    friction = coeff;
}

void DiffusionIntegrator::setRandomNumberSeed(int seed) {
    if (seed < 0)
        throw OpenMMException(
            join("DiffusionIntegrator: found seed ", seed, ", expected a number of at least 0"));
    randomNumberSeed = seed;
}

void DiffusionIntegrator::setStepSize(double size) {
    if (!(std::abs(size - getStepSize()) <= STEP_TOLERANCE * getStepSize()))
        throw OpenMMException(join("DiffusionIntegrator: found step size ", size, " ps, expected ",
                                   getStepSize(),
                                   " ps, the lag time the model was trained for; use a model "
                                   "trained for another lag time"));
}

void DiffusionIntegrator::setSampler(const std::string &name) {
    try {
        diffmd::sampler_from_name(name);
    } catch (const std::invalid_argument &error) {
        throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
    }
    sampler = name;
}

void DiffusionIntegrator::setNumSamplingSteps(int steps) {
    requireNumber("number of sampling steps", steps, true);
    numSamplingSteps = steps;
}

void DiffusionIntegrator::getNoiseLevels(double &sigmaMin, double &sigmaMax, double &rho) const {
    sigmaMin = this->sigmaMin;
    sigmaMax = this->sigmaMax;
    rho = this->rho;
}

void DiffusionIntegrator::setNoiseLevels(double sigmaMin, double sigmaMax, double rho) {
    requireNumber("lowest noise level", sigmaMin, false);
    requireNumber("highest noise level less the lowest", sigmaMax - sigmaMin, true);
    requireNumber("exponent of the noise levels", rho, false);
    this->sigmaMin = sigmaMin;
    this->sigmaMax = sigmaMax;
    this->rho = rho;
}

void DiffusionIntegrator::setMaxResamples(int count) {
    requireNumber("number of resamples", count, true);
    maxResamples = count;
}

const diffmd::Propagator &DiffusionIntegrator::getPropagator() const {
    if (propagator == nullptr)
        throw OpenMMException("This Integrator is not bound to a context!");
    return *propagator;
}

long long DiffusionIntegrator::getNumResamples() const {
    const auto &counts = getPropagator().get_num_resamples();
    return std::accumulate(counts.begin(), counts.end(), 0LL);
}

long long DiffusionIntegrator::getNumResamples(int molecule) const {
    const auto &counts = getPropagator().get_num_resamples();
    ASSERT_VALID_INDEX(molecule, counts);
    return counts[molecule];
}

std::string DiffusionIntegrator::getLastRefusal() const {
    return getPropagator().get_last_refusal();
}

long long DiffusionIntegrator::getNumEvaluations() const {
    return getPropagator().get_num_evaluations();
}

double DiffusionIntegrator::getNetworkTime() const { return getPropagator().get_network_seconds(); }

void DiffusionIntegrator::checkSystem(const System &system) const {
    const std::string what = "DiffusionIntegrator: found ";
    if (system.getNumParticles() != getNumParticles())
        throw OpenMMException(join(what, system.getNumParticles(),
                                   " particles in the System, expected ", getNumParticles(),
                                   " as in the topology; make both from the same topology"));
    if (getNumParticles() == 0)
        throw OpenMMException(join(what, "no particles, expected at least one molecule"));
    if (system.getNumConstraints() > 0)
        throw OpenMMException(join(what, system.getNumConstraints(),
                                   " constraints, expected none: the model moves all atoms; make "
                                   "the System with constraints=None, rigidWater=False"));
    for (int i = 0; i < system.getNumParticles(); i++) {
        if (system.isVirtualSite(i))
            throw OpenMMException(
                join(what, "a virtual site at particle ", i,
                     ", expected atoms only; use a System without virtual sites"));
        const double mass = system.getParticleMass(i), expected = particles[i].mass;
        if (mass == 0)
            throw OpenMMException(join(what, "massless particle ", i, ", expected mass ", expected,
                                       " Da; the model cannot hold a particle fixed"));
        if (std::abs(mass - expected) > MASS_TOLERANCE * expected)
            throw OpenMMException(join(what, "mass ", mass, " Da of particle ", i, ", expected ",
                                       expected,
                                       " Da as its element has; make the System without "
                                       "hydrogen mass repartitioning or isotopes"));
    }
    std::vector<int> counts(getNumMolecules());
    for (const Particle &particle : particles)
        counts[particle.molecule]++;
    for (int molecule = 0; molecule < getNumMolecules(); molecule++)
        if (counts[molecule] == 0)
            throw OpenMMException(
                join(what, "no particles in molecule ", molecule,
                     ", expected at least one; add only molecules that are used"));
    checkForces(system);
}

void DiffusionIntegrator::checkForces(const System &system) const {
    for (int i = 0; i < system.getNumForces(); i++) {
        const Force &force = system.getForce(i);
        if (isBarostat(force))
            throw OpenMMException(join("DiffusionIntegrator: found a barostat (", force.getName(),
                                       "), expected none: the model knows isolated molecules, not "
                                       "a volume; remove it from the System"));
        const bool acts = (getIntegrationForceGroups() & (1 << force.getForceGroup())) != 0;
        if (acts && dynamic_cast<const CMMotionRemover *>(&force) == nullptr)
            throw OpenMMException(
                join("DiffusionIntegrator: found force ", force.getName(), " in force group ",
                     force.getForceGroup(),
                     ", expected none: this integrator does not apply forces yet; use a System "
                     "with masses only (openmm_diffmd.create_system), or call "
                     "setIntegrationForceGroups(0) to have forces reported but not applied"));
    }
}

void DiffusionIntegrator::initialize(ContextImpl &contextRef) {
    if (owner != nullptr && &contextRef.getOwner() != owner)
        throw OpenMMException("This Integrator is already bound to a context");
    const System &system = contextRef.getSystem();
    checkSystem(system);
    checkedForceGroups = getIntegrationForceGroups();

    diffmd::Molecules molecules;
    for (int i = 0; i < getNumParticles(); i++) {
        molecules.species.push_back(particles[i].species);
        molecules.masses.push_back(system.getParticleMass(i));
        molecules.molecule_of_particle.push_back(particles[i].molecule);
    }
    molecules.kinetic_energy_quantiles = kineticEnergyQuantiles;
    for (const Bond &bond : bonds)
        molecules.bonds.push_back({bond.particle1, bond.particle2, bond.minLength, bond.maxLength});
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
    options.seed = static_cast<unsigned int>(randomNumberSeed ? randomNumberSeed : osrngseed());
    try {
        propagator = std::make_unique<diffmd::Propagator>(modelFile, modelHash, molecules, options);
    } catch (const std::exception &error) {
        throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
    }
    stepCountAfterLag = -1;
    context = &contextRef;
    owner = &contextRef.getOwner();
}

void DiffusionIntegrator::cleanup() { propagator.reset(); }

void DiffusionIntegrator::stateChanged(State::DataType changed) {
    if (changed != State::Positions || propagator == nullptr)
        return;
    if (!expectPositions)
        propagator->forget_history();
    expectPositions = false;
}

std::vector<std::string> DiffusionIntegrator::getKernelNames() { return {}; }

double DiffusionIntegrator::computeKineticEnergy() {
    context->getVelocities(velocities);
    const System &system = context->getSystem();
    double energy = 0.0;
    for (int i = 0; i < system.getNumParticles(); i++)
        energy += 0.5 * system.getParticleMass(i) * velocities[i].dot(velocities[i]);
    return energy;
}

void DiffusionIntegrator::createCheckpoint(std::ostream &stream) const {
    getPropagator().save(stream);
}

void DiffusionIntegrator::loadCheckpoint(std::istream &stream) {
    try {
        propagator->load(stream);
    } catch (const std::exception &error) {
        throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
    }
    // The Context reports the checkpoint's positions next; the history belongs to them.
    expectPositions = true;
    stepCountAfterLag = -1;
}

void DiffusionIntegrator::step(int steps) {
    if (context == nullptr || propagator == nullptr)
        throw OpenMMException("This Integrator is not bound to a context!");
    if (getIntegrationForceGroups() != checkedForceGroups) {
        checkForces(context->getSystem());
        checkedForceGroups = getIntegrationForceGroups();
    }
    // Another integrator of a CompoundIntegrator moved the particles: no report says so.
    if (stepCountAfterLag >= 0 && context->getStepCount() != stepCountAfterLag)
        propagator->forget_history();
    propagator->set_bath(temperature, friction);
    for (int i = 0; i < steps; i++) {
        context->updateContextState();
        context->getPositions(positions);
        context->getVelocities(velocities);
        static_assert(sizeof(Vec3) == 3 * sizeof(double));
        try {
            propagator->step(&positions[0][0], &velocities[0][0]);
        } catch (const std::exception &error) {
            throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
        }
        expectPositions = true;
        context->setPositions(positions);
        expectPositions = false;
        context->setVelocities(velocities);
        context->setTime(context->getTime() + getStepSize());
        stepCountAfterLag = context->getStepCount() + 1;
        context->setStepCount(stepCountAfterLag);
    }
}

} // namespace OpenMMDiffMD
