#pragma once

#include "samplers.h"

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace diffmd {

/**
 * sample() with tensors, on the device where they are: the same steps with the same rounding of
 * constants.
 *
 * @param sampler  which
 * @param levels   from karras_noise_levels, at least two
 * @param denoise  D(residual; sigma), the shape of residual
 * @param residual (molecules, ...) the start, scaled; replaced by the sample
 * @param extra    num_extra_draws tensors like residual: unit Gaussian numbers, 0 on padding
 */
void sample_tensors(Sampler sampler, const std::vector<double> &levels,
                    const std::function<at::Tensor(double sigma)> &denoise, at::Tensor &residual,
                    const std::vector<at::Tensor> &extra);

} // namespace diffmd
