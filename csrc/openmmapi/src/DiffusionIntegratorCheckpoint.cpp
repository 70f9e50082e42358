// Checkpoints of a DiffusionIntegrator: what its kernel writes, and a checksum.

#include "DiffusionIntegrator.h"
#include "DiffusionKernels.h"
#include "Messages.h"
#include "sha256.h"

#include "openmm/internal/ContextImpl.h"

#include <algorithm>
#include <iterator>
#include <sstream>

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

constexpr size_t MAGIC_SIZE = 8, HASH_SIZE = 64;
constexpr int64_t MAX_NAMES_SIZE = 1 << 20;
/** The last two letters are the format's version. */
constexpr char MAGIC[MAGIC_SIZE + 1] = "diffmd04";

template <class T> std::string bytesOf(const T *values, size_t count) {
    return {reinterpret_cast<const char *>(values), sizeof(T) * count};
}

/** Names of the Context's parameters, a zero behind each. */
std::string namesOfParameters(ContextImpl &context) {
    std::string names;
    for (const auto &[name, value] : context.getParameters())
        names += name + '\0';
    return names;
}

/**
 * The bytes of what OpenMM itself keeps in a checkpoint, which has no checksum of its own.
 *
 * @param names  parameters that count: a force that was added since may have brought others
 */
std::string bytesOfState(ContextImpl &context, const std::string &names) {
    std::vector<Vec3> positions, velocities;
    context.getPositions(positions);
    context.getVelocities(velocities);
    Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    const double time = context.getTime();
    const long long stepCount = context.getStepCount();
    std::string bytes = bytesOf(&time, 1) + bytesOf(&stepCount, 1) + bytesOf(box, 3) +
                        bytesOf(positions.data(), positions.size()) +
                        bytesOf(velocities.data(), velocities.size());
    const auto &parameters = context.getParameters();
    std::istringstream each(names);
    for (std::string name; std::getline(each, name, '\0');)
        if (const auto found = parameters.find(name); found != parameters.end())
            bytes += name + bytesOf(&found->second, 1);
    return bytes;
}

std::string hashOf(ContextImpl &context, const std::string &header, const std::string &names,
                   const std::string &payload) {
    return diffmd::sha256(header + names + bytesOfState(context, names) + payload);
}

std::string readBytes(std::istream &stream, size_t size) {
    std::string bytes(size, '\0');
    stream.read(bytes.data(), size);
    bytes.resize(stream.gcount());
    return bytes;
}

} // namespace

std::string DiffusionIntegrator::describeCheckpoint(size_t payloadSize) const {
    const int64_t numbers[] = {getNumMolecules(), getNumParticles(), int64_t(payloadSize)};
    return bytesOf(numbers, 3) + modelHash;
}

std::string DiffusionIntegrator::writePayload() const {
    std::ostringstream written;
    written << bytesOf(&stepCountAfterLag, 1);
    getKernel().createCheckpoint(written);
    return written.str();
}

void DiffusionIntegrator::createCheckpoint(std::ostream &stream) const {
    const std::string payload = writePayload(), header = describeCheckpoint(payload.size());
    const std::string names = namesOfParameters(*context);
    const int64_t namesSize = names.size();
    stream << MAGIC << header << bytesOf(&namesSize, 1) << names
           << hashOf(*context, header, names, payload) << payload;
}

void DiffusionIntegrator::loadCheckpoint(std::istream &stream) {
    // The Context holds the checkpoint's positions by now, whatever happens below.
    getKernel().forgetHistory();
    forcesAreValid = false;
    hasSetPositions = true;
    stepCountAfterLag = -1;
    // What this kernel would write is as long as what it can read.
    const size_t payloadSize = writePayload().size();
    const std::string expected = describeCheckpoint(payloadSize);
    const std::string magic = readBytes(stream, MAGIC_SIZE);
    if (magic != MAGIC)
        throw OpenMMException("DiffusionIntegrator: found no state of a DiffusionIntegrator of "
                              "this version in the checkpoint; write it with the same version of "
                              "openmm_diffmd, or use an undamaged checkpoint");
    const std::string header = readBytes(stream, expected.size());
    if (header != expected) {
        int64_t numbers[3] = {};
        const size_t size = std::min(sizeof(numbers), header.size());
        std::copy_n(header.begin(), size, reinterpret_cast<char *>(numbers));
        if (header.compare(0, size, expected, 0, size) == 0)
            throw OpenMMException(
                join("DiffusionIntegrator: found a checkpoint of another model, expected one of "
                     "the model with SHA-256 ",
                     modelHash,
                     "; load it into the simulation that wrote it (a State goes from one model to "
                     "another), or use an undamaged checkpoint"));
        throw OpenMMException(join(
            "DiffusionIntegrator: found a checkpoint of ", numbers[0], " molecules with ",
            numbers[1], " particles in ", numbers[2], " bytes, expected one of ", getNumMolecules(),
            " molecules with ", getNumParticles(), " particles in ", payloadSize,
            " bytes; load it into the simulation that wrote it, or use an undamaged checkpoint"));
    }
    int64_t namesSize = 0;
    stream.read(reinterpret_cast<char *>(&namesSize), sizeof(namesSize));
    const bool isSize = stream.good() && 0 <= namesSize && namesSize <= MAX_NAMES_SIZE;
    const std::string names = readBytes(stream, isSize ? namesSize : 0);
    const std::string hash = readBytes(stream, HASH_SIZE);
    const std::string payload = readBytes(stream, payloadSize);
    if (!isSize || hash != hashOf(*context, header, names, payload))
        throw OpenMMException("DiffusionIntegrator: found a checkpoint whose content is not what "
                              "was written; use an undamaged checkpoint");
    std::istringstream content(payload);
    long long savedStepCount;
    content.read(reinterpret_cast<char *>(&savedStepCount), sizeof(savedStepCount));
    try {
        getKernel().loadCheckpoint(content);
    } catch (const std::exception &error) {
        throw OpenMMException(join("DiffusionIntegrator: ", error.what()));
    }
    // It tells whether another integrator has moved the particles since the history's lag.
    stepCountAfterLag = savedStepCount;
    // The Context reports them next; the history belongs to them.
    expectedReports = State::Positions | State::Velocities | State::Parameters | State::Energy;
    loadedState = hashOfState();
}

std::string DiffusionIntegrator::hashOfState() const {
    return diffmd::sha256(bytesOfState(*context, namesOfParameters(*context)));
}

} // namespace OpenMMDiffMD
