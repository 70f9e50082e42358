/*
 * The denoising head on CPU tensors, as one operator without gradient: it runs K times a lag, and
 * is small.
 */
#include "on_cpu.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/silu.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace diffmd::ops::on_cpu {
namespace {

constexpr const char *name = "equivariant_denoiser";

/** Weights before those of the layers, in their order. */
enum Weight {
    CONDITION,
    CONDITION_BIAS,
    RESIDUAL,
    NOISE_IN,
    NOISE_IN_BIAS,
    NOISE_OUT,
    NOISE_OUT_BIAS,
    GATE,
    GATE_BIAS,
    OUT,
    NUM_BEFORE
};
constexpr int64_t num_layer = num_attention + num_feed_forward;

/** The condition's features in the head's channels (R,D,C). */
template <class T> Tensor condition_of(const Tensor &features, const Tensor &matrices) {
    const int64_t rows = features.size(0) * features.size(1), components = features.size(2);
    const int64_t channels = matrices.size(2);
    const Tensor out = at::empty({rows, components, channels}, features.options());
    for (int64_t l = 0; l < matrices.size(0); l++) {
        const int64_t count = 2 * l + 1;
        const Tensor own = features.narrow(2, l * l, count);
        const Tensor mixed =
            at::mm(own.reshape({rows * count, features.size(3)}), matrices.select(0, l));
        const T *const from = mixed.const_data_ptr<T>();
        T *const to = out.mutable_data_ptr<T>() + l * l * channels;
        for (int64_t i = 0; i < rows; i++)
            std::copy_n(from + i * count * channels, count * channels,
                        to + i * components * channels);
    }
    return out;
}

/** Factors of the preconditioning of one molecule, as of `preconditioning` in Python. */
struct Factors {
    double skip, out, in, noise;

    explicit Factors(double sigma)
        : skip(1.0 / (sigma * sigma + 1.0)), out(sigma / std::sqrt(sigma * sigma + 1.0)),
          in(1.0 / std::sqrt(sigma * sigma + 1.0)), noise(0.25 * std::log(sigma)) {}
};

template <class T>
Tensor denoise(const Tensor &residual, const Tensor &sigma, const Tensor &features,
               const Tensor &invariants, const Tensor &envelope, const Tensor &harmonics,
               const Tensor &log_scale, const Tensor &coefficients, at::TensorList weights,
               int64_t heads) {
    const int64_t b = features.size(0), a = features.size(1), components = features.size(2);
    const int64_t rows = b * a, channels = weights[GATE_BIAS].size(0);
    std::vector<Factors> factors;
    for (int64_t molecule = 0; molecule < b; molecule++)
        factors.emplace_back(double(sigma.const_data_ptr<T>()[molecule]));
    const Tensor level = at::empty({rows, 2}, features.options());
    const T *const scales = log_scale.const_data_ptr<T>();
    T *const levels = level.mutable_data_ptr<T>();
    for (int64_t i = 0; i < rows; i++) {
        levels[2 * i] = T(factors[i / a].noise);
        levels[2 * i + 1] = scales[i];
    }
    const Tensor noise =
        at::linear(at::silu(at::linear(level, weights[NOISE_IN], weights[NOISE_IN_BIAS])),
                   weights[NOISE_OUT], weights[NOISE_OUT_BIAS]);
    Tensor head = condition_of<T>(features, weights[CONDITION]);
    const auto bias = weights[CONDITION_BIAS].expect_contiguous();
    const auto of_residual = weights[RESIDUAL].expect_contiguous();
    const T *const from = residual.const_data_ptr<T>(), *const noises = noise.const_data_ptr<T>();
    const T *const mix = of_residual->const_data_ptr<T>(), *const biases =
                                                               bias->const_data_ptr<T>();
    T *const first = head.mutable_data_ptr<T>();
    for (int64_t i = 0; i < rows; i++) {
        T *const to = first + i * components * channels;
        for (int64_t c = 0; c < channels; c++)
            to[c] += biases[c] + noises[i * channels + c];
        for (int k = 0; k < 3; k++) {
            const T of_position = T(factors[i / a].in) * from[6 * i + k];
            const T of_velocity = T(factors[i / a].in) * from[6 * i + 3 + k];
            for (int64_t c = 0; c < channels; c++)
                to[(1 + k) * channels + c] +=
                    mix[2 * c] * of_position + mix[2 * c + 1] * of_velocity;
        }
    }
    head = head.view({b, a, components, channels});
    for (size_t layer = NUM_BEFORE; layer < weights.size(); layer += num_layer) {
        add<T>(attention(head, invariants, envelope, harmonics, coefficients,
                         weights.slice(layer, num_attention), heads),
               head);
        add<T>(feed_forward(head, weights.slice(layer + num_attention, num_feed_forward)), head);
    }
    const Tensor gate =
        at::silu(at::linear(head.select(2, 0), weights[GATE], weights[GATE_BIAS])).contiguous();
    const auto of_out = weights[OUT].expect_contiguous();
    const T *const gates = gate.const_data_ptr<T>(), *const last = of_out->const_data_ptr<T>();
    const Tensor out = at::empty({b, a, 2, 3}, features.options());
    const T *const vectors = head.const_data_ptr<T>();
    T *const to = out.mutable_data_ptr<T>();
    for (int64_t i = 0; i < rows; i++) {
        const Factors &factor = factors[i / a];
        for (int p = 0; p < 2; p++)
            for (int k = 0; k < 3; k++) {
                const T *const vector = vectors + (i * components + 1 + k) * channels;
                T sum = 0;
                for (int64_t c = 0; c < channels; c++)
                    sum += last[p * channels + c] * gates[i * channels + c] * vector[c];
                to[6 * i + 3 * p + k] =
                    T(factor.skip) * from[6 * i + 3 * p + k] + T(factor.out) * sum;
            }
    }
    return out;
}

Tensor denoiser(const Tensor &residual, const Tensor &sigma, const Tensor &features,
                const Tensor &invariants, const Tensor &envelope, const Tensor &harmonics,
                const Tensor &log_scale, const Tensor &coefficients, at::TensorList weights,
                int64_t heads) {
    // Products of matrices inside would be of bfloat16.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const at::ScalarType dtype = features.scalar_type();
    TORCH_CHECK_VALUE(features.dim() == 4, name, ": expected features of shape (B, A, D, C), got ",
                      features.sizes());
    TORCH_CHECK_VALUE(weights.size() > NUM_BEFORE &&
                          (weights.size() - NUM_BEFORE) % num_layer == 0 &&
                          weights[GATE_BIAS].dim() == 1,
                      name, ": expected ", int(NUM_BEFORE), " weights and ", num_layer,
                      " a layer, the bias of gates of one dimension, got ", weights.size());
    const int64_t b = features.size(0), a = features.size(1), wide = features.size(3);
    const int64_t channels = weights[GATE_BIAS].size(0);
    const int64_t degrees = degree_of(features.size(2)) + 1;
    check_tensor(name, "residual", residual, {b, a, 2, 3}, dtype);
    check_tensor(name, "noise level", sigma, {b}, dtype);
    check_tensor(name, "logarithm of the scale", log_scale, {b, a}, dtype);
    check_tensor(name, "matrices of the condition", weights[CONDITION], {degrees, wide, channels},
                 dtype);
    check_tensor(name, "bias of the condition", weights[CONDITION_BIAS], {channels}, dtype);
    check_tensor(name, "matrix of the residual", weights[RESIDUAL], {channels, 2}, dtype);
    check_tensor(name, "first matrix of the noise", weights[NOISE_IN], {channels, 2}, dtype);
    check_tensor(name, "first bias of the noise", weights[NOISE_IN_BIAS], {channels}, dtype);
    check_tensor(name, "matrix of the noise", weights[NOISE_OUT], {channels, channels}, dtype);
    check_tensor(name, "bias of the noise", weights[NOISE_OUT_BIAS], {channels}, dtype);
    check_tensor(name, "matrix of gates", weights[GATE], {channels, channels}, dtype);
    check_tensor(name, "bias of gates", weights[GATE_BIAS], {channels}, dtype);
    check_tensor(name, "last matrix", weights[OUT], {2, channels}, dtype);
    TORCH_CHECK_VALUE(degrees * degrees == features.size(2), name,
                      ": expected 4, 9 or 16 components, got ", features.size(2));
    const auto r = residual.expect_contiguous(), s = sigma.expect_contiguous();
    const auto f = features.expect_contiguous(), scale = log_scale.expect_contiguous();
    Tensor out;
    AT_DISPATCH_FLOATING_TYPES(dtype, name, [&] {
        out = denoise<scalar_t>(*r, *s, *f, invariants, envelope, harmonics, *scale, coefficients,
                                weights, heads);
    });
    return out;
}

Tensor denoiser_output(const Tensor &residual, const Tensor &, const Tensor &, const Tensor &,
                       const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                       at::TensorList, int64_t) {
    return residual.new_empty_symint(residual.sym_sizes(), described(residual));
}

} // namespace
} // namespace diffmd::ops::on_cpu

TORCH_LIBRARY_IMPL(diffmd, CPU, m) {
    m.impl("equivariant_denoiser", diffmd::ops::on_cpu::denoiser);
}

TORCH_LIBRARY_IMPL(diffmd, Meta, m) {
    m.impl("equivariant_denoiser", diffmd::ops::on_cpu::denoiser_output);
}

// An error where a gradient is asked for, never a zero.
TORCH_LIBRARY_IMPL(diffmd, Autograd, m) {
    m.impl("equivariant_denoiser", torch::autograd::autogradNotImplementedFallback());
}
