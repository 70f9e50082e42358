// A lag of one batch of molecules, in main memory.

#include "propagator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace diffmd {

Propagator::Workspace::Workspace(int64_t num_molecules, int64_t num_atoms, int num_extra)
    : batch(num_molecules, num_atoms), extra(num_extra * num_molecules * num_atoms * 6),
      sampler{num_molecules, num_atoms * 6, batch.residual, extra.data(), {}, {}} {
    sampler.slope.resize(num_molecules * num_atoms * 6);
    sampler.start.resize(num_molecules * num_atoms * 6);
}

Propagator::Workspace &Propagator::workspace_for(size_t num_molecules) {
    std::unique_ptr<Workspace> &work = num_molecules == molecules_per_batch ? whole : rest;
    if (!work || work->batch.num_molecules != int64_t(num_molecules))
        work = std::make_unique<Workspace>(
            num_molecules, max_atoms, num_extra_draws(options.sampler, options.num_sampling_steps));
    return *work;
}

void Propagator::add_bath_noise(int molecule, const float *noise, double *velocities) const {
    if (!has_bath())
        return;
    for (int particle : molecules[molecule].particles)
        for (int k = 0; k < 3; k++) {
            double &velocity = velocities[3 * particle + k];
            velocity = bath_damping * velocity + bath_spread[particle] * *noise++;
        }
}

void Propagator::prepare(Workspace &work, int slot, int molecule, float level, const float *noise,
                         const double *positions, const double *velocities) {
    const std::vector<int> &atoms = molecules[molecule].particles;
    const size_t num_atoms = atoms.size();
    for (int particle : atoms)
        std::copy_n(velocities + 3 * particle, 3, &half_velocities[3 * particle]);
    add_bath_noise(molecule, noise, half_velocities.data());

    Point x_centre{}, v_centre{};
    double total_mass = 0.0;
    for (int particle : atoms) {
        total_mass += masses[particle];
        for (int k = 0; k < 3; k++) {
            x_centre[k] += masses[particle] * positions[3 * particle + k];
            v_centre[k] += masses[particle] * half_velocities[3 * particle + k];
        }
    }
    for (int k = 0; k < 3; k++) {
        x_centre[k] /= total_mass;
        v_centre[k] /= total_mass;
    }
    centre_velocities[molecule] = v_centre;

    Batch &batch = work.batch;
    const size_t first = slot * batch.num_atoms * 3;
    for (size_t a = 0; a < num_atoms; a++) {
        batch.species[slot * batch.num_atoms + a] = species[atoms[a]];
        batch.masses[slot * batch.num_atoms + a] = float(masses[atoms[a]]);
        for (int k = 0; k < 3; k++) {
            const size_t from = 3 * atoms[a] + k, to = first + 3 * a + k;
            batch.positions[to] = float(positions[from] - x_centre[k]);
            batch.velocities[to] = float(half_velocities[from] - v_centre[k]);
            batch.acceleration[to] = has_history ? acceleration[from] : 0.0f;
        }
    }
    // A larger molecule may have been here before.
    const size_t padding = batch.num_atoms - num_atoms, last = slot * batch.num_atoms + num_atoms;
    std::fill_n(batch.species + last, padding, -1);
    std::fill_n(batch.masses + last, padding, 0.0f);
    for (float *values : {batch.positions, batch.velocities, batch.acceleration})
        std::fill_n(values + 3 * last, 3 * padding, 0.0f);
    batch.has_acceleration[slot] = has_history;
    batch.level[slot] = level;
    std::fill_n(batch.residual + 2 * first, 6 * batch.num_atoms, 0.0f);
    if (!levels.empty())
        fill_noise(work, slot, num_atoms, noise);
}

void Propagator::fill_noise(Workspace &work, int slot, size_t num_atoms, const float *noise) const {
    const Batch &batch = work.batch;
    const size_t size = 6 * batch.num_atoms;
    float *residual = batch.residual + slot * size;
    // Rows 2 and 3, then each further pair: position, velocity.
    const float start = float(std::sqrt(levels[0] * levels[0] + 1.0));
    const size_t row = 3 * num_atoms;
    const int num_extra = num_extra_draws(options.sampler, options.num_sampling_steps);
    float *extra = work.extra.data() + slot * size;
    const size_t to_next = batch.num_molecules * size;
    for (int draw = 0; draw < num_extra; draw++)
        std::fill_n(extra + draw * to_next, size, 0.0f);
    for (size_t a = 0; a < num_atoms; a++)
        for (int half = 0; half < 2; half++)
            for (int k = 0; k < 3; k++) {
                const size_t from = half * row + 3 * a + k, to = 6 * a + 3 * half + k;
                residual[to] = start * noise[2 * row + from];
                for (int draw = 0; draw < num_extra; draw++)
                    extra[draw * to_next + to] = noise[(4 + 2 * draw) * row + from];
            }
}

const float *Propagator::draw_change(Workspace &work) {
    model.encode(work.batch);
    if (!levels.empty())
        sample(
            options.sampler, levels,
            [&](double sigma) {
                std::fill_n(work.batch.sigma, work.batch.num_molecules, float(sigma));
                return model.denoise(work.batch);
            },
            work.sampler);
    return model.decode(work.batch, options.conserve_angular_momentum);
}

void Propagator::accept(const Workspace &work, int slot, int molecule, const float *noise,
                        const double *positions, const float *change) {
    const double lag_time = options.lag_time;
    const std::vector<int> &atoms = molecules[molecule].particles;
    const Point &v_centre = centre_velocities[molecule];
    const float *of_molecule = change + slot * work.batch.num_atoms * 6;
    // The network keeps the centre of mass as far as float32 does, which would add up.
    std::array<double, 6> of_centre{};
    double total_mass = 0.0;
    for (size_t a = 0; a < atoms.size(); a++) {
        total_mass += masses[atoms[a]];
        for (int c = 0; c < 6; c++)
            of_centre[c] += masses[atoms[a]] * of_molecule[6 * a + c];
    }
    for (double &value : of_centre)
        value /= total_mass;
    for (size_t a = 0; a < atoms.size(); a++)
        for (int k = 0; k < 3; k++) {
            const size_t i = 3 * atoms[a] + k;
            const double displacement = of_molecule[6 * a + k] - of_centre[k];
            const double velocity_change = of_molecule[6 * a + 3 + k] - of_centre[3 + k];
            new_positions[i] = positions[i] + lag_time * v_centre[k] + displacement;
            new_velocities[i] = half_velocities[i] + velocity_change;
            new_acceleration[i] = float(velocity_change / lag_time);
        }
    add_bath_noise(molecule, noise + 3 * atoms.size(), new_velocities.data());
}

void Propagator::run_rescue(const Rescue &rescue, int molecule, const float *noise,
                            const double *positions) {
    const std::vector<int> &atoms = molecules[molecule].particles;
    std::vector<double> x, v;
    for (int particle : atoms)
        for (int k = 0; k < 3; k++) {
            x.push_back(positions[3 * particle + k]);
            v.push_back(half_velocities[3 * particle + k]);
        }
    rescue(x, v);
    for (size_t a = 0; a < atoms.size(); a++)
        for (int k = 0; k < 3; k++) {
            const size_t i = 3 * atoms[a] + k;
            new_positions[i] = x[3 * a + k];
            new_velocities[i] = v[3 * a + k];
            new_acceleration[i] =
                float(v[3 * a + k] - half_velocities[i]) / float(options.lag_time);
        }
    add_bath_noise(molecule, noise + 3 * atoms.size(), new_velocities.data());
    Refusal found;
    if (find_fault(molecules[molecule], masses, new_positions.data(), new_velocities.data(),
                   found) &&
        found.quantity == Quantity::finite) {
        keep_refusal(molecule, found);
        throw std::runtime_error(found.describe() +
                                 ", after the rescue; use a smaller step in the rescue Context");
    }
    count(tally.num_rescues[molecule]);
}

void Propagator::draw(std::span<const int> chosen, int attempt, const double *positions,
                      const double *velocities) {
    Workspace &work = workspace_for(chosen.size());
    const float level = level_of(attempt);
    for (size_t slot = 0; slot < chosen.size(); slot++)
        prepare(work, slot, chosen[slot], level, draws[slot], positions, velocities);
    const float *change = draw_change(work);
    for (size_t slot = 0; slot < chosen.size(); slot++)
        accept(work, slot, chosen[slot], draws[slot], positions, change);
}

} // namespace diffmd
