#include "device_propagator.h"
#include "device_slots.h"
#include "tensor_samplers.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace diffmd {

using at::Tensor;

struct DevicePropagator::Device {
    Device(int64_t num_particles, const std::string &device)
        : stream(make_stream(at::Device(device))), state(make_state(num_particles, device)) {}

    static std::optional<c10::Stream> make_stream(const at::Device &device) {
        if (device.is_cpu())
            return {};
        return c10::impl::VirtualGuardImpl(device.type()).getNewStream(device);
    }

    /** What is filled on the default stream is not waited for by the work on ours. */
    DeviceState make_state(int64_t num_particles, const std::string &device) const {
        const c10::OptionalStreamGuard guard(stream);
        return {num_particles, device};
    }

    /** A capture cannot be made on the default stream; a CPU has none. */
    std::optional<c10::Stream> stream;
    DeviceState state;
    /** The bath that the state is prepared for. */
    double temperature = -1.0, friction = -1.0;
};

DevicePropagator::DevicePropagator(const std::string &model_path, const std::string &model_sha256,
                                   const Molecules &molecules, const Options &options,
                                   const std::string &device)
    : Propagator(model_path, model_sha256, molecules, options, device), device(device),
      old_positions(3 * species.size()) {
    const c10::InferenceMode inference;
    on_device = std::make_unique<Device>(species.size(), device);
    const c10::OptionalStreamGuard guard(on_device->stream);
    std::vector<int> every(this->molecules.size());
    for (size_t i = 0; i < every.size(); i++)
        every[i] = int(i);
    for (size_t first = 0; first < every.size(); first += molecules_per_batch)
        whole_slots.push_back(make_slots(
            std::span(every).subspan(first, std::min(molecules_per_batch, every.size() - first)),
            0));
    synchronize();
}

DevicePropagator::~DevicePropagator() = default;

double *DevicePropagator::get_positions() {
    return on_device->state.positions.mutable_data_ptr<double>();
}
double *DevicePropagator::get_velocities() {
    return on_device->state.velocities.mutable_data_ptr<double>();
}

std::unique_ptr<DeviceSlots> DevicePropagator::make_slots(std::span<const int> chosen,
                                                          int attempt) const {
    auto slots = std::make_unique<DeviceSlots>(chosen, molecules, species, masses, max_atoms,
                                               num_noise_rows, level_of(attempt), device);
    slots->set_max_kinetic_energies(molecules);
    return slots;
}

void DevicePropagator::update_bath() {
    if (on_device->temperature == bath_temperature && on_device->friction == bath_friction)
        return;
    on_device->temperature = bath_temperature;
    on_device->friction = bath_friction;
    const int64_t num_particles = species.size();
    std::vector<double> spread(num_particles + 1);
    if (has_bath())
        std::ranges::copy(bath_spread, spread.begin());
    on_device->state.spread.copy_(
        at::from_blob(spread.data(), {num_particles + 1, 1}, at::kDouble));
    on_device->state.damping.fill_(has_bath() ? bath_damping : 1.0);
    for (const auto &slots : whole_slots)
        slots->set_max_kinetic_energies(molecules);
}

/** All that a device does for a lag of a batch; the same in each lag, so that it can be replayed.
 */
void DevicePropagator::enqueue_lag(DeviceSlots &slots) {
    slots.enqueue_condition(on_device->state);
    model.encode(slots.batch);
    if (!levels.empty()) {
        Batch::Tensors &batch = slots.batch.get_tensors();
        const std::vector<Tensor> extra =
            slots.enqueue_start(std::sqrt(levels[0] * levels[0] + 1.0));
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
    slots.enqueue_result(on_device->state, options.lag_time);
}

void DevicePropagator::draw(std::span<const int> chosen, int attempt, const double *,
                            const double *) {
    update_bath();
    if (attempt > 0)
        some_slots = make_slots(chosen, attempt);
    DeviceSlots &slots =
        attempt > 0 ? *some_slots : *whole_slots[chosen.front() / molecules_per_batch];
    slots.set_history(has_history);
    slots.upload_noise(draws);
    const auto work = [&] { enqueue_lag(slots); };
    const int64_t evaluations_before = model.get_num_evaluations();
    const auto start = std::chrono::steady_clock::now();
    // Redraws are rare, and of any number of molecules.
    if (attempt > 0) {
        work();
    } else if (slots.graph.run(work)) {
        // The first time; a capture that fails is followed by a plain call.
        if (slots.num_evaluations < 0)
            slots.num_evaluations = model.get_num_evaluations() - evaluations_before;
        model.set_num_evaluations(evaluations_before + slots.num_evaluations);
    } else {
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
        model.set_num_evaluations(evaluations_before + slots.num_evaluations);
        model.add_seconds(spent.count());
    }
    suspects = slots.download_suspects();
    if (std::ranges::find(suspects, 1) != suspects.end())
        download_lag();
}

void DevicePropagator::download_lag() {
    const DeviceState &state = on_device->state;
    const auto fetch = [this](const Tensor &rows, auto &to) {
        using T = std::remove_cvref_t<decltype(to[0])>;
        // In place: step() knows the address of old_positions.
        std::ranges::copy(download<T>(rows.narrow(0, 0, int64_t(species.size()))), to.begin());
    };
    fetch(state.positions, old_positions);
    fetch(state.half_velocities, half_velocities);
    fetch(state.new_positions, new_positions);
    fetch(state.new_velocities, new_velocities);
    fetch(state.new_acceleration, new_acceleration);
}

bool DevicePropagator::is_refused(int slot, int molecule, Refusal &found) {
    return suspects[slot] && Propagator::is_refused(slot, molecule, found);
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
    put(on_device->state.new_positions, new_positions);
    put(on_device->state.new_velocities, new_velocities);
    put(on_device->state.new_acceleration, new_acceleration);
}

void DevicePropagator::commit(double *, double *) {
    const c10::InferenceMode inference;
    // Copies, not swaps: graphs know the addresses, and the state's are known outside.
    DeviceState &state = on_device->state;
    state.positions.copy_(state.new_positions);
    state.velocities.copy_(state.new_velocities);
    state.acceleration.copy_(state.new_acceleration);
}

void DevicePropagator::step_state(const Rescue &rescue) {
    const c10::OptionalStreamGuard guard(on_device->stream);
    step(old_positions.data(), nullptr, rescue);
    synchronize();
}

void DevicePropagator::synchronize() const {
    if (on_device->stream)
        c10::impl::VirtualGuardImpl(on_device->stream->device_type())
            .synchronizeStream(*on_device->stream);
}

std::vector<float> DevicePropagator::get_acceleration() const {
    const c10::OptionalStreamGuard guard(on_device->stream);
    return download<float>(on_device->state.acceleration.narrow(0, 0, int64_t(species.size())));
}

void DevicePropagator::set_acceleration(std::vector<float> values) {
    const c10::InferenceMode inference;
    const c10::OptionalStreamGuard guard(on_device->stream);
    const int64_t num_particles = species.size();
    on_device->state.acceleration.narrow(0, 0, num_particles)
        .copy_(at::from_blob(values.data(), {num_particles, 3}, at::kFloat));
    synchronize();
}

} // namespace diffmd
