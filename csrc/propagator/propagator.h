#pragma once

#include "guards.h"
#include "model.h"
#include "noise.h"
#include "samplers.h"

#include <array>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <mutex>
#include <span>
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
    /** What atoms without a bond must keep; pairs of elements that are not here may come as close
     * as they like. */
    std::vector<ContactLimit> contact_limits;
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
    /**
     * Most molecules that the network sees at once; 0 for as many as keep its memory in a CPU's
     * caches, and for all elsewhere. It changes results by rounding only.
     */
    int molecules_per_batch = 0;
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
     * @param device        where the network runs, as torch names it; other than "cpu" is for
     *                      DevicePropagator
     */
    Propagator(const std::string &model_path, const std::string &model_sha256,
               const Molecules &molecules, const Options &options,
               const std::string &device = "cpu");
    virtual ~Propagator() = default;

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

    /** Counts of lags, redraws and rescues, and the last refusal; from any thread. */
    Tally get_tally() const {
        const std::lock_guard lock(tally_mutex);
        return tally;
    }
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

protected:
    using Point = std::array<double, 3>;

    /*
     * The part of a step that works on all numbers, which a DevicePropagator does elsewhere.
     */
    /**
     * Draw a lag for a batch of molecules, in Inference, and keep the results aside.
     *
     * @param chosen   which, at most molecules_per_batch; their noise is in draws, slot by slot
     * @param attempt  0 for all molecules, one batch after the other; then the redraws
     */
    virtual void draw(std::span<const int> chosen, int attempt, const double *positions,
                      const double *velocities);
    /** Whether the guards refuse what was drawn for a molecule, and why. */
    virtual bool is_refused(int slot, int molecule, Refusal &found);
    /** A rescue has replaced what was drawn for a molecule. */
    virtual void take_rescued(int molecule);
    /** Make what was drawn the state. */
    virtual void commit(double *positions, double *velocities);
    /** The history: for each particle's components nm/ps^2. */
    virtual std::vector<float> get_acceleration() const { return acceleration; }
    virtual void set_acceleration(std::vector<float> values) { acceleration = std::move(values); }

    /** Perturbation level that the network is told: a redraw asks for a more corrected lag. */
    static float level_of(int attempt) { return attempt < 2 ? 0.5f * attempt : 1.0f; }
    bool has_bath() const { return !options.thermostatted && bath_damping != 1.0; }

    Model model;
    Options options;
    std::vector<int> species;
    std::vector<double> masses;
    std::vector<double> kinetic_energy_quantiles;
    std::vector<GuardedMolecule> molecules;
    std::vector<double> levels;
    /** Rows of one draw of noise: two for the bath, two to start from, the sampler's. */
    int num_noise_rows;
    /** Atoms of the largest molecule; molecules of a whole batch. */
    size_t max_atoms, molecules_per_batch;
    NoiseStreams noise;

    double bath_temperature = -1.0, bath_friction = -1.0, bath_damping = 1.0;
    /** For each particle: spread of a half step's noise, nm/ps. */
    std::vector<double> bath_spread;

    /** The lag being drawn: velocities after the first half step, and the result. */
    std::vector<double> half_velocities, new_positions, new_velocities;
    std::vector<Point> centre_velocities;
    std::vector<float> new_acceleration;
    std::vector<const float *> draws;
    bool has_history = false;
    Tally tally;
    /** Held where the tally changes: another thread may ask for it during a step. */
    mutable std::mutex tally_mutex;

private:
    /** A batch and the sampler's memory for it. */
    struct Workspace {
        Workspace(int64_t num_molecules, int64_t num_atoms, int num_extra);
        Batch batch;
        std::vector<float> extra;
        SamplerWork sampler;
    };

    void draw_batch(std::span<const int> chosen, int attempt, const double *positions,
                    const double *velocities, const Rescue &rescue, std::vector<int> &refused);
    /** Say of which lag and molecule a refusal is, and keep it for get_tally(). */
    void keep_refusal(int molecule, Refusal &found);
    /** Add one to a number of the tally. */
    void count(int64_t &number);
    Workspace &workspace_for(size_t num_molecules);
    void prepare(Workspace &work, int slot, int molecule, float level, const float *noise,
                 const double *positions, const double *velocities);
    void fill_noise(Workspace &work, int slot, size_t num_atoms, const float *noise) const;
    const float *draw_change(Workspace &work);
    void accept(const Workspace &work, int slot, int molecule, const float *noise,
                const double *positions, const float *change);
    void run_rescue(const Rescue &rescue, int molecule, const float *noise,
                    const double *positions);
    void add_bath_noise(int molecule, const float *noise, double *velocities) const;

    /** For whole batches; for the last one of a lag, and for redraws. */
    std::unique_ptr<Workspace> whole, rest;
    std::vector<int> all_molecules;
    std::vector<float> acceleration;
};

} // namespace diffmd
