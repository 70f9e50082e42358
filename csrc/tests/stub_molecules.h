// What the C++ tests tell of the models of make_stub_models.py, which know H, C and O.

#pragma once

#include "propagator.h"

#include <algorithm>
#include <string>
#include <vector>

inline int species_of(char symbol) { return symbol == 'H' ? 0 : symbol == 'C' ? 1 : 2; }

/** Da. */
inline double mass_of(char symbol) {
    return symbol == 'H' ? 1.007947 : symbol == 'C' ? 12.01078 : 15.99943;
}

/** Particles of these elements, one letter each; no bond is watched, and hardly any energy. */
inline diffmd::Molecules make_molecules(const std::string &symbols,
                                        const std::vector<int> &molecule_of_particle) {
    diffmd::Molecules molecules;
    for (char symbol : symbols) {
        molecules.species.push_back(species_of(symbol));
        molecules.masses.push_back(mass_of(symbol));
    }
    molecules.molecule_of_particle = molecule_of_particle;
    const int count =
        1 + *std::max_element(molecule_of_particle.begin(), molecule_of_particle.end());
    molecules.kinetic_energy_quantiles.assign(count, 1e6);
    return molecules;
}

inline diffmd::Options make_options(bool thermostatted) {
    diffmd::Options options;
    options.lag_time = 0.01;
    options.thermostatted = thermostatted;
    options.max_temperature = 300.0;
    options.sampler = diffmd::Sampler::exponential;
    options.num_sampling_steps = 3;
    options.sigma_min = 0.02;
    options.sigma_max = 3.0;
    options.rho = 7.0;
    options.max_resamples = 3;
    options.conserve_angular_momentum = false;
    options.seed = 11;
    return options;
}
