#ifndef OPENMM_DIFFUSION_CHECKS_H_
#define OPENMM_DIFFUSION_CHECKS_H_

#include "openmm/AndersenThermostat.h"
#include "openmm/MonteCarloAnisotropicBarostat.h"
#include "openmm/MonteCarloBarostat.h"
#include "openmm/MonteCarloFlexibleBarostat.h"
#include "openmm/MonteCarloMembraneBarostat.h"

#include <cmath>

namespace OpenMMDiffMD {

/** Relative difference of masses beyond which a particle is not the element it is said to be. */
constexpr double MASS_TOLERANCE = 5e-3;
/** Relative difference of times that rounding of units explains. */
constexpr double STEP_TOLERANCE = 1e-6;

/**
 * Whether a mass is that of a particle's element; NaN is not.
 *
 * @param mass      the mass, Da
 * @param expected  mass of the element, Da
 */
inline bool isMass(double mass, double expected) {
    return std::abs(mass - expected) <= MASS_TOLERANCE * expected;
}

/**
 * Whether a force changes the volume.
 *
 * @param force  one of a System
 */
inline bool isBarostat(const OpenMM::Force &force) {
    using namespace OpenMM;
    return dynamic_cast<const MonteCarloBarostat *>(&force) != nullptr ||
           dynamic_cast<const MonteCarloAnisotropicBarostat *>(&force) != nullptr ||
           dynamic_cast<const MonteCarloFlexibleBarostat *>(&force) != nullptr ||
           dynamic_cast<const MonteCarloMembraneBarostat *>(&force) != nullptr;
}

/**
 * Whether a force is a heat bath of its own.
 *
 * @param force  one of a System
 */
inline bool isThermostat(const OpenMM::Force &force) {
    return dynamic_cast<const OpenMM::AndersenThermostat *>(&force) != nullptr;
}

} // namespace OpenMMDiffMD

#endif /*OPENMM_DIFFUSION_CHECKS_H_*/
