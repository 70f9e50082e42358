#ifndef OPENMM_DIFFUSION_INTEGRATOR_PROXY_H_
#define OPENMM_DIFFUSION_INTEGRATOR_PROXY_H_

#include "openmm/serialization/SerializationProxy.h"

#include <functional>
#include <string>

namespace OpenMMDiffMD {

class DiffusionIntegrator;

/**
 * Reads and writes a DiffusionIntegrator. The model itself is not written: its path and SHA-256
 * are, and another file in its place is refused. Where there is none, a bundled one of its name is
 * taken: the XML may be of another machine.
 */
class DiffusionIntegratorProxy : public OpenMM::SerializationProxy {
public:
    /** Throws if an integrator that was read is not what its model file says. */
    using Check = std::function<void(DiffusionIntegrator &)>;

    DiffusionIntegratorProxy();
    void serialize(const void *object, OpenMM::SerializationNode &node) const override;
    void *deserialize(const OpenMM::SerializationNode &node) const override;
    /** Set what looks at each integrator that is read; the metadata of models are read there. */
    static void setCheck(Check check);
    /** Set the folder of bundled models. */
    static void setModelFolder(const std::string &folder);
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_DIFFUSION_INTEGRATOR_PROXY_H_*/
