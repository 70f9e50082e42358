#include "device_slots.h"

#include <algorithm>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

namespace diffmd {

using at::Tensor;

DeviceState::DeviceState(int64_t num_particles, const std::string &device) {
    const auto real = at::TensorOptions().device(at::Device(device)).dtype(at::kDouble);
    for (Tensor *tensor :
         {&positions, &velocities, &half_velocities, &new_positions, &new_velocities})
        *tensor = at::zeros({num_particles + 1, 3}, real);
    for (Tensor *tensor : {&acceleration, &new_acceleration})
        *tensor = at::zeros({num_particles + 1, 3}, real.dtype(at::kFloat));
    damping = at::ones({}, real);
    spread = at::zeros({num_particles + 1, 1}, real);
}

DeviceSlots::DeviceSlots(std::span<const int> chosen, const std::vector<GuardedMolecule> &molecules,
                         const std::vector<int> &species, const std::vector<double> &masses,
                         int64_t num_atoms, int64_t num_rows, float level,
                         const std::string &device)
    : chosen(chosen.begin(), chosen.end()), batch(chosen.size(), num_atoms, device), graph(device) {
    const int64_t b = chosen.size(), a = num_atoms, num_particles = species.size();
    std::vector<int64_t> particle(b * a, num_particles), element(b * a, -1), from, to, pair_slot;
    std::vector<double> mass(b * a), min_distance, max_distance;
    for (int64_t slot = 0; slot < b; slot++) {
        const GuardedMolecule &molecule = molecules[chosen[slot]];
        num_atoms_of.push_back(molecule.particles.size());
        for (size_t i = 0; i < molecule.particles.size(); i++) {
            particle[slot * a + i] = molecule.particles[i];
            element[slot * a + i] = species[molecule.particles[i]];
            mass[slot * a + i] = masses[molecule.particles[i]];
        }
        const auto add_pair = [&](int particle1, int particle2, double least, double most) {
            const auto row = [&](int wanted) {
                const auto found = std::ranges::lower_bound(molecule.particles, wanted);
                return slot * a + (found - molecule.particles.begin());
            };
            from.push_back(row(particle1));
            to.push_back(row(particle2));
            pair_slot.push_back(slot);
            min_distance.push_back(least);
            max_distance.push_back(most);
        };
        for (const BondRange &bond : molecule.bonds)
            add_pair(bond.particle1, bond.particle2, bond.min_length, bond.max_length);
        for (const Contact &contact : molecule.contacts)
            add_pair(contact.particle1, contact.particle2, contact.min_distance,
                     std::numeric_limits<double>::infinity());
    }
    const int64_t num_pairs = from.size();
    this->particle = upload(particle, {b * a}, device);
    this->mass = upload(mass, {b, a, 1}, device);
    total_mass = this->mass.sum(1, /*keepdim=*/true);
    is_atom = this->mass > 0.0;
    pair_from = upload(from, {num_pairs}, device);
    pair_to = upload(to, {num_pairs}, device);
    this->pair_slot = upload(pair_slot, {num_pairs}, device);
    this->min_distance = upload(min_distance, {num_pairs}, device);
    this->max_distance = upload(max_distance, {num_pairs}, device);
    max_kinetic_energy = at::zeros({b}, this->mass.options());
    host_noise.resize(num_rows * b * a * 3);
    noise = at::zeros({num_rows, b, a, 3}, this->mass.options().dtype(at::kFloat));
    Batch::Tensors &tensors = batch.get_tensors();
    tensors.species.copy_(upload(element, {b, a}, device));
    tensors.masses.copy_(this->mass.squeeze(2));
    tensors.level.fill_(level);
}

void DeviceSlots::set_max_kinetic_energies(const std::vector<GuardedMolecule> &molecules) {
    std::vector<double> energies;
    for (int molecule : chosen)
        energies.push_back(molecules[molecule].max_kinetic_energy);
    max_kinetic_energy.copy_(
        at::from_blob(energies.data(), {int64_t(energies.size())}, at::kDouble));
}

void DeviceSlots::set_history(bool has_history) {
    if (has_history != this->has_history)
        batch.get_tensors().has_acceleration.fill_(has_history);
    this->has_history = has_history;
}

void DeviceSlots::upload_noise(const std::vector<const float *> &draws) {
    const int64_t rows = noise.size(0), b = batch.num_molecules, a = batch.num_atoms;
    for (int64_t slot = 0; slot < b; slot++) {
        const int64_t size = 3 * num_atoms_of[slot];
        for (int64_t row = 0; row < rows; row++)
            std::copy_n(draws[slot] + row * size, size,
                        host_noise.data() + (row * b + slot) * a * 3);
    }
    noise.copy_(at::from_blob(host_noise.data(), noise.sizes(), at::kFloat));
}

Tensor DeviceSlots::gather(const Tensor &rows) const {
    return rows.index_select(0, particle).view({batch.num_molecules, batch.num_atoms, -1});
}

void DeviceSlots::enqueue_condition(const DeviceState &state) {
    x = gather(state.positions);
    v = gather(state.velocities);
    half = v * state.damping + gather(state.spread) * noise[0];
    const Tensor x_centre = (mass * x).sum(1, true) / total_mass;
    centre_velocity = (mass * half).sum(1, true) / total_mass;
    Batch::Tensors &tensors = batch.get_tensors();
    tensors.positions.copy_((x - x_centre) * is_atom);
    tensors.velocities.copy_((half - centre_velocity) * is_atom);
    tensors.acceleration.copy_(gather(state.acceleration) *
                               tensors.has_acceleration.view({-1, 1, 1}));
    tensors.residual.zero_();
}

std::vector<Tensor> DeviceSlots::enqueue_start(double scale) {
    // Rows 2 and 3, then each further pair: position, velocity.
    const auto pair = [&](int64_t row) { return at::stack({noise[row], noise[row + 1]}, 2); };
    batch.get_tensors().residual.copy_(pair(2) * float(scale));
    std::vector<Tensor> extra;
    for (int64_t row = 4; row < noise.size(0); row += 2)
        extra.push_back(pair(row));
    return extra;
}

void DeviceSlots::enqueue_result(DeviceState &state, double lag_time) {
    Tensor change = batch.get_tensors().output.toTensor();
    // The network keeps the centre of mass as far as float32 does, which would add up.
    // Padding may hold anything.
    const Tensor weighted = change * (mass / total_mass).unsqueeze(3);
    change = change - at::where(is_atom.unsqueeze(3), weighted, 0.0).sum(1, true);
    const Tensor displacement = change.select(2, 0), velocity_change = change.select(2, 1);
    x = x + centre_velocity * lag_time + displacement;
    v = (half + velocity_change) * state.damping + gather(state.spread) * noise[1];
    const auto scatter = [&](Tensor &rows, const Tensor &values) {
        rows.index_copy_(0, particle, values.reshape({-1, 3}));
        // Padding shares a row, which stays 0.
        rows.select(0, rows.size(0) - 1).zero_();
    };
    scatter(state.half_velocities, half);
    scatter(state.new_positions, x);
    scatter(state.new_velocities, v);
    scatter(state.new_acceleration, (velocity_change / lag_time).to(at::kFloat));
    guard();
}

/** As find_fault(), for all molecules at once, without saying what is wrong. */
void DeviceSlots::guard() {
    const Tensor finite = at::isfinite(x).logical_and(at::isfinite(v));
    const Tensor all_finite = finite.logical_or(is_atom.logical_not()).flatten(1).all(1);
    const Tensor zero = at::zeros({}, v.options());
    const Tensor speed = at::where(is_atom, v, zero);
    const Tensor kinetic_energy = (0.5 * mass * speed * speed).flatten(1).sum(1);
    const Tensor rows = x.reshape({-1, 3});
    const Tensor d = rows.index_select(0, pair_from) - rows.index_select(0, pair_to);
    const Tensor distance = at::sqrt((d * d).sum(1));
    const Tensor outside = (distance < min_distance).logical_or(distance > max_distance);
    const Tensor num_outside = at::zeros({batch.num_molecules}, mass.options())
                                   .index_add(0, pair_slot, outside.to(at::kDouble));
    suspect = all_finite.logical_not()
                  .logical_or(num_outside > 0.0)
                  .logical_or(kinetic_energy > max_kinetic_energy)
                  .to(at::kChar);
}

} // namespace diffmd
