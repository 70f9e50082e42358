#include "HostStateExchange.h"

using namespace OpenMM;

namespace OpenMMDiffMD {

void HostStateExchange::initialize(double *positions, double *velocities, int numParticles) {
    this->positions = positions;
    this->velocities = velocities;
    positionArray.initialize<double>(cc, 3 * numParticles, "diffusionPositions");
    velocityArray.initialize<double>(cc, 3 * numParticles, "diffusionVelocities");
}

void HostStateExchange::addArguments(ComputeKernel &kernel) {
    kernel->addArg(positionArray);
    kernel->addArg(velocityArray);
}

void HostStateExchange::toTorch() {
    positionArray.download(positions);
    velocityArray.download(velocities);
}

void HostStateExchange::toPlatform() {
    positionArray.upload(positions);
    velocityArray.upload(velocities);
}

} // namespace OpenMMDiffMD
