#include "propagator.h"

#include <algorithm>
#include <cmath>
#include <istream>
#include <ostream>
#include <stdexcept>

namespace diffmd {
namespace {

/** kJ/mol/K: the CODATA 2018 gas constant, as OpenMM has it. */
constexpr double BOLTZMANN = 8.31446261815324e-3;

std::vector<int> count_atoms(const Molecules &molecules) {
    std::vector<int> counts(molecules.kinetic_energy_quantiles.size());
    for (int molecule : molecules.molecule_of_particle)
        counts.at(molecule)++;
    return counts;
}

int rows_per_draw(const Options &options) {
    if (options.num_sampling_steps == 0)
        return 2;
    return 4 + 2 * num_extra_draws(options.sampler, options.num_sampling_steps);
}

template <class T> void write(std::ostream &stream, const T *values, size_t count) {
    stream.write(reinterpret_cast<const char *>(values), sizeof(T) * count);
}

template <class T> void read(std::istream &stream, T *values, size_t count) {
    stream.read(reinterpret_cast<char *>(values), sizeof(T) * count);
    if (!stream)
        throw std::runtime_error("found the end of the checkpoint in the state of the "
                                 "DiffusionIntegrator; use an undamaged checkpoint");
}

} // namespace

Propagator::Workspace::Workspace(int64_t num_molecules, int64_t num_atoms, int num_extra)
    : batch(num_molecules, num_atoms), extra(num_extra * num_molecules * num_atoms * 6),
      sampler{num_molecules, num_atoms * 6, batch.residual, extra.data(), {}, {}} {
    sampler.slope.resize(num_molecules * num_atoms * 6);
    sampler.start.resize(num_molecules * num_atoms * 6);
}

Propagator::Propagator(const std::string &model_path, const std::string &model_sha256,
                       const Molecules &molecules, const Options &options,
                       const std::string &device)
    : model(model_path, model_sha256, device), options(options), species(molecules.species),
      masses(molecules.masses), kinetic_energy_quantiles(molecules.kinetic_energy_quantiles),
      molecules(molecules.kinetic_energy_quantiles.size()),
      levels(karras_noise_levels(options.num_sampling_steps, options.sigma_min, options.sigma_max,
                                 options.rho)),
      num_noise_rows(rows_per_draw(options)),
      noise(options.seed, count_atoms(molecules), num_noise_rows),
      half_velocities(3 * species.size()), new_positions(3 * species.size()),
      new_velocities(3 * species.size()), centre_velocities(this->molecules.size()),
      new_acceleration(3 * species.size()), draws(this->molecules.size()),
      // Elsewhere than on the CPU this memory is not used.
      all(device == "cpu" ? this->molecules.size() : 0, std::ranges::max(count_atoms(molecules)),
          num_extra_draws(options.sampler, options.num_sampling_steps)),
      acceleration(3 * species.size()) {
    for (size_t i = 0; i < species.size(); i++)
        this->molecules[molecules.molecule_of_particle[i]].particles.push_back(i);
    for (const BondRange &bond : molecules.bonds)
        this->molecules[molecules.molecule_of_particle[bond.particle1]].bonds.push_back(bond);
    for (size_t i = 0; i < this->molecules.size(); i++)
        all_molecules.push_back(i);
    tally.num_resamples.resize(this->molecules.size());
    tally.num_rescues.resize(this->molecules.size());
    if (all.batch.num_molecules > 0)
        fill_species(all, all_molecules);
    set_bath(options.max_temperature, 0.0);
}

void Propagator::set_bath(double temperature, double friction) {
    if (temperature == bath_temperature && friction == bath_friction)
        return;
    bath_temperature = temperature;
    bath_friction = friction;
    const double damping = std::exp(-0.5 * friction * options.lag_time);
    bath_damping = damping;
    const double max_kT = BOLTZMANN * std::max(temperature, options.max_temperature);
    for (size_t i = 0; i < molecules.size(); i++)
        molecules[i].max_kinetic_energy = 0.5 * max_kT * kinetic_energy_quantiles[i];
    bath_spread.resize(masses.size());
    for (size_t i = 0; i < masses.size(); i++)
        bath_spread[i] =
            std::sqrt(1.0 - damping * damping) * std::sqrt(BOLTZMANN * temperature / masses[i]);
}

void Propagator::forget_history() { has_history = false; }

void Propagator::fill_species(Workspace &work, const std::vector<int> &chosen) const {
    for (size_t slot = 0; slot < chosen.size(); slot++) {
        const std::vector<int> &atoms = molecules[chosen[slot]].particles;
        for (size_t a = 0; a < atoms.size(); a++) {
            work.batch.species[slot * work.batch.num_atoms + a] = species[atoms[a]];
            work.batch.masses[slot * work.batch.num_atoms + a] = float(masses[atoms[a]]);
        }
    }
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
    for (size_t a = 0; a < num_atoms; a++)
        for (int k = 0; k < 3; k++) {
            const size_t from = 3 * atoms[a] + k, to = first + 3 * a + k;
            batch.positions[to] = float(positions[from] - x_centre[k]);
            batch.velocities[to] = float(half_velocities[from] - v_centre[k]);
            batch.acceleration[to] = has_history ? acceleration[from] : 0.0f;
        }
    batch.has_acceleration[slot] = has_history;
    batch.level[slot] = level;

    // Rows 2 and 3, then each further pair: position, velocity.
    float *residual = batch.residual + 2 * first;
    std::fill_n(residual, 6 * batch.num_atoms, 0.0f);
    if (levels.empty())
        return;
    const float start = float(std::sqrt(levels[0] * levels[0] + 1.0));
    const size_t row = 3 * num_atoms;
    const int num_extra = num_extra_draws(options.sampler, options.num_sampling_steps);
    for (size_t a = 0; a < num_atoms; a++)
        for (int half = 0; half < 2; half++)
            for (int k = 0; k < 3; k++) {
                const size_t from = half * row + 3 * a + k, to = 6 * a + 3 * half + k;
                residual[to] = start * noise[2 * row + from];
                for (int extra = 0; extra < num_extra; extra++)
                    work.extra[(extra * batch.num_molecules + slot) * 6 * batch.num_atoms + to] =
                        noise[(4 + 2 * extra) * row + from];
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
    for (size_t a = 0; a < atoms.size(); a++)
        for (int k = 0; k < 3; k++) {
            const size_t i = 3 * atoms[a] + k;
            const float displacement = of_molecule[6 * a + k];
            const float velocity_change = of_molecule[6 * a + 3 + k];
            new_positions[i] = positions[i] + lag_time * v_centre[k] + displacement;
            new_velocities[i] = half_velocities[i] + velocity_change;
            new_acceleration[i] = velocity_change / float(lag_time);
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
        found.lag = tally.num_lags;
        found.molecule = molecule;
        tally.last_refusal = found;
        throw std::runtime_error(found.describe() +
                                 ", after the rescue; use a smaller step in the rescue Context");
    }
    tally.num_rescues[molecule]++;
}

void Propagator::draw(const std::vector<int> &chosen, int attempt, const double *positions,
                      const double *velocities) {
    // Redraws are rare; the batch of them is made anew.
    Workspace *work = &all;
    std::unique_ptr<Workspace> some;
    if (attempt > 0) {
        some = std::make_unique<Workspace>(
            chosen.size(), all.batch.num_atoms,
            num_extra_draws(options.sampler, options.num_sampling_steps));
        work = some.get();
        fill_species(*work, chosen);
    }
    const float level = level_of(attempt);
    for (size_t slot = 0; slot < chosen.size(); slot++)
        prepare(*work, slot, chosen[slot], level, draws[slot], positions, velocities);
    const float *change = draw_change(*work);
    for (size_t slot = 0; slot < chosen.size(); slot++)
        accept(*work, slot, chosen[slot], draws[slot], positions, change);
}

bool Propagator::is_refused(int, int molecule) {
    return find_fault(molecules[molecule], masses, new_positions.data(), new_velocities.data(),
                      tally.last_refusal);
}

void Propagator::take_rescued(int) {}

void Propagator::commit(double *positions, double *velocities) {
    std::ranges::copy(new_positions, positions);
    std::ranges::copy(new_velocities, velocities);
    acceleration.swap(new_acceleration);
}

void Propagator::step(double *positions, double *velocities, const Rescue &rescue) {
    std::vector<int> refused;
    for (int attempt = 0; attempt == 0 || !refused.empty(); attempt++) {
        const std::vector<int> again = std::move(refused);
        const std::vector<int> &chosen = attempt == 0 ? all_molecules : again;
        refused.clear();
        for (size_t slot = 0; slot < chosen.size(); slot++)
            draws[slot] = noise.draw(chosen[slot]);
        draw(chosen, attempt, positions, velocities);
        for (size_t slot = 0; slot < chosen.size(); slot++) {
            const int molecule = chosen[slot];
            if (!is_refused(slot, molecule))
                continue;
            tally.last_refusal.lag = tally.num_lags;
            tally.last_refusal.molecule = molecule;
            if (attempt == options.max_resamples && rescue) {
                run_rescue(rescue, molecule, draws[slot], positions);
                take_rescued(molecule);
                continue;
            }
            if (attempt == options.max_resamples)
                throw std::runtime_error(
                    tally.last_refusal.describe() + ", after " + std::to_string(attempt + 1) +
                    " draws; start from a relaxed geometry, lower the temperature, use a model "
                    "trained on such states, or set a rescue Context");
            tally.num_resamples[molecule]++;
            refused.push_back(molecule);
        }
    }
    commit(positions, velocities);
    has_history = true;
    tally.num_lags++;
}

void Propagator::save(std::ostream &stream) const {
    const int64_t header[] = {tally.num_lags, has_history};
    write(stream, header, 2);
    write(stream, tally.num_resamples.data(), molecules.size());
    write(stream, tally.num_rescues.data(), molecules.size());
    const std::vector<float> history = get_acceleration();
    write(stream, history.data(), history.size());
    noise.save(stream);
}

void Propagator::load(std::istream &stream) {
    int64_t header[2];
    Tally loaded;
    loaded.num_resamples.resize(molecules.size());
    loaded.num_rescues.resize(molecules.size());
    std::vector<float> loaded_acceleration(3 * species.size());
    read(stream, header, 2);
    read(stream, loaded.num_resamples.data(), molecules.size());
    read(stream, loaded.num_rescues.data(), molecules.size());
    read(stream, loaded_acceleration.data(), acceleration.size());
    // The last that may throw: what is loaded takes effect only now.
    noise.load(stream);
    loaded.num_lags = header[0];
    tally = std::move(loaded);
    set_acceleration(std::move(loaded_acceleration));
    has_history = header[1] != 0;
}

} // namespace diffmd
