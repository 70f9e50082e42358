#pragma once

#include "torch_ops.h"

#include <ATen/Parallel.h>

#ifndef INTRA_OP_PARALLEL
#error "expected at::parallel_for with threads, got the serial one: compile with -fopenmp"
#endif

/* Operators on CPU tensors of which others are made. */
namespace diffmd::ops::on_cpu {

FeaturesSignature features;
InvariantsSignature invariants;
HarmonicsSignature harmonics;
AttentionSignature attention;
FeedForwardSignature feed_forward;

/** Weights of a layer: of its attention, and of its feed-forward. */
constexpr int64_t num_attention = 12, num_feed_forward = 9;

/** Numbers below which another thread costs more than it saves. */
constexpr int64_t grain_numbers = 32768;

/** Degree of features of (l_max+1)^2 components; at least 1, and the next where there is none. */
inline int64_t degree_of(int64_t components) {
    int64_t l_max = 1;
    while ((l_max + 1) * (l_max + 1) < components)
        l_max++;
    return l_max;
}

/** Options of a result that is only described, also where some arguments are real. */
inline at::TensorOptions described(const Tensor &like) { return like.options().device(at::kMeta); }

/** Add contiguous tensors of one shape. */
template <class T> void add(const Tensor &change, const Tensor &to) {
    at::parallel_for(0, to.numel(), grain_numbers, [&](int64_t begin, int64_t end) {
        const T *const from = change.const_data_ptr<T>();
        T *const sum = to.mutable_data_ptr<T>();
        for (int64_t i = begin; i < end; i++)
            sum[i] += from[i];
    });
}

/** A tensor of this shape and dtype; errors say what it is, and of which operator. */
void check_tensor(const char *name, const char *what, const Tensor &tensor, at::IntArrayRef shape,
                  at::ScalarType dtype);

} // namespace diffmd::ops::on_cpu
