#include "tensor_samplers.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/sqrt.h>

namespace diffmd {
namespace {

using at::Tensor;

// What multiplies a residual is rounded to float first, as in samplers.cpp.
double rounded(double value) { return float(value); }

Tensor step_exponential(double s, double t, const Tensor &u, const Tensor &d) {
    const Tensor mean = (d * rounded(1.0 + s * s) - u) / rounded(s * s);
    return mean + (u - mean) * rounded(std::sqrt((1.0 + t * t) / (1.0 + s * s)));
}

/** Sum over all but the first dimension, kept, in double. */
Tensor sum_squares(const Tensor &values) {
    const Tensor wide = values.to(at::kDouble);
    return (wide * wide).flatten(1).sum(1).view({-1, 1, 1, 1});
}

/** Langevin correction at level t with noise z; padding has score 0. */
Tensor correct(double t, const Tensor &u, const Tensor &d, const Tensor &z) {
    const Tensor score = (d - u) / rounded(t * t);
    const Tensor ratio = SIGNAL_TO_NOISE * at::sqrt(sum_squares(z) / sum_squares(score));
    const Tensor step = (2.0 * ratio * ratio).to(at::kFloat), kick = (2.0 * ratio).to(at::kFloat);
    return u + (step * score + kick * z);
}

} // namespace

void sample_tensors(Sampler sampler, const std::vector<double> &levels,
                    const std::function<Tensor(double sigma)> &denoise, Tensor &residual,
                    const std::vector<Tensor> &extra) {
    Tensor &u = residual;
    for (size_t k = 0; k + 1 < levels.size(); k++) {
        const double s = levels[k], t = levels[k + 1];
        const Tensor d = denoise(s);
        switch (sampler) {
        case Sampler::exponential:
            u.copy_(step_exponential(s, t, u, d));
            break;
        case Sampler::euler:
            u.add_((u - d) * rounded((t - s) / s));
            break;
        case Sampler::heun: {
            const Tensor start = u.clone(), slope = (u - d) / rounded(s);
            const double width = rounded(t - s);
            u.add_(slope * width);
            if (t > 0.0)
                u.copy_(start + (slope + (u - denoise(t)) / rounded(t)) * 0.5 * width);
            break;
        }
        case Sampler::predictor_corrector: {
            const double drop = s * s - t * t;
            u.add_((d - u) * rounded(drop / (s * s)));
            if (t > 0.0) {
                u.add_(extra[2 * k] * rounded(std::sqrt(drop)));
                u.copy_(correct(t, u, denoise(t), extra[2 * k + 1]));
            }
            break;
        }
        }
    }
}

} // namespace diffmd
