// Systems that a DiffusionIntegrator cannot move are refused.

#include "Checks.h"
#include "DiffusionIntegrator.h"
#include "Messages.h"

#include "openmm/System.h"

using namespace OpenMM;

namespace OpenMMDiffMD {

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
        if (!isMass(mass, expected))
            throw OpenMMException(join(what, "mass ", mass, " Da of particle ", i, ", expected ",
                                       expected,
                                       " Da as its element has; give the System the atoms in "
                                       "the order of the topology, and no hydrogen mass "
                                       "repartitioning or isotopes"));
    }
    std::vector<int> counts(getNumMolecules());
    for (const Particle &particle : particles)
        counts[particle.molecule]++;
    for (int molecule = 0; molecule < getNumMolecules(); molecule++)
        if (counts[molecule] == 0)
            throw OpenMMException(
                join(what, "no particles in molecule ", molecule,
                     ", expected at least one; add only molecules that are used"));
    for (int i = 0; i < system.getNumForces(); i++) {
        const Force &force = system.getForce(i);
        if (isBarostat(force))
            throw OpenMMException(join(what, "a barostat (", force.getName(),
                                       "), expected none: the model knows isolated molecules, not "
                                       "a volume; remove it from the System"));
        if (isThermostat(force))
            throw OpenMMException(join(what, "a thermostat (", force.getName(),
                                       "), expected none: the integrator has a heat bath of its "
                                       "own; remove it from the System"));
    }
}

} // namespace OpenMMDiffMD
