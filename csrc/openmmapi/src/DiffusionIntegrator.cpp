// What a DiffusionIntegrator is told: molecules, and how to move them.

#include "DiffusionIntegrator.h"
#include "Checks.h"
#include "Messages.h"
#include "samplers.h"

#include "openmm/internal/AssertionUtilities.h"

#include <cmath>
#include <stdexcept>

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

/** More than any sampler needs; memory grows with it. */
constexpr int MAX_SAMPLING_STEPS = 10000;

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

void DiffusionIntegrator::requireNoContext(const char *what) const {
    if (isInitialized)
        throw OpenMMException(join("DiffusionIntegrator: found a Context that has been made, "
                                   "expected none when ",
                                   what, "; do so before, it would have no effect now"));
}

int DiffusionIntegrator::addMolecule(double kineticEnergyQuantile) {
    requireNoContext("a molecule is added");
    requireNumber("kinetic energy quantile", kineticEnergyQuantile, false);
    kineticEnergyQuantiles.push_back(kineticEnergyQuantile);
    return getNumMolecules() - 1;
}

double DiffusionIntegrator::getKineticEnergyQuantile(int molecule) const {
    ASSERT_VALID_INDEX(molecule, kineticEnergyQuantiles);
    return kineticEnergyQuantiles[molecule];
}

int DiffusionIntegrator::addParticle(int species, double mass, int molecule) {
    requireNoContext("a particle is added");
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
    requireNoContext("a bond is added");
    requireNumber("smallest bond length", minLength, true);
    requireNumber("largest bond length", maxLength, false);
    if (minLength > maxLength)
        throw OpenMMException(join("DiffusionIntegrator: found a smallest bond length of ",
                                   minLength, " nm, expected at most the largest, ", maxLength,
                                   " nm"));
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

int DiffusionIntegrator::addContactLimit(int species1, int species2, double minDistance) {
    requireNoContext("a contact limit is added");
    requireNumber("contact limit", minDistance, true);
    if (species1 < 0 || species2 < 0)
        throw OpenMMException(join("DiffusionIntegrator: found a contact limit of species ",
                                   species1, " and ", species2, ", expected both at least 0"));
    contactLimits.push_back({species1, species2, minDistance});
    return getNumContactLimits() - 1;
}

void DiffusionIntegrator::getContactLimitParameters(int index, int &species1, int &species2,
                                                    double &minDistance) const {
    ASSERT_VALID_INDEX(index, contactLimits);
    const ContactLimit &limit = contactLimits[index];
    species1 = limit.species1;
    species2 = limit.species2;
    minDistance = limit.minDistance;
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

void DiffusionIntegrator::setRandomNumberSeed(int seed) { randomNumberSeed = seed; }

void DiffusionIntegrator::setStepSize(double size) {
    if (!(std::abs(size - getStepSize()) <= STEP_TOLERANCE * getStepSize()))
        throw OpenMMException(join("DiffusionIntegrator: found step size ", size, " ps, expected ",
                                   getStepSize(),
                                   " ps, the lag time the model was trained for; use a model "
                                   "trained for another lag time"));
}

void DiffusionIntegrator::setMaxTemperature(double temp) {
    requireNoContext("the temperature of the hottest data is set");
    requireNumber("temperature of the hottest training data", temp, true);
    maxTemperature = temp;
}

void DiffusionIntegrator::setSampler(const std::string &name) {
    requireNoContext("the sampler is set");
    try {
        diffmd::sampler_from_name(name);
    } catch (const std::invalid_argument &error) {
        throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
    }
    sampler = name;
}

void DiffusionIntegrator::setNumSamplingSteps(int steps) {
    requireNoContext("the number of sampling steps is set");
    requireNumber("number of sampling steps", steps, true);
    if (steps > MAX_SAMPLING_STEPS)
        throw OpenMMException(join("DiffusionIntegrator: found number of sampling steps ", steps,
                                   ", expected at most ", MAX_SAMPLING_STEPS));
    numSamplingSteps = steps;
}

void DiffusionIntegrator::getNoiseLevels(double &sigmaMin, double &sigmaMax, double &rho) const {
    sigmaMin = this->sigmaMin;
    sigmaMax = this->sigmaMax;
    rho = this->rho;
}

void DiffusionIntegrator::setNoiseLevels(double sigmaMin, double sigmaMax, double rho) {
    requireNoContext("the noise levels are set");
    requireNumber("lowest noise level", sigmaMin, false);
    requireNumber("highest noise level less the lowest", sigmaMax - sigmaMin, true);
    requireNumber("exponent of the noise levels", rho, false);
    if (!(std::pow(sigmaMin, 1 / rho) > 0.0 && std::isfinite(std::pow(sigmaMax, 1 / rho))))
        throw OpenMMException(join("DiffusionIntegrator: found noise levels of ", sigmaMin, " to ",
                                   sigmaMax, " with exponent ", rho, ", whose powers 1/", rho,
                                   " no number holds; the models have an exponent of 7"));
    this->sigmaMin = sigmaMin;
    this->sigmaMax = sigmaMax;
    this->rho = rho;
}

void DiffusionIntegrator::setMaxResamples(int count) {
    requireNoContext("the number of resamples is set");
    requireNumber("number of resamples", count, true);
    maxResamples = count;
}

void DiffusionIntegrator::setConserveAngularMomentum(bool conserve) {
    requireNoContext("the angular momentum is to be kept or not");
    conserveAngularMomentum = conserve;
}

void DiffusionIntegrator::setMoleculesPerBatch(int count) {
    requireNoContext("the number of molecules per batch is set");
    requireNumber("number of molecules per batch", count, true);
    moleculesPerBatch = count;
}

} // namespace OpenMMDiffMD
