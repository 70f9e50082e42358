#ifndef OPENMM_DIFFUSION_INTEGRATOR_PROXY_H_
#define OPENMM_DIFFUSION_INTEGRATOR_PROXY_H_

#include "openmm/serialization/SerializationProxy.h"

namespace OpenMMDiffMD {

/**
 * Reads and writes a DiffusionIntegrator. The model itself is not written: its path and SHA-256
 * are, and another file in its place is refused.
 */
class DiffusionIntegratorProxy : public OpenMM::SerializationProxy {
public:
    DiffusionIntegratorProxy();
    void serialize(const void *object, OpenMM::SerializationNode &node) const override;
    void *deserialize(const OpenMM::SerializationNode &node) const override;
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_DIFFUSION_INTEGRATOR_PROXY_H_*/
