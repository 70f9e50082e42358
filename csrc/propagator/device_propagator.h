#pragma once

#include "propagator.h"

namespace diffmd {

class DeviceSlots;

/**
 * A Propagator whose state, network and arithmetic are tensors of any device of torch's. What it
 * inherits, redraws, rescues, generators, counts, checkpoints, is the same; noise is drawn by the
 * same generators on the CPU and copied over, so that lags agree with those of the Propagator to
 * rounding. In a lag without a redraw only the noise goes to the device and one flag a molecule
 * comes back; what is between is captured into a graph where the device has them. Works on a
 * stream of its own.
 */
class DevicePropagator : public Propagator {
public:
    /**
     * @param model_path    model file
     * @param model_sha256  its SHA-256, hexadecimal
     * @param molecules     what to propagate
     * @param options       how
     * @param device        as torch names it, like "cuda:0"
     */
    DevicePropagator(const std::string &model_path, const std::string &model_sha256,
                     const Molecules &molecules, const Options &options, const std::string &device);
    ~DevicePropagator() override;

    /**
     * The state, (n_particles, 3) in the device's memory, nm and nm/ps: to be written before
     * step_state() and to be read after it. The addresses stay the same.
     */
    double *get_positions();
    double *get_velocities();
    /**
     * Move the state forward by one lag; all work on the device is then done.
     *
     * @param rescue  as in Propagator::step
     * @throws std::runtime_error as Propagator::step; the state is then unchanged
     */
    void step_state(const Rescue &rescue = {});

protected:
    void draw(std::span<const int> chosen, int attempt, const double *positions,
              const double *velocities) override;
    bool is_refused(int slot, int molecule, Refusal &found) override;
    void take_rescued(int molecule) override;
    void commit(double *positions, double *velocities) override;
    std::vector<float> get_acceleration() const override;
    void set_acceleration(std::vector<float> values) override;

private:
    struct Device;

    std::unique_ptr<DeviceSlots> make_slots(std::span<const int> chosen, int attempt) const;
    void update_bath();
    void enqueue_lag(DeviceSlots &slots);
    void download_lag();
    void synchronize() const;

    std::string device;
    std::unique_ptr<Device> on_device;
    /** One for each batch of all molecules; and for a redraw. */
    std::vector<std::unique_ptr<DeviceSlots>> whole_slots;
    std::unique_ptr<DeviceSlots> some_slots;
    /** What the guards said of the last batch, slot by slot. */
    std::vector<int8_t> suspects;
    /** The state before the lag, for a rescue; filled when a draw is refused. */
    std::vector<double> old_positions;
};

} // namespace diffmd
