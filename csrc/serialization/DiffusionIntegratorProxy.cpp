#include "DiffusionIntegratorProxy.h"
#include "DiffusionIntegrator.h"
#include "sha256.h"

#include "openmm/OpenMMException.h"
#include "openmm/serialization/SerializationNode.h"

#include <memory>
#include <string>

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

constexpr int VERSION = 1;

// Runs when the library is loaded, as in OpenMM's own plugins.
[[gnu::constructor]] void registerDiffusionIntegratorProxy() {
    SerializationProxy::registerProxy(typeid(DiffusionIntegrator), new DiffusionIntegratorProxy());
}

} // namespace

DiffusionIntegratorProxy::DiffusionIntegratorProxy() : SerializationProxy("DiffusionIntegrator") {}

void DiffusionIntegratorProxy::serialize(const void *object, SerializationNode &node) const {
    const auto &integrator = *static_cast<const DiffusionIntegrator *>(object);
    node.setIntProperty("version", VERSION);
    node.setStringProperty("modelFile", integrator.getModelFile());
    node.setStringProperty("modelHash", integrator.getModelHash());
    node.setDoubleProperty("stepSize", integrator.getStepSize());
    node.setDoubleProperty("temperature", integrator.getTemperature());
    node.setDoubleProperty("friction", integrator.getFriction());
    node.setBoolProperty("thermostatted", integrator.getThermostatted());
    node.setDoubleProperty("maxTemperature", integrator.getMaxTemperature());
    node.setIntProperty("randomSeed", integrator.getRandomNumberSeed());
    node.setStringProperty("sampler", integrator.getSampler());
    node.setIntProperty("numSamplingSteps", integrator.getNumSamplingSteps());
    double sigmaMin, sigmaMax, rho;
    integrator.getNoiseLevels(sigmaMin, sigmaMax, rho);
    node.setDoubleProperty("sigmaMin", sigmaMin);
    node.setDoubleProperty("sigmaMax", sigmaMax);
    node.setDoubleProperty("rho", rho);
    node.setIntProperty("maxResamples", integrator.getMaxResamples());
    node.setBoolProperty("conserveAngularMomentum", integrator.getConserveAngularMomentum());
    node.setDoubleProperty("constraintTolerance", integrator.getConstraintTolerance());
    node.setIntProperty("forceGroups", integrator.getIntegrationForceGroups());
    SerializationNode &molecules = node.createChildNode("Molecules");
    for (int i = 0; i < integrator.getNumMolecules(); i++)
        molecules.createChildNode("Molecule")
            .setDoubleProperty("kineticEnergyQuantile", integrator.getKineticEnergyQuantile(i));
    SerializationNode &particles = node.createChildNode("Particles");
    for (int i = 0; i < integrator.getNumParticles(); i++) {
        int species, molecule;
        double mass;
        integrator.getParticleParameters(i, species, mass, molecule);
        particles.createChildNode("Particle")
            .setIntProperty("species", species)
            .setDoubleProperty("mass", mass)
            .setIntProperty("molecule", molecule);
    }
    SerializationNode &bonds = node.createChildNode("Bonds");
    for (int i = 0; i < integrator.getNumBonds(); i++) {
        int particle1, particle2;
        double minLength, maxLength;
        integrator.getBondParameters(i, particle1, particle2, minLength, maxLength);
        bonds.createChildNode("Bond")
            .setIntProperty("p1", particle1)
            .setIntProperty("p2", particle2)
            .setDoubleProperty("min", minLength)
            .setDoubleProperty("max", maxLength);
    }
}

void *DiffusionIntegratorProxy::deserialize(const SerializationNode &node) const {
    const int version = node.getIntProperty("version");
    if (version != VERSION)
        throw OpenMMException("DiffusionIntegrator: found XML of version " +
                              std::to_string(version) + ", expected " + std::to_string(VERSION) +
                              "; write it again with this version of openmm_diffmd");
    const std::string modelFile = node.getStringProperty("modelFile");
    const std::string modelHash = node.getStringProperty("modelHash");
    try {
        diffmd::read_model_file(modelFile, modelHash);
    } catch (const std::exception &error) {
        throw OpenMMException(std::string("DiffusionIntegrator: ") + error.what());
    }
    auto integrator = std::make_unique<DiffusionIntegrator>(
        modelFile, modelHash, node.getDoubleProperty("stepSize"),
        node.getDoubleProperty("temperature"), node.getDoubleProperty("friction"),
        node.getBoolProperty("thermostatted"));
    integrator->setMaxTemperature(node.getDoubleProperty("maxTemperature"));
    integrator->setRandomNumberSeed(node.getIntProperty("randomSeed"));
    integrator->setSampler(node.getStringProperty("sampler"));
    integrator->setNumSamplingSteps(node.getIntProperty("numSamplingSteps"));
    integrator->setNoiseLevels(node.getDoubleProperty("sigmaMin"),
                               node.getDoubleProperty("sigmaMax"), node.getDoubleProperty("rho"));
    integrator->setMaxResamples(node.getIntProperty("maxResamples"));
    integrator->setConserveAngularMomentum(node.getBoolProperty("conserveAngularMomentum"));
    integrator->setConstraintTolerance(node.getDoubleProperty("constraintTolerance"));
    integrator->setIntegrationForceGroups(node.getIntProperty("forceGroups"));
    for (const SerializationNode &molecule : node.getChildNode("Molecules").getChildren())
        integrator->addMolecule(molecule.getDoubleProperty("kineticEnergyQuantile"));
    for (const SerializationNode &particle : node.getChildNode("Particles").getChildren())
        integrator->addParticle(particle.getIntProperty("species"),
                                particle.getDoubleProperty("mass"),
                                particle.getIntProperty("molecule"));
    for (const SerializationNode &bond : node.getChildNode("Bonds").getChildren())
        integrator->addBond(bond.getIntProperty("p1"), bond.getIntProperty("p2"),
                            bond.getDoubleProperty("min"), bond.getDoubleProperty("max"));
    // The compiler cannot see that OpenMM reads this pointer as an Integrator: convert it here.
    return static_cast<Integrator *>(integrator.release());
}

} // namespace OpenMMDiffMD
