#pragma once

#include "guards.h"
#include "model.h"
#include "noise.h"
#include "samplers.h"

#include <array>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

namespace diffmd {

/**
 * Moves one molecule forward by a lag with its reference force: (n_atoms, 3) positions, nm, and
 * velocities, nm/ps, in the order of its particles, are replaced.
 */
using Rescue = std::function<void(std::vector<double> &positions, std::vector<double> &velocities)>;

/** What is propagated: particles, and the molecules they form. */
struct Molecules {
    /** For each particle: element index of the model, mass in Da, molecule. */
    std::vector<int> species;
    std::vector<double> masses;
    std::vector<int> molecule_of_particle;
    /**
     * For each molecule: the largest kinetic energy it may have, in units of kT/2 (a quantile of
     * the chi-square distribution with 3 degrees of freedom an atom).
     */
    std::vector<double> kinetic_energy_quantiles;
    std::vector<BondRange> bonds;
};

/** How it is propagated. */
struct Options {
    /** ps */
    double lag_time;
    /** Whether the model holds the thermostat (otherwise half steps are wrapped around it). */
    bool thermostatted;
    /** K; the hottest training data, for the bound of the kinetic energy. */
    double max_temperature;
    Sampler sampler;
    /** Denoising steps K; 0 takes the model's mean. */
    int num_sampling_steps;
    double sigma_min, sigma_max, rho;
    /** Redraws of one molecule's lag before it is given up. */
    int max_resamples;
    bool conserve_angular_momentum;
    /** Seed of molecule 0; molecule i has seed + i. */
    uint64_t seed;
};

/**
 * One lag of learned dynamics after another, for any number of molecules; free of OpenMM. The
 * same step in Python is openmm_diffmd.integrator.propagator, which is what it is tested against.
 */
class Propagator {
public:
    /**
     * @param model_path    model file
     * @param model_sha256  its SHA-256, hexadecimal
     * @param molecules     what to propagate
     * @param options       how
     */
    Propagator(const std::string &model_path, const std::string &model_sha256,
               const Molecules &molecules, const Options &options);

    /**
     * Set the bath of the half steps around the model.
     *
     * @param temperature  K
     * @param friction     1/ps; 0 leaves the flow alone
     */
    void set_bath(double temperature, double friction);

    /**
     * Move all molecules forward by one lag.
     *
     * @param positions   (n_particles, 3) nm, replaced
     * @param velocities  (n_particles, 3) nm/ps, replaced
     * @param rescue      moves a molecule of which the guards refuse max_resamples + 1 draws,
     *                    from its velocities after the first half step of the bath; may be empty
     * @throws std::runtime_error if there is no rescue then, or its result is not finite, naming
     *         the lag, molecule, atoms and values; the state is then unchanged
     */
    void step(double *positions, double *velocities, const Rescue &rescue = {});

    /** Forget the acceleration history: the positions were set by someone else. */
    void forget_history();

    /** Counts of lags, redraws and rescues, and the last refusal. */
    const Tally &get_tally() const { return tally; }
    /** Seconds spent in the network, without the time spent around it. */
    double get_network_seconds() const { return model.get_seconds(); }
    /** Evaluations of the denoiser, each of one batch. */
    int64_t get_num_evaluations() const { return model.get_num_evaluations(); }

    /** Write generators, acceleration history and counts. */
    void save(std::ostream &stream) const;
    /**
     * Read what save() wrote.
     *
     * @throws std::runtime_error if the stream ends or holds something else; nothing is then
     *         changed
     */
    void load(std::istream &stream);

private:
    /** A batch and the sampler's memory for it. */
    struct Workspace {
        Workspace(int64_t num_molecules, int64_t num_atoms, int num_extra);
        Batch batch;
        std::vector<float> extra;
        SamplerWork sampler;
    };
    using Point = std::array<double, 3>;

    void fill_species(Workspace &work, const std::vector<int> &chosen) const;
    void prepare(Workspace &work, int slot, int molecule, float level, const float *noise,
                 const double *positions, const double *velocities);
    const float *draw_change(Workspace &work);
    void accept(const Workspace &work, int slot, int molecule, const float *noise,
                const double *positions, const float *change);
    void run_rescue(const Rescue &rescue, int molecule, const float *noise,
                    const double *positions);
    void add_bath_noise(int molecule, const float *noise, double *velocities) const;

    Model model;
    Options options;
    std::vector<int> species;
    std::vector<double> masses;
    std::vector<double> kinetic_energy_quantiles;
    std::vector<GuardedMolecule> molecules;
    std::vector<double> levels;
    NoiseStreams noise;
    Workspace all;
    std::vector<int> all_molecules;

    double bath_temperature = -1.0, bath_friction = -1.0, bath_damping = 1.0;
    /** For each particle: spread of a half step's noise, nm/ps. */
    std::vector<double> bath_spread;

    /** The lag being drawn: velocities after the first half step, and the result. */
    std::vector<double> half_velocities, new_positions, new_velocities;
    std::vector<Point> centre_velocities;
    std::vector<float> new_acceleration;
    std::vector<const float *> draws;

    /** The history: for each particle nm/ps^2; for each molecule whether there is one. */
    std::vector<float> acceleration;
    bool has_history = false;
    Tally tally;
};

} // namespace diffmd
