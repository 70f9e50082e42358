#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace diffmd {

/**
 * The tensors of one batch of molecules, float32, padded to the largest; and what the model
 * made of them. The pointers stay valid as long as the Batch; padding has species -1 and is
 * otherwise 0. B molecules, A atoms.
 */
class Batch {
public:
    /**
     * @param num_molecules  B
     * @param num_atoms      A
     * @param device         where, as torch names it; the pointers are of its memory
     */
    Batch(int64_t num_molecules, int64_t num_atoms, const std::string &device = "cpu");
    ~Batch();

    int64_t num_molecules, num_atoms;
    /** (B,A,3) about the centre of mass: nm, nm/ps, nm/ps^2. */
    float *positions, *velocities, *acceleration;
    /** (B) whether there is an acceleration history. */
    bool *has_acceleration;
    /** (B,A) element index, -1 for padding. */
    int64_t *species;
    /** (B,A) Da. */
    float *masses;
    /** (B) perturbation level; (B) noise level. */
    float *level, *sigma;
    /** (B,A,2,3) the residual: position, velocity. */
    float *residual;

    /** The same as tensors, for those who include batch_tensors.h. */
    struct Tensors;
    Tensors &get_tensors() { return *tensors; }

private:
    std::unique_ptr<Tensors> tensors;
};

/** A TorchScript model file with the methods encode, denoise and decode: call them in Inference. */
class Model {
public:
    /**
     * @param path             the file
     * @param expected_sha256  its SHA-256, hexadecimal
     * @param device           where it runs, as torch names it: its batches must be there too
     * @throws std::runtime_error if the file is not readable, is another one, is no TorchScript
     *         file or lacks a method
     */
    Model(const std::string &path, const std::string &expected_sha256,
          const std::string &device = "cpu");
    ~Model();

    /** Encode the batch's state; the condition is kept in the batch. */
    void encode(Batch &batch);
    /**
     * Denoise batch.residual at batch.sigma.
     *
     * @return (B,A,2,3), valid until the batch's next call
     */
    const float *denoise(Batch &batch);
    /**
     * Turn batch.residual into the change over the lag.
     *
     * @param conserve_angular_momentum  whether to keep each molecule's angular momentum
     * @return (B,A,2,3) displacement (nm) and velocity change (nm/ps), valid until the batch's
     *         next call
     */
    const float *decode(Batch &batch, bool conserve_angular_momentum);

    /** Set what get_num_evaluations() returns: a graph replays calls that are then not made. */
    void set_num_evaluations(int64_t number) { num_evaluations = number; }
    /** Add to what get_seconds() returns. */
    void add_seconds(double more) { seconds += more; }

    /**
     * Seconds spent in TorchScript, calls of all methods together and what they return given back;
     * on a GPU until the last kernel is enqueued.
     */
    double get_seconds() const { return seconds; }
    /** Calls of denoise(). */
    int64_t get_num_evaluations() const { return num_evaluations; }

private:
    /** Another thread may ask for them during a call. */
    std::atomic<double> seconds = 0.0;
    std::atomic<int64_t> num_evaluations = 0;
    struct Script;
    std::unique_ptr<Script> script;
};

} // namespace diffmd
