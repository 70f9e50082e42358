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

// The encoder, whose layers carry the molecules over the lag: positions and velocities (B,A,3),
// species (B,A), -1 for padding, masses (B,A), level (B), scales of the elements (N+1), the last of
// padding, invariant_scale (I), coefficients (D,columns); weights: features of the elements
// (N+1,C), of the level (C,1), matrix of velocities (2C,n), and for each layer those of attention,
// of feed-forward, and the kick (2,C) -> features (B,A,D,C), positions and velocities at the end,
// and there invariants (B,A,A,I), envelope (B,A,A) and harmonics (B,A,A,D)
inline constexpr const char *encoder_schema =
    "equivariant_encoder(Tensor positions, Tensor velocities, Tensor species, Tensor masses, "
    "Tensor level, Tensor position_scale, Tensor velocity_scale, Tensor invariant_scale, "
    "Tensor coefficients, Tensor[] weights, int n_heads, float lag_time, float cutoff, "
    "float velocity_cutoff, int n_max) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)";
using Encoded = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// The denoising head: residual (B,A,2,3), sigma (B), of the condition features (B,A,D,C'),
// invariants (B,A,A,I), envelope (B,A,A), harmonics (B,A,A,D) and log_scale (B,A), coefficients
// (D,columns); weights: of the condition (l_max+1,C',C) and (C), of the residual (C,2), of the
// noise level (C,2), (C), (C,C) and (C), of gates (C,C) and (C), the last (2,C), and for each layer
// those of attention and of feed-forward -> (B,A,2,3)
inline constexpr const char *denoiser_schema =
    "equivariant_denoiser(Tensor residual, Tensor sigma, Tensor features, Tensor invariants, "
    "Tensor envelope, Tensor harmonics, Tensor log_scale, Tensor coefficients, Tensor[] weights, "
    "int n_heads) -> Tensor";

// change (B,A,2,3) of positions and velocities, positions and velocities (B,A,3), masses (B,A) ->
// (B,A,2,3), without momentum, and where asked for without change of the angular momentum
inline constexpr const char *momenta_schema =
    "conserve_momenta(Tensor change, Tensor positions, Tensor velocities, Tensor masses, "
    "bool angular) -> Tensor";

} // namespace diffmd::ops
