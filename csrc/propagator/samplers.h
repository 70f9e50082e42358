#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace diffmd {

/** Ratio of a Langevin corrector's step to its noise, of the predictor-corrector sampler. */
constexpr double SIGNAL_TO_NOISE = 0.16;

/** How noise becomes a sample of unit-variance residuals. */
enum class Sampler { exponential, euler, heun, predictor_corrector };

/**
 * @param name  exponential, euler, heun or predictor_corrector
 * @throws std::invalid_argument if there is no such sampler
 */
Sampler sampler_from_name(const std::string &name);

/**
 * Noise levels of Karras et al. (arXiv 2206.00364, eq. 5), descending.
 *
 * @param num_steps             K; 0 gives none
 * @param sigma_min, sigma_max  lowest positive and highest level
 * @param rho                   exponent
 * @return K levels, then 0
 */
std::vector<double> karras_noise_levels(int num_steps, double sigma_min, double sigma_max,
                                        double rho);

/** Pairs of noise rows (position, velocity) beyond the initial one that a sampler draws. */
int num_extra_draws(Sampler sampler, int num_steps);

/** What a sampler works on: raw memory, set up once. */
struct SamplerWork {
    /** Molecules in the batch, and numbers of one molecule (6 times the padded atoms). */
    int64_t num_molecules, molecule_size;
    /** (num_molecules, molecule_size): the start, scaled; at the end the sample. */
    float *u;
    /** (num_extra_draws, num_molecules, molecule_size) unit Gaussian numbers, 0 on padding. */
    const float *extra;
    /** (num_molecules, molecule_size) each. */
    std::vector<float> slope, start;
};

/** D(u; sigma) for work.u; the pointer is valid until the next call. */
using Denoise = std::function<const float *(double sigma)>;

/**
 * Draw residuals by denoising; equal to openmm_diffmd.diffusion.samplers.
 *
 * @param sampler  which
 * @param levels   from karras_noise_levels, at least two
 * @param denoise  the denoiser
 * @param work     memory
 */
void sample(Sampler sampler, const std::vector<double> &levels, const Denoise &denoise,
            SamplerWork &work);

} // namespace diffmd
