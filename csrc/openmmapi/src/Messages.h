#ifndef OPENMM_DIFFUSION_MESSAGES_H_
#define OPENMM_DIFFUSION_MESSAGES_H_

#include "openmm/OpenMMException.h"

#include <cmath>
#include <sstream>
#include <string>

namespace OpenMMDiffMD {

/** Put the parts of a message together. */
template <class... Parts> std::string join(const Parts &...parts) {
    std::ostringstream text;
    (text << ... << parts);
    return text.str();
}

/**
 * Refuse a number that is negative or not finite.
 *
 * @param name       what it is
 * @param value      the number
 * @param allowZero  whether it may be 0
 */
inline void requireNumber(const char *name, double value, bool allowZero) {
    if (!std::isfinite(value) || value < 0 || (value == 0 && !allowZero))
        throw OpenMM::OpenMMException(join("DiffusionIntegrator: found ", name, " ", value,
                                           ", expected a ",
                                           allowZero ? "number of at least 0" : "positive number"));
}

} // namespace OpenMMDiffMD

#endif /*OPENMM_DIFFUSION_MESSAGES_H_*/
