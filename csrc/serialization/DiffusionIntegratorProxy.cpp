#include "DiffusionIntegratorProxy.h"
#include "DiffusionIntegrator.h"
#include "sha256.h"

#include "openmm/OpenMMException.h"
#include "openmm/serialization/SerializationNode.h"

#include <charconv>
#include <filesystem>
#include <memory>
#include <string>

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

constexpr int VERSION = 2;

DiffusionIntegratorProxy::Check &installedCheck() {
    static DiffusionIntegratorProxy::Check check;
    return check;
}

std::filesystem::path &modelFolder() {
    static std::filesystem::path folder;
    return folder;
}

/** The file itself, or where there is none the bundled one of its name, if there is one. */
std::string findModelFile(const std::string &modelFile) {
    const std::filesystem::path bundled =
        modelFolder() / std::filesystem::path(modelFile).filename();
    std::error_code error;
    if (std::filesystem::exists(modelFile, error) || !std::filesystem::exists(bundled, error))
        return modelFile;
    return bundled.string();
}

// Runs when the library is loaded, as in OpenMM's own plugins.
[[gnu::constructor]] void registerDiffusionIntegratorProxy() {
    SerializationProxy::registerProxy(typeid(DiffusionIntegrator), new DiffusionIntegratorProxy());
}

// OpenMM reads what is no number as 0.
template <class T> T read(const SerializationNode &node, const std::string &name) {
    const std::string &text = node.getStringProperty(name);
    T value{};
    const char *end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stopped != end)
        throw OpenMMException("DiffusionIntegrator: found " + name + " '" + text +
                              "' in the XML, expected a number; write the XML again");
    return value;
}

} // namespace

DiffusionIntegratorProxy::DiffusionIntegratorProxy() : SerializationProxy("DiffusionIntegrator") {}

void DiffusionIntegratorProxy::setCheck(Check check) { installedCheck() = std::move(check); }

void DiffusionIntegratorProxy::setModelFolder(const std::string &folder) { modelFolder() = folder; }

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
    node.setIntProperty("moleculesPerBatch", integrator.getMoleculesPerBatch());
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
    SerializationNode &contactLimits = node.createChildNode("ContactLimits");
    for (int i = 0; i < integrator.getNumContactLimits(); i++) {
        int species1, species2;
        double minDistance;
        integrator.getContactLimitParameters(i, species1, species2, minDistance);
        contactLimits.createChildNode("ContactLimit")
            .setIntProperty("species1", species1)
            .setIntProperty("species2", species2)
            .setDoubleProperty("min", minDistance);
    }
}

void *DiffusionIntegratorProxy::deserialize(const SerializationNode &node) const {
    const int version = read<int>(node, "version");
    if (version != VERSION)
        throw OpenMMException("DiffusionIntegrator: found XML of version " +
                              std::to_string(version) + ", expected " + std::to_string(VERSION) +
                              "; write it again with this version of openmm_diffmd");
    const std::string modelFile = findModelFile(node.getStringProperty("modelFile"));
    const std::string modelHash = node.getStringProperty("modelHash");
    try {
        diffmd::read_model_file(modelFile, modelHash);
    } catch (const std::exception &error) {
        throw OpenMMException(std::string("DiffusionIntegrator: ") + error.what());
    }
    auto integrator = std::make_unique<DiffusionIntegrator>(
        modelFile, modelHash, read<double>(node, "stepSize"), read<double>(node, "temperature"),
        read<double>(node, "friction"), read<int>(node, "thermostatted") != 0);
    integrator->setMaxTemperature(read<double>(node, "maxTemperature"));
    integrator->setRandomNumberSeed(read<int>(node, "randomSeed"));
    integrator->setSampler(node.getStringProperty("sampler"));
    integrator->setNumSamplingSteps(read<int>(node, "numSamplingSteps"));
    integrator->setNoiseLevels(read<double>(node, "sigmaMin"), read<double>(node, "sigmaMax"),
                               read<double>(node, "rho"));
    integrator->setMaxResamples(read<int>(node, "maxResamples"));
    integrator->setConserveAngularMomentum(read<int>(node, "conserveAngularMomentum") != 0);
    integrator->setMoleculesPerBatch(read<int>(node, "moleculesPerBatch"));
    integrator->setConstraintTolerance(read<double>(node, "constraintTolerance"));
    integrator->setIntegrationForceGroups(read<int>(node, "forceGroups"));
    for (const SerializationNode &molecule : node.getChildNode("Molecules").getChildren())
        integrator->addMolecule(read<double>(molecule, "kineticEnergyQuantile"));
    for (const SerializationNode &particle : node.getChildNode("Particles").getChildren())
        integrator->addParticle(read<int>(particle, "species"), read<double>(particle, "mass"),
                                read<int>(particle, "molecule"));
    for (const SerializationNode &bond : node.getChildNode("Bonds").getChildren())
        integrator->addBond(read<int>(bond, "p1"), read<int>(bond, "p2"), read<double>(bond, "min"),
                            read<double>(bond, "max"));
    for (const SerializationNode &limit : node.getChildNode("ContactLimits").getChildren())
        integrator->addContactLimit(read<int>(limit, "species1"), read<int>(limit, "species2"),
                                    read<double>(limit, "min"));
    if (const Check &check = installedCheck())
        check(*integrator);
    // The compiler cannot see that OpenMM reads this pointer as an Integrator: convert it here.
    return static_cast<Integrator *>(integrator.release());
}

} // namespace OpenMMDiffMD
