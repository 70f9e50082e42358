#include "guards.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <utility>

namespace diffmd {
namespace {

double distance(const double *positions, int particle1, int particle2) {
    double squared = 0.0;
    for (int k = 0; k < 3; k++) {
        const double d = positions[3 * particle1 + k] - positions[3 * particle2 + k];
        squared += d * d;
    }
    return std::sqrt(squared);
}

} // namespace

const char *name_of(Quantity quantity) {
    switch (quantity) {
    case Quantity::finite:
        return "finite";
    case Quantity::bond_length:
        return "bond_length";
    case Quantity::contact_distance:
        return "contact_distance";
    case Quantity::kinetic_energy:
        return "kinetic_energy";
    }
    return "";
}

std::string Refusal::describe() const {
    if (lag < 0)
        return {};
    std::ostringstream text;
    text << "lag " << lag << ", molecule " << molecule << ": ";
    switch (quantity) {
    case Quantity::finite:
        text << "atom " << atoms[0] << " has position (" << values[0] << ", " << values[1] << ", "
             << values[2] << ") nm and velocity (" << values[3] << ", " << values[4] << ", "
             << values[5] << ") nm/ps, expected finite numbers";
        break;
    case Quantity::bond_length:
        text << "the bond between atoms " << atoms[0] << " and " << atoms[1] << " is " << values[0]
             << " nm long, expected " << min_value << " to " << max_value << " nm";
        break;
    case Quantity::contact_distance:
        text << "atoms " << atoms[0] << " and " << atoms[1] << ", which have no bond, are "
             << values[0] << " nm apart, expected at least " << min_value << " nm";
        break;
    case Quantity::kinetic_energy:
        text << "the kinetic energy of atoms " << atoms.front() << " to " << atoms.back() << " is "
             << values[0] << " kJ/mol, expected at most " << max_value << " kJ/mol";
        break;
    }
    return text.str();
}

std::vector<Contact> find_contacts(const GuardedMolecule &molecule, const std::vector<int> &species,
                                   const std::vector<ContactLimit> &limits) {
    if (molecule.bonds.empty())
        return {};
    std::map<std::pair<int, int>, double> distances;
    for (const ContactLimit &limit : limits)
        distances[std::minmax(limit.species1, limit.species2)] = limit.min_distance;
    std::set<std::pair<int, int>> bonded;
    for (const BondRange &bond : molecule.bonds)
        bonded.insert(std::minmax(bond.particle1, bond.particle2));
    std::vector<Contact> contacts;
    for (size_t i = 0; i < molecule.particles.size(); i++)
        for (size_t j = i + 1; j < molecule.particles.size(); j++) {
            const int first = molecule.particles[i], second = molecule.particles[j];
            const auto found = distances.find(std::minmax(species[first], species[second]));
            if (found != distances.end() && found->second > 0.0 &&
                !bonded.contains({first, second}))
                contacts.push_back({first, second, found->second});
        }
    return contacts;
}

bool find_fault(const GuardedMolecule &molecule, const std::vector<double> &masses,
                const double *positions, const double *velocities, Refusal &found) {
    const auto refuse = [&](Quantity quantity, std::vector<int> atoms, std::vector<double> values,
                            double min_value, double max_value) {
        found.quantity = quantity;
        found.atoms = std::move(atoms);
        found.values = std::move(values);
        found.min_value = min_value;
        found.max_value = max_value;
        return true;
    };
    double kinetic_energy = 0.0;
    for (int particle : molecule.particles) {
        const double *x = positions + 3 * particle, *v = velocities + 3 * particle;
        for (int k = 0; k < 3; k++) {
            if (!std::isfinite(x[k]) || !std::isfinite(v[k]))
                return refuse(Quantity::finite, {particle}, {x[0], x[1], x[2], v[0], v[1], v[2]},
                              0.0, 0.0);
            kinetic_energy += 0.5 * masses[particle] * v[k] * v[k];
        }
    }
    for (const BondRange &bond : molecule.bonds) {
        const double length = distance(positions, bond.particle1, bond.particle2);
        if (length < bond.min_length || length > bond.max_length)
            return refuse(Quantity::bond_length, {bond.particle1, bond.particle2}, {length},
                          bond.min_length, bond.max_length);
    }
    for (const Contact &contact : molecule.contacts) {
        const double apart = distance(positions, contact.particle1, contact.particle2);
        if (apart < contact.min_distance)
            return refuse(Quantity::contact_distance, {contact.particle1, contact.particle2},
                          {apart}, contact.min_distance, std::numeric_limits<double>::infinity());
    }
    if (kinetic_energy > molecule.max_kinetic_energy)
        return refuse(Quantity::kinetic_energy, molecule.particles, {kinetic_energy}, 0.0,
                      molecule.max_kinetic_energy);
    return false;
}

} // namespace diffmd
