#include "propagator.h"
#include "inference.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <istream>
#include <ostream>
#include <stdexcept>

namespace diffmd {
namespace {

/** kJ/mol/K: the CODATA 2018 gas constant, as OpenMM has it. */
constexpr double BOLTZMANN = 8.31446261815324e-3;

/** What to do where no draw was good: of the first lag the start is to blame, most often. */
constexpr const char *CHECK_START =
    "check the start: positions in nm of the topology's atoms, in its order, of a relaxed "
    "geometry (relaxed with a force: a minimizer here has none of the molecule's), velocities in "
    "nm/ps, and forces of the System: no force field of the molecule";
constexpr const char *CHECK_RUN =
    "start from a relaxed geometry, lower the temperature, weaken forces of the System (none may "
    "be the molecule's own force field), use a model trained on such states, or set a rescue "
    "Context";

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

/**
 * The network's memory grows with the pairs of atoms of a batch; on the CPU more of them than fit
 * into the caches cost more each.
 */
size_t batch_size(const Options &options, size_t num_molecules, size_t max_atoms,
                  const std::string &device) {
    constexpr size_t PAIRS_PER_BATCH = 5184;
    size_t size = num_molecules;
    if (options.molecules_per_batch > 0)
        size = options.molecules_per_batch;
    else if (device == "cpu")
        size = std::max(PAIRS_PER_BATCH / (max_atoms * max_atoms), size_t(1));
    return std::min(size, num_molecules);
}

/**
 * Let malloc keep the memory that the network frees. glibc gives the end of the heap back to the
 * system when more than twice the largest block freed so far (it learns up to 32 MiB) lies unused
 * there; a batch then has its pages zeroed anew many times a lag, a fifth of the time of 64
 * ethanols. Freeing such a block teaches it. None of its pages is touched; settings of the process
 * (mallopt, GLIBC_TUNABLES) take precedence.
 */
void keep_freed_memory() {
    constexpr size_t LARGEST_LEARNT = (size_t(32) << 20) - (size_t(64) << 10);
    // volatile: else the compiler may leave both calls out.
    void *volatile block = std::malloc(LARGEST_LEARNT);
    std::free(block);
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

Propagator::Propagator(const std::string &model_path, const std::string &model_sha256,
                       const Molecules &molecules, const Options &options,
                       const std::string &device)
    : model(model_path, model_sha256, device), options(options), species(molecules.species),
      masses(molecules.masses), kinetic_energy_quantiles(molecules.kinetic_energy_quantiles),
      molecules(molecules.kinetic_energy_quantiles.size()),
      levels(karras_noise_levels(options.num_sampling_steps, options.sigma_min, options.sigma_max,
                                 options.rho)),
      num_noise_rows(rows_per_draw(options)), max_atoms(std::ranges::max(count_atoms(molecules))),
      molecules_per_batch(batch_size(options, this->molecules.size(), max_atoms, device)),
      noise(options.seed, count_atoms(molecules), num_noise_rows),
      half_velocities(3 * species.size()), new_positions(3 * species.size()),
      new_velocities(3 * species.size()), centre_velocities(this->molecules.size()),
      new_acceleration(3 * species.size()), draws(molecules_per_batch),
      acceleration(3 * species.size()) {
    for (size_t i = 0; i < species.size(); i++)
        this->molecules[molecules.molecule_of_particle[i]].particles.push_back(i);
    for (const BondRange &bond : molecules.bonds)
        this->molecules[molecules.molecule_of_particle[bond.particle1]].bonds.push_back(bond);
    for (GuardedMolecule &molecule : this->molecules)
        molecule.contacts = find_contacts(molecule, species, molecules.contact_limits);
    for (size_t i = 0; i < this->molecules.size(); i++)
        all_molecules.push_back(i);
    tally.num_resamples.resize(this->molecules.size());
    tally.num_rescues.resize(this->molecules.size());
    set_bath(options.max_temperature, 0.0);
    if (device == "cpu")
        keep_freed_memory();
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

bool Propagator::is_refused(int, int molecule, Refusal &found) {
    return find_fault(molecules[molecule], masses, new_positions.data(), new_velocities.data(),
                      found);
}

void Propagator::take_rescued(int) {}

void Propagator::commit(double *positions, double *velocities) {
    std::ranges::copy(new_positions, positions);
    std::ranges::copy(new_velocities, velocities);
    acceleration.swap(new_acceleration);
}

void Propagator::draw_batch(std::span<const int> chosen, int attempt, const double *positions,
                            const double *velocities, const Rescue &rescue,
                            std::vector<int> &refused) {
    {
        // Not around a rescue, whose forces may need gradients.
        const Inference inference;
        for (size_t slot = 0; slot < chosen.size(); slot++)
            draws[slot] = noise.draw(chosen[slot]);
        draw(chosen, attempt, positions, velocities);
    }
    for (size_t slot = 0; slot < chosen.size(); slot++) {
        const int molecule = chosen[slot];
        Refusal found;
        if (!is_refused(slot, molecule, found))
            continue;
        // One atom that is not finite spoils the mean over all; the start may tell of it.
        if (found.quantity == Quantity::finite)
            find_fault(molecules[molecule], masses, positions, half_velocities.data(), found);
        keep_refusal(molecule, found);
        if (attempt == options.max_resamples && rescue) {
            run_rescue(rescue, molecule, draws[slot], positions);
            take_rescued(molecule);
            continue;
        }
        if (attempt == options.max_resamples)
            throw std::runtime_error(found.describe() + ", after " + std::to_string(attempt + 1) +
                                     " draws; " + (has_history ? CHECK_RUN : CHECK_START));
        count(tally.num_resamples[molecule]);
        refused.push_back(molecule);
    }
}

void Propagator::step(double *positions, double *velocities, const Rescue &rescue) {
    std::vector<int> again, refused;
    std::span<const int> chosen = all_molecules;
    for (int attempt = 0; !chosen.empty(); attempt++) {
        for (; !chosen.empty();
             chosen = chosen.subspan(std::min(molecules_per_batch, chosen.size())))
            draw_batch(chosen.first(std::min(molecules_per_batch, chosen.size())), attempt,
                       positions, velocities, rescue, refused);
        again = std::move(refused);
        refused.clear();
        chosen = again;
    }
    commit(positions, velocities);
    has_history = true;
    count(tally.num_lags);
}

void Propagator::keep_refusal(int molecule, Refusal &found) {
    found.lag = tally.num_lags;
    found.molecule = molecule;
    const std::lock_guard lock(tally_mutex);
    tally.last_refusal = found;
}

void Propagator::count(int64_t &number) {
    const std::lock_guard lock(tally_mutex);
    number++;
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
    {
        const std::lock_guard lock(tally_mutex);
        tally = std::move(loaded);
    }
    set_acceleration(std::move(loaded_acceleration));
    has_history = header[1] != 0;
}

} // namespace diffmd
