#pragma once

#include "batch_tensors.h"
#include "device_graph.h"
#include "guards.h"
#include "samplers.h"

#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

namespace diffmd {

/** A copy of a vector as a tensor of a device. */
template <class T>
at::Tensor upload(const std::vector<T> &values, at::IntArrayRef shape, const std::string &device) {
    return at::from_blob(const_cast<T *>(values.data()), shape, c10::CppTypeToScalarType<T>::value)
        .to(at::Device(device), c10::CppTypeToScalarType<T>::value, /*non_blocking=*/false,
            /*copy=*/true);
}

/** A copy of a tensor of a device as a vector. */
template <class T> std::vector<T> download(const at::Tensor &tensor) {
    const at::Tensor host = tensor.to(at::kCPU).contiguous();
    const T *const values = host.const_data_ptr<T>();
    return {values, values + host.numel()};
}

/** Particles, and their state, on a device; all stays where it is. N particles. */
struct DeviceState {
    /**
     * State, and the lag being drawn; (N+1,3): padding takes and leaves the last row. The first
     * five double, acceleration float.
     */
    at::Tensor positions, velocities, half_velocities, new_positions, new_velocities;
    at::Tensor acceleration, new_acceleration;
    /** Half a step of the bath: factor of the velocities; (N+1,1) spread of the noise, nm/ps. */
    at::Tensor damping, spread;

    DeviceState(int64_t num_particles, const std::string &device);
};

/**
 * A batch of molecules of a device, and the lag that is drawn for them. What enqueue_* do is the
 * same in every lag, so that it can be captured into a graph. B molecules, A atoms with padding.
 */
class DeviceSlots {
public:
    /**
     * @param chosen     which molecules
     * @param molecules  all molecules
     * @param species, masses  of all particles
     * @param num_atoms  A
     * @param num_rows   rows of one draw of noise
     * @param level      perturbation level that the network is told
     * @param device     as torch names it
     */
    DeviceSlots(std::span<const int> chosen, const std::vector<GuardedMolecule> &molecules,
                const std::vector<int> &species, const std::vector<double> &masses,
                int64_t num_atoms, int64_t num_rows, float level, const std::string &device);

    /** Set what the guards allow these molecules, as the bath now says. */
    void set_max_kinetic_energies(const std::vector<GuardedMolecule> &molecules);
    void set_history(bool has_history);
    /** Copy noise to the device: for each slot what NoiseStreams::draw gave. */
    void upload_noise(const std::vector<const float *> &draws);

    /** From the state to the network's input. */
    void enqueue_condition(const DeviceState &state);
    /** The residual to start from; what the sampler further draws is returned. */
    std::vector<at::Tensor> enqueue_start(double scale);
    /** From the network's output to what is new in the state, and what the guards think of it. */
    void enqueue_result(DeviceState &state, double lag_time);
    /** Which slots the guards suspect; waits for the device. */
    std::vector<int8_t> download_suspects() const { return download<int8_t>(suspect); }

    std::vector<int> chosen;
    Batch batch;
    /** Of what the enqueue_* and the network do; evaluations of the denoiser in it, once known. */
    GraphedCall graph;
    int64_t num_evaluations = -1;

private:
    at::Tensor gather(const at::Tensor &rows) const;
    void guard();

    bool has_history = false;
    std::vector<int> num_atoms_of;
    /** (B*A) particle of each atom, N for padding; (B,A,1) mass, 0 for padding; whether an atom. */
    at::Tensor particle, mass, total_mass, is_atom;
    /**
     * (K) rows of (B*A) that a bond joins or that must keep a distance, their molecule's slot, and
     * range; (B) kJ/mol.
     */
    at::Tensor pair_from, pair_to, pair_slot, min_distance, max_distance, max_kinetic_energy;
    /** (rows,B,A,3) */
    std::vector<float> host_noise;
    at::Tensor noise;
    /** (B,A,3): state, the first half step's velocities, and what was made of them; (B). */
    at::Tensor x, v, half, centre_velocity, suspect;
};

} // namespace diffmd
