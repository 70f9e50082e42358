#include "device_propagator.h"
#include "batch_tensors.h"
#include "tensor_samplers.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace diffmd {

using at::Tensor;

namespace {

/** A copy of a vector as a tensor of a device. */
template <class T>
Tensor upload(const std::vector<T> &values, at::IntArrayRef shape, const std::string &device) {
    return at::from_blob(const_cast<T *>(values.data()), shape, c10::CppTypeToScalarType<T>::value)
        .to(at::Device(device), c10::CppTypeToScalarType<T>::value, /*non_blocking=*/false,
            /*copy=*/true);
}

template <class T> std::vector<T> download_tensor(const Tensor &tensor) {
    const Tensor host = tensor.to(at::kCPU).contiguous();
    const T *const values = host.const_data_ptr<T>();
    return {values, values + host.numel()};
}

} // namespace

/** One number or row for each particle, in the order of the particles. */
struct DevicePropagator::Tensors {
    /**
     * State, and the lag being drawn; (N+1,3): padding takes and leaves the last row. The first
     * five double, acceleration float.
     */
    Tensor positions, velocities, half_velocities, new_positions, new_velocities;
    Tensor acceleration, new_acceleration;
    /** (N+1) spread of a half step's noise, and what it was made for. */
    Tensor spread;
    double temperature = -1.0, friction = -1.0;
};

/** A batch of molecules: B molecules, A atoms with padding. */
struct DevicePropagator::Slots {
    Batch batch;
    /** (B*A) particle of each atom, N for padding; (B,A,1) mass, 0 for padding; whether an atom. */
    Tensor particle, mass, total_mass, is_atom;
    /** (K) rows of (B*A) that a bond joins, its molecule's slot, its range; (B) kJ/mol. */
    Tensor bond_from, bond_to, bond_slot, min_length, max_length, max_kinetic_energy;
    double energies_for = -1.0;
    /** (rows,B,A,3) */
    std::vector<float> host_noise;
    Tensor noise;
    /** (B,A,3): state, the first half step's velocities, and what was made of them. */
    Tensor x, v, half, centre_velocity;
    std::vector<int8_t> suspects;

    Slots(int64_t num_molecules, int64_t num_atoms, const std::string &device)
        : batch(num_molecules, num_atoms, device) {}
};

DevicePropagator::DevicePropagator(const std::string &model_path, const std::string &model_sha256,
                                   const Molecules &molecules, const Options &options,
                                   const std::string &device)
    : Propagator(model_path, model_sha256, molecules, options, device), device(device),
      state(std::make_unique<Tensors>()), old_positions(3 * species.size()) {
    const c10::InferenceMode guard;
    const auto real = at::TensorOptions().device(at::Device(device)).dtype(at::kDouble);
    const int64_t rows = int64_t(species.size()) + 1;
    for (Tensor *tensor : {&state->positions, &state->velocities, &state->half_velocities,
                           &state->new_positions, &state->new_velocities})
        *tensor = at::zeros({rows, 3}, real);
    for (Tensor *tensor : {&state->acceleration, &state->new_acceleration})
        *tensor = at::zeros({rows, 3}, real.dtype(at::kFloat));
    std::vector<int> every(this->molecules.size());
    for (size_t i = 0; i < every.size(); i++)
        every[i] = int(i);
    all_slots = make_slots(every);
}

DevicePropagator::~DevicePropagator() = default;

double *DevicePropagator::get_positions() { return state->positions.data_ptr<double>(); }
double *DevicePropagator::get_velocities() { return state->velocities.data_ptr<double>(); }

std::unique_ptr<DevicePropagator::Slots>
DevicePropagator::make_slots(const std::vector<int> &chosen) const {
    size_t num_atoms = 0;
    for (const GuardedMolecule &molecule : molecules)
        num_atoms = std::max(num_atoms, molecule.particles.size());
    const int64_t b = chosen.size(), a = num_atoms, num_particles = species.size();
    auto slots = std::make_unique<Slots>(b, a, device);
    std::vector<int64_t> particle(b * a, num_particles), element(b * a, -1), from, to, bond_slot;
    std::vector<double> mass(b * a), min_length, max_length;
    for (int64_t slot = 0; slot < b; slot++) {
        const GuardedMolecule &molecule = molecules[chosen[slot]];
        for (size_t i = 0; i < molecule.particles.size(); i++) {
            particle[slot * a + i] = molecule.particles[i];
            element[slot * a + i] = species[molecule.particles[i]];
            mass[slot * a + i] = masses[molecule.particles[i]];
        }
        for (const BondRange &bond : molecule.bonds) {
            const auto row = [&](int wanted) {
                const auto found = std::ranges::find(molecule.particles, wanted);
                return slot * a + (found - molecule.particles.begin());
            };
            from.push_back(row(bond.particle1));
            to.push_back(row(bond.particle2));
            bond_slot.push_back(slot);
            min_length.push_back(bond.min_length);
            max_length.push_back(bond.max_length);
        }
    }
    const int64_t num_bonds = from.size();
    slots->particle = upload(particle, {b * a}, device);
    slots->mass = upload(mass, {b, a, 1}, device);
    slots->total_mass = slots->mass.sum(1, /*keepdim=*/true);
    slots->is_atom = slots->mass > 0.0;
    slots->bond_from = upload(from, {num_bonds}, device);
    slots->bond_to = upload(to, {num_bonds}, device);
    slots->bond_slot = upload(bond_slot, {num_bonds}, device);
    slots->min_length = upload(min_length, {num_bonds}, device);
    slots->max_length = upload(max_length, {num_bonds}, device);
    Batch::Tensors &batch = slots->batch.get_tensors();
    batch.species.copy_(upload(element, {b, a}, device));
    batch.masses.copy_(slots->mass.squeeze(2));
    return slots;
}

void DevicePropagator::update_bath() {
    if (state->temperature == bath_temperature && state->friction == bath_friction)
        return;
    state->temperature = bath_temperature;
    state->friction = bath_friction;
    std::vector<double> spread = bath_spread;
    spread.push_back(0.0);
    state->spread = upload(spread, {int64_t(spread.size())}, device);
}

void DevicePropagator::upload_noise(Slots &slots, const std::vector<int> &chosen) {
    const int64_t b = slots.batch.num_molecules, a = slots.batch.num_atoms;
    const int64_t rows = num_noise_rows;
    slots.host_noise.assign(rows * b * a * 3, 0.0f);
    for (int64_t slot = 0; slot < b; slot++) {
        const int64_t size = 3 * molecules[chosen[slot]].particles.size();
        for (int64_t row = 0; row < rows; row++)
            std::copy_n(draws[slot] + row * size, size,
                        slots.host_noise.data() + (row * b + slot) * a * 3);
    }
    slots.noise = upload(slots.host_noise, {rows, b, a, 3}, device);
}

void DevicePropagator::fill_batch(Slots &slots, int attempt) {
    const int64_t b = slots.batch.num_molecules, a = slots.batch.num_atoms;
    const auto gather = [&](const Tensor &rows) {
        return rows.index_select(0, slots.particle).view({b, a, 3});
    };
    slots.x = gather(state->positions);
    slots.v = gather(state->velocities);
    slots.half = slots.v;
    if (has_bath()) {
        const Tensor spread = state->spread.index_select(0, slots.particle).view({b, a, 1});
        slots.half = slots.v * bath_damping + spread * slots.noise[0];
    }
    const Tensor x_centre = (slots.mass * slots.x).sum(1, true) / slots.total_mass;
    slots.centre_velocity = (slots.mass * slots.half).sum(1, true) / slots.total_mass;

    Batch::Tensors &batch = slots.batch.get_tensors();
    batch.positions.copy_((slots.x - x_centre) * slots.is_atom);
    batch.velocities.copy_((slots.half - slots.centre_velocity) * slots.is_atom);
    if (has_history)
        batch.acceleration.copy_(gather(state->acceleration));
    else
        batch.acceleration.zero_();
    batch.has_acceleration.fill_(has_history);
    batch.level.fill_(level_of(attempt));
}

void DevicePropagator::finish(Slots &slots) {
    const Tensor change = slots.batch.get_tensors().output.toTensor();
    const Tensor displacement = change.select(2, 0), velocity_change = change.select(2, 1);
    const Tensor x = slots.x + slots.centre_velocity * options.lag_time + displacement;
    Tensor v = slots.half + velocity_change;
    if (has_bath()) {
        const Tensor spread =
            state->spread.index_select(0, slots.particle).view({-1, slots.batch.num_atoms, 1});
        v = v * bath_damping + spread * slots.noise[1];
    }
    const auto scatter = [&](Tensor &rows, const Tensor &values) {
        rows.index_copy_(0, slots.particle, values.reshape({-1, 3}));
        // Padding shares a row, which stays 0.
        rows.select(0, rows.size(0) - 1).zero_();
    };
    scatter(state->half_velocities, slots.half);
    scatter(state->new_positions, x);
    scatter(state->new_velocities, v);
    scatter(state->new_acceleration, velocity_change / float(options.lag_time));
    slots.x = x;
    slots.v = v;
}

/** As find_fault(), for all molecules at once, without saying what is wrong. */
void DevicePropagator::guard(Slots &slots) {
    const int64_t b = slots.batch.num_molecules;
    const Tensor finite = at::isfinite(slots.x).logical_and(at::isfinite(slots.v));
    const Tensor all_finite = finite.logical_or(slots.is_atom.logical_not()).flatten(1).all(1);
    const Tensor zero = at::zeros({}, slots.v.options());
    const Tensor v = at::where(slots.is_atom, slots.v, zero);
    const Tensor kinetic_energy = (0.5 * slots.mass * v * v).flatten(1).sum(1);
    const Tensor rows = slots.x.reshape({-1, 3});
    const Tensor d = rows.index_select(0, slots.bond_from) - rows.index_select(0, slots.bond_to);
    const Tensor length = at::sqrt((d * d).sum(1));
    const Tensor broken = (length < slots.min_length).logical_or(length > slots.max_length);
    const Tensor num_broken =
        at::zeros({b}, slots.mass.options()).index_add(0, slots.bond_slot, broken.to(at::kDouble));
    const Tensor suspect = all_finite.logical_not()
                               .logical_or(num_broken > 0.0)
                               .logical_or(kinetic_energy > slots.max_kinetic_energy);
    slots.suspects = download_tensor<int8_t>(suspect.to(at::kChar));
}

void DevicePropagator::download() {
    const auto fetch = [this](const Tensor &rows, std::vector<double> &to) {
        // In place: step() knows the address of old_positions.
        std::ranges::copy(download_tensor<double>(rows.narrow(0, 0, int64_t(species.size()))),
                          to.begin());
    };
    fetch(state->positions, old_positions);
    fetch(state->half_velocities, half_velocities);
    fetch(state->new_positions, new_positions);
    fetch(state->new_velocities, new_velocities);
    new_acceleration =
        download_tensor<float>(state->new_acceleration.narrow(0, 0, int64_t(species.size())));
}

void DevicePropagator::draw(const std::vector<int> &chosen, int attempt, const double *,
                            const double *) {
    const c10::InferenceMode inference;
    some_slots = attempt == 0 ? nullptr : make_slots(chosen);
    Slots &slots = attempt == 0 ? *all_slots : *some_slots;
    update_bath();
    std::vector<double> max_energies;
    for (int molecule : chosen)
        max_energies.push_back(molecules[molecule].max_kinetic_energy);
    slots.max_kinetic_energy = upload(max_energies, {int64_t(chosen.size())}, device);
    upload_noise(slots, chosen);
    fill_batch(slots, attempt);

    model.encode(slots.batch);
    Batch::Tensors &batch = slots.batch.get_tensors();
    batch.residual.zero_();
    if (!levels.empty()) {
        // Rows 2 and 3, then each further pair: position, velocity.
        const auto pair = [&](int64_t row) {
            return at::stack({slots.noise[row], slots.noise[row + 1]}, 2);
        };
        batch.residual.copy_(pair(2) * float(std::sqrt(levels[0] * levels[0] + 1.0)));
        std::vector<Tensor> extra;
        for (int64_t row = 4; row < slots.noise.size(0); row += 2)
            extra.push_back(pair(row));
        sample_tensors(
            options.sampler, levels,
            [&](double sigma) {
                batch.sigma.fill_(float(sigma));
                model.denoise(slots.batch);
                return batch.output.toTensor();
            },
            batch.residual, extra);
    }
    model.decode(slots.batch, options.conserve_angular_momentum);
    finish(slots);
    guard(slots);
    if (std::ranges::find(slots.suspects, 1) != slots.suspects.end())
        download();
}

bool DevicePropagator::is_refused(int slot, int molecule) {
    const Slots &slots = some_slots ? *some_slots : *all_slots;
    return slots.suspects[slot] && Propagator::is_refused(slot, molecule);
}

void DevicePropagator::take_rescued(int molecule) {
    const c10::InferenceMode inference;
    const std::vector<int> &particles = molecules[molecule].particles;
    const std::vector<int64_t> rows(particles.begin(), particles.end());
    const int64_t size = rows.size();
    const auto put = [&]<class T>(Tensor &to, const std::vector<T> &from) {
        std::vector<T> values;
        for (int64_t particle : rows)
            values.insert(values.end(), from.begin() + 3 * particle,
                          from.begin() + 3 * particle + 3);
        to.index_copy_(0, upload(rows, {size}, device), upload(values, {size, 3}, device));
    };
    put(state->new_positions, new_positions);
    put(state->new_velocities, new_velocities);
    put(state->new_acceleration, new_acceleration);
}

void DevicePropagator::commit(double *, double *) {
    const c10::InferenceMode inference;
    // The addresses of the state are known outside.
    state->positions.copy_(state->new_positions);
    state->velocities.copy_(state->new_velocities);
    std::swap(state->acceleration, state->new_acceleration);
}

void DevicePropagator::step_state(const Rescue &rescue) {
    step(old_positions.data(), nullptr, rescue);
    const at::Device where = state->positions.device();
    if (where.is_cpu())
        return;
    const c10::impl::VirtualGuardImpl streams(where.type());
    streams.synchronizeStream(streams.getStream(where));
}

std::vector<float> DevicePropagator::get_acceleration() const {
    return download_tensor<float>(state->acceleration.narrow(0, 0, int64_t(species.size())));
}

void DevicePropagator::set_acceleration(std::vector<float> values) {
    const c10::InferenceMode inference;
    state->acceleration.narrow(0, 0, int64_t(species.size()))
        .copy_(upload(values, {int64_t(species.size()), 3}, device));
}

} // namespace diffmd
