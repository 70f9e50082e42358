#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace diffmd {

/** A bond and the lengths it may have. */
struct BondRange {
    int particle1, particle2;
    /** nm */
    double min_length, max_length;
};

/** Two elements, by their species, and the distance of atoms of them that are not bonded. */
struct ContactLimit {
    int species1, species2;
    /** nm */
    double min_distance;
};

/** Two particles that are not bonded, and the distance they must keep. */
struct Contact {
    int particle1, particle2;
    /** nm */
    double min_distance;
};

/** What a guard looks at. */
enum class Quantity { finite, bond_length, contact_distance, kinetic_energy };

/** Name of a quantity: finite, bond_length, contact_distance or kinetic_energy. */
const char *name_of(Quantity quantity);

/** What the guards found in a draw that they refused. */
struct Refusal {
    /** Lags done before, and molecule; -1 if nothing was refused. */
    int64_t lag = -1;
    int molecule = -1;
    Quantity quantity = Quantity::finite;
    /**
     * One particle that is not finite, two of a bond or too close, or all of a molecule that is
     * too hot.
     */
    std::vector<int> atoms;
    /**
     * Position (nm) and velocity (nm/ps) of the particle, 6 numbers; length of the bond, or
     * distance (nm); or kinetic energy (kJ/mol).
     */
    std::vector<double> values;
    /** What the value may be, in its unit, a distance without end; both 0 where it must be finite.
     */
    double min_value = 0.0, max_value = 0.0;

    /** Lag, molecule, atoms, values and what was expected; empty if nothing was refused. */
    std::string describe() const;
};

/** Counts of a run. */
struct Tally {
    int64_t num_lags = 0;
    /** For each molecule: draws refused and drawn again; lags run with the reference force. */
    std::vector<int64_t> num_resamples, num_rescues;
    /** What was found in the last draw refused. */
    Refusal last_refusal;
};

/** One molecule, for the guards. */
struct GuardedMolecule {
    std::vector<int> particles;
    std::vector<BondRange> bonds;
    std::vector<Contact> contacts;
    /** kJ/mol */
    double max_kinetic_energy;
};

/**
 * List the pairs of a molecule that must keep a distance.
 *
 * @param molecule  its particles, in order, and bonds
 * @param species   (n_particles) of all particles
 * @param limits    at most one for two elements, in any order
 * @return all pairs without a bond that have a limit above 0; of a molecule without any bond none,
 *         since its bonds are then unknown
 */
std::vector<Contact> find_contacts(const GuardedMolecule &molecule, const std::vector<int> &species,
                                   const std::vector<ContactLimit> &limits);

/**
 * Look for numbers that are not finite, bonds out of range, atoms that come as close as if they
 * were bonded, and too much kinetic energy.
 *
 * @param molecule    the molecule
 * @param masses      (n_particles) Da, of all particles
 * @param positions   (n_particles, 3) nm
 * @param velocities  (n_particles, 3) nm/ps
 * @param[out] found  what is wrong; its lag and molecule are left alone
 * @return whether something is
 */
bool find_fault(const GuardedMolecule &molecule, const std::vector<double> &masses,
                const double *positions, const double *velocities, Refusal &found);

} // namespace diffmd
