#pragma once

#include "model.h"

#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

namespace diffmd {

/** What a Batch's pointers point into, and what the model made of it. */
struct Batch::Tensors {
    at::Tensor positions, velocities, acceleration, has_acceleration, species, masses, level, sigma,
        residual;
    /** What encode() and the last denoise() or decode() returned. */
    c10::IValue condition, output;
    std::vector<c10::IValue> stack;
};

} // namespace diffmd
