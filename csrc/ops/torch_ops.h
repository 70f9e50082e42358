#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

/*
 * The operators' schemas, the one place where they stand, and types of functions that fit them.
 * Shapes: E edges, N nodes, C = (l_max+1)^2, M = n_max; lengths in one unit.
 */
namespace diffmd::ops {

using at::Tensor;
using Tensors = std::tuple<Tensor, Tensor>;

// vectors (E,3) -> (E,C,M): u(s) Q_ln(s^2) S_lm(r/cutoff), s = |r|/cutoff
inline constexpr const char *features_schema =
    "spherical_fourier_bessel(Tensor vectors, float cutoff, int l_max, int n_max) -> Tensor";
using FeaturesSignature = Tensor(const Tensor &, double, int64_t, int64_t);

// grad (E,C,M) -> (E,3)
inline constexpr const char *features_backward_schema =
    "spherical_fourier_bessel_backward(Tensor grad, Tensor vectors, float cutoff, int l_max, "
    "int n_max) -> Tensor";
using FeaturesBackwardSignature = Tensor(const Tensor &, const Tensor &, double, int64_t, int64_t);

// grad_grad (E,3), grad (E,C,M) -> (E,C,M), (E,3): gradients of the backward's two tensors
inline constexpr const char *features_double_backward_schema =
    "spherical_fourier_bessel_double_backward(Tensor grad_grad, Tensor grad, Tensor vectors, "
    "float cutoff, int l_max, int n_max) -> (Tensor, Tensor)";
using FeaturesDoubleBackwardSignature = Tensors(const Tensor &, const Tensor &, const Tensor &,
                                                double, int64_t, int64_t);

// vectors (E,3), velocities (N,3), edge_index (2,E) -> (E, M (1+2(l_max+1))), (E): M radial
// functions of l = 0, then for l = 0..l_max the contractions over m of the edge's features with
// those of velocity i (M numbers) and of velocity j (M numbers); and the envelope u(s)
inline constexpr const char *invariants_schema =
    "fourier_bessel_invariants(Tensor vectors, Tensor velocities, Tensor edge_index, "
    "float cutoff, float velocity_cutoff, int l_max, int n_max) -> (Tensor, Tensor)";
using InvariantsSignature = Tensors(const Tensor &, const Tensor &, const Tensor &, double, double,
                                    int64_t, int64_t);

// gradients of the two outputs -> (E,3), (N,3)
inline constexpr const char *invariants_backward_schema =
    "fourier_bessel_invariants_backward(Tensor grad_invariants, Tensor grad_envelope, "
    "Tensor vectors, Tensor velocities, Tensor edge_index, float cutoff, "
    "float velocity_cutoff, int l_max, int n_max) -> (Tensor, Tensor)";
using InvariantsBackwardSignature = Tensors(const Tensor &, const Tensor &, const Tensor &,
                                            const Tensor &, const Tensor &, double, double, int64_t,
                                            int64_t);

// vectors (E,3) -> (E,C): S_lm
inline constexpr const char *harmonics_schema =
    "solid_harmonics(Tensor vectors, int l_max) -> Tensor";
using HarmonicsSignature = Tensor(const Tensor &, int64_t);

// grad (E,C) -> (E,3)
inline constexpr const char *harmonics_backward_schema =
    "solid_harmonics_backward(Tensor grad, Tensor vectors, int l_max) -> Tensor";
using HarmonicsBackwardSignature = Tensor(const Tensor &, const Tensor &, int64_t);

// grad_grad (E,3), grad (E,C) -> (E,C), (E,3)
inline constexpr const char *harmonics_double_backward_schema =
    "solid_harmonics_double_backward(Tensor grad_grad, Tensor grad, Tensor vectors, int l_max) "
    "-> (Tensor, Tensor)";
using HarmonicsDoubleBackwardSignature = Tensors(const Tensor &, const Tensor &, const Tensor &,
                                                 int64_t);

// One layer of the Transformer, for inference on the CPU: R = B A atoms, D = (l_max+1)^2.
// features (B,A,D,C), invariants (B,A,A,I), envelope (B,A,A), harmonics (B,A,A,D), coefficients
// (D,columns), weights as in layers.h -> (B,A,D,C)
inline constexpr const char *attention_schema =
    "equivariant_attention(Tensor features, Tensor invariants, Tensor envelope, "
    "Tensor harmonics, Tensor coefficients, Tensor[] weights, int n_heads) -> Tensor";
using AttentionSignature = Tensor(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                                  const Tensor &, at::TensorList, int64_t);

// features (B,A,D,C) -> (B,A,D,C)
inline constexpr const char *feed_forward_schema =
    "equivariant_feed_forward(Tensor features, Tensor[] weights) -> Tensor";
using FeedForwardSignature = Tensor(const Tensor &, at::TensorList);

} // namespace diffmd::ops
