#include "samplers.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace diffmd {
namespace {

// Levels and what is computed of them are double, as Python's floats are; what multiplies a
// residual is rounded to float first, as torch does.

void step_exponential(double s, double t, const Denoise &denoise, SamplerWork &work) {
    const float *d = denoise(s);
    const float variance = float(1.0 + s * s), squared = float(s * s);
    const float shrink = float(std::sqrt((1.0 + t * t) / (1.0 + s * s)));
    for (int64_t i = 0; i < work.num_molecules * work.molecule_size; i++) {
        const float mean = (variance * d[i] - work.u[i]) / squared;
        work.u[i] = mean + shrink * (work.u[i] - mean);
    }
}

void step_euler(double s, double t, const Denoise &denoise, SamplerWork &work) {
    const float *d = denoise(s);
    const float factor = float((t - s) / s);
    for (int64_t i = 0; i < work.num_molecules * work.molecule_size; i++)
        work.u[i] += factor * (work.u[i] - d[i]);
}

void step_heun(double s, double t, const Denoise &denoise, SamplerWork &work) {
    const int64_t size = work.num_molecules * work.molecule_size;
    const float *d = denoise(s);
    const float s_float = float(s), t_float = float(t), width = float(t - s);
    for (int64_t i = 0; i < size; i++) {
        work.slope[i] = (work.u[i] - d[i]) / s_float;
        work.start[i] = work.u[i];
        work.u[i] += width * work.slope[i];
    }
    if (t == 0.0)
        return;
    d = denoise(t);
    for (int64_t i = 0; i < size; i++) {
        const float slope = 0.5f * (work.slope[i] + (work.u[i] - d[i]) / t_float);
        work.u[i] = work.start[i] + width * slope;
    }
}

void step_predictor_corrector(double s, double t, const float *noise, const Denoise &denoise,
                              SamplerWork &work) {
    const int64_t size = work.num_molecules * work.molecule_size;
    const float *d = denoise(s);
    const double drop = s * s - t * t;
    const float factor = float(drop / (s * s));
    for (int64_t i = 0; i < size; i++)
        work.u[i] += factor * (d[i] - work.u[i]);
    if (t == 0.0)
        return;
    const float spread = float(std::sqrt(drop));
    for (int64_t i = 0; i < size; i++)
        work.u[i] += spread * noise[i];
    d = denoise(t);
    const float t_squared = float(t * t);
    for (int64_t molecule = 0; molecule < work.num_molecules; molecule++) {
        const int64_t first = molecule * work.molecule_size;
        const float *z = noise + size + first;
        double z_squared = 0.0, score_squared = 0.0;
        for (int64_t i = 0; i < work.molecule_size; i++) {
            const float score = (d[first + i] - work.u[first + i]) / t_squared;
            work.slope[i] = score;
            z_squared += double(z[i]) * z[i];
            score_squared += double(score) * score;
        }
        const double ratio = SIGNAL_TO_NOISE * std::sqrt(z_squared / score_squared);
        const float step = float(2.0 * ratio * ratio), kick = float(2.0 * ratio);
        for (int64_t i = 0; i < work.molecule_size; i++)
            work.u[first + i] += step * work.slope[i] + kick * z[i];
    }
}

} // namespace

Sampler sampler_from_name(const std::string &name) {
    if (name == "exponential")
        return Sampler::exponential;
    if (name == "euler")
        return Sampler::euler;
    if (name == "heun")
        return Sampler::heun;
    if (name == "predictor_corrector")
        return Sampler::predictor_corrector;
    throw std::invalid_argument("found sampler '" + name +
                                "', expected exponential, euler, heun or predictor_corrector");
}

std::vector<double> karras_noise_levels(int num_steps, double sigma_min, double sigma_max,
                                        double rho) {
    if (num_steps == 0)
        return {};
    if (num_steps == 1)
        return {sigma_max, 0.0};
    const double low = std::pow(sigma_min, 1 / rho), high = std::pow(sigma_max, 1 / rho);
    std::vector<double> levels;
    for (int i = 0; i < num_steps; i++)
        levels.push_back(std::pow(high + double(i) / (num_steps - 1) * (low - high), rho));
    levels.push_back(0.0);
    return levels;
}

int num_extra_draws(Sampler sampler, int num_steps) {
    return sampler == Sampler::predictor_corrector ? 2 * std::max(num_steps - 1, 0) : 0;
}

void sample(Sampler sampler, const std::vector<double> &levels, const Denoise &denoise,
            SamplerWork &work) {
    for (size_t k = 0; k + 1 < levels.size(); k++) {
        const double s = levels[k], t = levels[k + 1];
        switch (sampler) {
        case Sampler::exponential:
            step_exponential(s, t, denoise, work);
            break;
        case Sampler::euler:
            step_euler(s, t, denoise, work);
            break;
        case Sampler::heun:
            step_heun(s, t, denoise, work);
            break;
        case Sampler::predictor_corrector:
            step_predictor_corrector(
                s, t, work.extra + 2 * k * work.num_molecules * work.molecule_size, denoise, work);
            break;
        }
    }
}

} // namespace diffmd
