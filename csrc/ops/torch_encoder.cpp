/*
 * The encoder's loop over layers on CPU tensors, as one operator without gradient. For a molecule
 * or two the calls of torch between the layers take longer than the layers.
 */
#include "cpu/kernels.h"
#include "on_cpu.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <cmath>

namespace diffmd::ops::on_cpu {
namespace {

constexpr const char *name = "equivariant_encoder";

/** Where the kick stands among the weights of a layer, and how many these are. */
constexpr int64_t kick_place = num_attention + num_feed_forward, num_weights = kick_place + 1;

/** Pairs of atoms below which another thread costs more than it saves. */
constexpr int64_t grain_pairs = 2048;

/** What embeds an atom: its element's features, those of the level, and of its velocity. */
constexpr int64_t num_embedding = 3;

/** The state of the molecules that layers carry along. */
struct State {
    Tensor features, positions, velocities;
};

/** What does not change from layer to layer. */
struct Molecules {
    int64_t num_molecules = 0, num_atoms = 0;
    /** (R): square roots of the masses, and the units of a layer's changes. */
    Tensor root_masses, position_scale, velocity_scale;
    /** (R, A): whether there is an edge; (2, R A): its ends. */
    Tensor pairs, edge_index;
    Tensor invariant_scale, coefficients;
    int64_t heads = 0, l_max = 0, n_max = 0;
    double time = 0.0, cutoff = 0.0, velocity_cutoff = 0.0;

    int64_t num_rows() const { return num_molecules * num_atoms; }
    int64_t num_invariants() const { return invariant_scale.size(0); }
    bool has_velocity_features() const { return num_invariants() != n_max; }
};

/** Features of all pairs, as of `Geometry` in Python. */
struct Geometry {
    Tensor invariants, envelope, harmonics;
};

/** Atoms and their pairs; the rest is for the caller to fill in. */
template <class T>
Molecules molecules_of(const Tensor &species, const Tensor &masses, const Tensor &position_scale,
                       const Tensor &velocity_scale, int64_t num_layers) {
    const int64_t b = species.size(0), a = species.size(1), rows = b * a;
    const int64_t num_elements = position_scale.size(0) - 1;
    const auto options = masses.options();
    Molecules in;
    in.num_molecules = b;
    in.num_atoms = a;
    in.root_masses = at::empty({rows}, options);
    in.position_scale = at::empty({rows}, options);
    in.velocity_scale = at::empty({rows}, options);
    in.pairs = at::empty({rows, a}, options.dtype(at::kBool));
    in.edge_index = at::empty({2, rows * a}, options.dtype(at::kLong));
    const auto of_species = species.expect_contiguous(), of_masses = masses.expect_contiguous();
    const auto of_positions = position_scale.expect_contiguous();
    const auto of_velocities = velocity_scale.expect_contiguous();
    const int64_t *const element = of_species->const_data_ptr<int64_t>();
    const T *const mass = of_masses->const_data_ptr<T>();
    const T *const of_position = of_positions->const_data_ptr<T>();
    const T *const of_velocity = of_velocities->const_data_ptr<T>();
    T *const root = in.root_masses.mutable_data_ptr<T>();
    T *const position = in.position_scale.mutable_data_ptr<T>();
    T *const velocity = in.velocity_scale.mutable_data_ptr<T>();
    bool *const pair = in.pairs.mutable_data_ptr<bool>();
    int64_t *const ends = in.edge_index.mutable_data_ptr<int64_t>();
    const T fraction = T(1) / T(num_layers);
    for (int64_t i = 0; i < rows; i++) {
        TORCH_CHECK_VALUE(element[i] >= -1 && element[i] < num_elements, name,
                          ": expected species from -1 to ", num_elements - 1, ", got ", element[i]);
        const int64_t known = element[i] < 0 ? num_elements : element[i];
        root[i] = std::sqrt(mass[i]);
        position[i] = fraction * of_position[known];
        velocity[i] = fraction * of_velocity[known];
        for (int64_t e = i * a; e < (i + 1) * a; e++) {
            const int64_t j = i / a * a + e % a;
            pair[e] = i != j && element[i] >= 0 && element[j] >= 0;
            ends[e] = i;
            ends[rows * a + e] = j;
        }
    }
    return in;
}

/** Velocities times the square roots of masses (R,3). */
template <class T> Tensor weighted_velocities(const Tensor &velocities, const Molecules &in) {
    const Tensor weighted = at::empty({in.num_rows(), 3}, velocities.options());
    const T *const v = velocities.const_data_ptr<T>();
    const T *const root_masses = in.root_masses.const_data_ptr<T>();
    T *const to = weighted.mutable_data_ptr<T>();
    for (int64_t i = 0; i < in.num_rows(); i++)
        for (int k = 0; k < 3; k++)
            to[3 * i + k] = v[3 * i + k] * root_masses[i];
    return weighted;
}

/** Features of velocities (R,4,n): Fourier-Bessel, or plain vectors of unit variance. */
template <class T> Tensor waves_of(const Tensor &weighted, const Molecules &in) {
    if (in.has_velocity_features())
        return features(weighted, in.velocity_cutoff, 1, in.n_max).mul_(1.0 / double(in.n_max));
    const Tensor waves = at::zeros({in.num_rows(), 4, 1}, weighted.options());
    // The cutoff is meant to be eight times sqrt(kT).
    const T scale = T(8.0 / in.velocity_cutoff);
    for (int64_t i = 0; i < in.num_rows(); i++)
        for (int k = 0; k < 3; k++)
            waves.mutable_data_ptr<T>()[4 * i + 1 + k] =
                scale * weighted.const_data_ptr<T>()[3 * i + k];
    return waves;
}

/** Features for the first layer (B,A,D,C). */
template <class T>
Tensor embed(const Tensor &species, const Tensor &velocities, const Tensor &level,
             at::TensorList weights, const Molecules &in) {
    const auto elements = weights[0].expect_contiguous(), slope = weights[1].expect_contiguous();
    const auto levels = level.expect_contiguous(), of_species = species.expect_contiguous();
    const int64_t channels = elements->size(1), components = (in.l_max + 1) * (in.l_max + 1);
    const Tensor waves =
        at::linear(waves_of<T>(weighted_velocities<T>(velocities, in), in), weights[2]);
    const Tensor out =
        at::zeros({in.num_molecules, in.num_atoms, components, channels}, waves.options());
    for (int64_t i = 0; i < in.num_rows(); i++) {
        const int64_t element = of_species->const_data_ptr<int64_t>()[i];
        const T *const own = elements->const_data_ptr<T>() +
                             (element < 0 ? elements->size(0) - 1 : element) * channels;
        const T *const from = waves.const_data_ptr<T>() + i * 4 * 2 * channels;
        const T *const slopes = slope->const_data_ptr<T>();
        const T noise = levels->const_data_ptr<T>()[i / in.num_atoms];
        T *const to = out.mutable_data_ptr<T>() + i * components * channels;
        for (int64_t c = 0; c < channels; c++) {
            to[c] = own[c] + from[c] + noise * slopes[c];
            for (int k = 1; k < 4; k++)
                to[k * channels + c] = from[(2 * k + 1) * channels + c];
        }
    }
    return out;
}

/** From each atom to each; where there is no edge, beyond the cutoff. */
template <class T>
void vectors_between(const T *positions, const bool *pairs, int64_t atoms, T beyond, int64_t begin,
                     int64_t end, T *vectors, T *directions) {
    for (int64_t e = begin; e < end; e++) {
        const int64_t i = e / atoms, j = i / atoms * atoms + e % atoms;
        T square = 0;
        for (int k = 0; k < 3; k++) {
            const T r = pairs[e] ? positions[3 * j + k] - positions[3 * i + k] : beyond;
            vectors[3 * e + k] = r;
            square += r * r;
        }
        const T over = T(1) / std::sqrt(square);
        for (int k = 0; k < 3; k++)
            directions[3 * e + k] = vectors[3 * e + k] * over;
    }
}

template <class T> Geometry geometry_at(const State &state, const Molecules &in) {
    const int64_t atoms = in.num_atoms, edges = in.num_rows() * atoms, count = in.num_invariants();
    const auto options = state.features.options();
    const Tensor vectors = at::empty({edges, 3}, options), directions = at::empty_like(vectors);
    at::parallel_for(0, edges, grain_pairs, [&](int64_t begin, int64_t end) {
        vectors_between(state.positions.const_data_ptr<T>(), in.pairs.const_data_ptr<bool>(), atoms,
                        T(2.0 * in.cutoff), begin, end, vectors.mutable_data_ptr<T>(),
                        directions.mutable_data_ptr<T>());
    });
    const auto [seen, envelope] =
        invariants(vectors, weighted_velocities<T>(state.velocities, in), in.edge_index, in.cutoff,
                   in.velocity_cutoff, in.has_velocity_features() ? in.l_max : 0, in.n_max);
    const Tensor scaled = at::empty({edges, count}, options);
    const T *const from = seen.template const_data_ptr<T>();
    const int64_t computed = seen.size(1);
    at::parallel_for(0, edges, grain_pairs, [&](int64_t begin, int64_t end) {
        const T *const scale = in.invariant_scale.const_data_ptr<T>();
        T *const to = scaled.mutable_data_ptr<T>();
        for (int64_t e = begin; e < end; e++)
            for (int64_t n = 0; n < count; n++)
                to[e * count + n] = from[e * computed + n] / scale[n];
    });
    const int64_t b = in.num_molecules;
    const int64_t components = (in.l_max + 1) * (in.l_max + 1);
    return {scaled.view({b, atoms, atoms, count}), envelope.view({b, atoms, atoms}),
            harmonics(directions, in.l_max).view({b, atoms, atoms, components})};
}

template <class T>
void run_layer(const State &state, const Geometry &edges, const Molecules &in,
               at::TensorList weights) {
    const Tensor &features = state.features;
    add<T>(attention(features, edges.invariants, edges.envelope, edges.harmonics, in.coefficients,
                     weights.slice(0, num_attention), in.heads),
           features);
    add<T>(feed_forward(features, weights.slice(num_attention, num_feed_forward)), features);
    const auto kick = weights[kick_place].expect_contiguous();
    const KickLayer<T> layer{int(features.size(2)),
                             int(features.size(3)),
                             kick->const_data_ptr<T>(),
                             in.position_scale.const_data_ptr<T>(),
                             in.velocity_scale.const_data_ptr<T>(),
                             T(in.time)};
    at::parallel_for(0, features.size(0) * features.size(1), grain_numbers / features.size(3),
                     [&](int64_t begin, int64_t end) {
                         cpu_kernels<T>().kick_and_drift(layer, features.const_data_ptr<T>(), begin,
                                                         end, state.positions.mutable_data_ptr<T>(),
                                                         state.velocities.mutable_data_ptr<T>());
                     });
}

Tensor copy(const Tensor &tensor) { return tensor.clone(at::MemoryFormat::Contiguous); }

Encoded encoder(const Tensor &positions, const Tensor &velocities, const Tensor &species,
                const Tensor &masses, const Tensor &level, const Tensor &position_scale,
                const Tensor &velocity_scale, const Tensor &invariant_scale,
                const Tensor &coefficients, at::TensorList weights, int64_t heads, double lag_time,
                double cutoff, double velocity_cutoff, int64_t n_max) {
    // Products of matrices inside would be of bfloat16.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const at::ScalarType dtype = positions.scalar_type();
    TORCH_CHECK_VALUE(positions.dim() == 3, name, ": expected positions of shape (B, A, 3), got ",
                      positions.sizes());
    TORCH_CHECK_VALUE(
        coefficients.dim() == 2 && position_scale.dim() == 1 && invariant_scale.dim() == 1, name,
        ": expected coefficients of two dimensions and scales of one, got ", coefficients.dim(),
        ", ", position_scale.dim(), " and ", invariant_scale.dim());
    TORCH_CHECK_VALUE(weights.size() > num_embedding &&
                          (weights.size() - num_embedding) % num_weights == 0,
                      name, ": expected ", num_embedding, " weights and ", num_weights,
                      " a layer, got ", weights.size());
    TORCH_CHECK_VALUE(weights[0].dim() == 2, name, ": expected features of elements of two ",
                      "dimensions, got ", weights[0].dim());
    const int64_t b = positions.size(0), a = positions.size(1), known = position_scale.size(0);
    const int64_t l_max = degree_of(coefficients.size(0)), channels = weights[0].size(1);
    const int64_t count = invariant_scale.size(0), all = n_max * (2 * l_max + 3);
    TORCH_CHECK_VALUE(count == n_max || count == all, name, ": expected a scale of ", n_max, " or ",
                      all, " invariants, got ", count);
    check_tensor(name, "positions", positions, {b, a, 3}, dtype);
    check_tensor(name, "velocities", velocities, {b, a, 3}, dtype);
    check_tensor(name, "species", species, {b, a}, at::kLong);
    check_tensor(name, "masses", masses, {b, a}, dtype);
    check_tensor(name, "level", level, {b}, dtype);
    check_tensor(name, "scale of positions", position_scale, {known}, dtype);
    check_tensor(name, "scale of velocities", velocity_scale, {known}, dtype);
    check_tensor(name, "scale of invariants", invariant_scale, {count}, dtype);
    check_tensor(name, "features of elements", weights[0], {known, channels}, dtype);
    check_tensor(name, "features of the level", weights[1], {channels, 1}, dtype);
    check_tensor(name, "matrix of velocities", weights[2],
                 {2 * channels, count == n_max ? 1 : n_max}, dtype);
    const at::TensorList layers = weights.slice(num_embedding);
    const size_t num_layers = layers.size() / num_weights;
    for (size_t layer = 0; layer < num_layers; layer++)
        check_tensor(name, "kick", layers[layer * num_weights + kick_place], {2, channels}, dtype);
    State state{{}, copy(positions), copy(velocities)};
    Geometry edges;
    AT_DISPATCH_FLOATING_TYPES(dtype, name, [&] {
        Molecules in = molecules_of<scalar_t>(species, masses, position_scale, velocity_scale,
                                              int64_t(num_layers));
        in.invariant_scale = invariant_scale.contiguous();
        in.coefficients = coefficients;
        in.heads = heads;
        in.l_max = l_max;
        in.n_max = n_max;
        in.time = lag_time / double(num_layers);
        in.cutoff = cutoff;
        in.velocity_cutoff = velocity_cutoff;
        state.features =
            embed<scalar_t>(species, state.velocities, level, weights.slice(0, num_embedding), in);
        edges = geometry_at<scalar_t>(state, in);
        for (size_t layer = 0; layer < num_layers; layer++) {
            run_layer<scalar_t>(state, edges, in, layers.slice(layer * num_weights, num_weights));
            edges = {};
            edges = geometry_at<scalar_t>(state, in);
        }
    });
    return {state.features,   state.positions, state.velocities,
            edges.invariants, edges.envelope,  edges.harmonics};
}

Encoded encoder_outputs(const Tensor &positions, const Tensor &, const Tensor &species,
                        const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                        const Tensor &invariant_scale, const Tensor &coefficients,
                        at::TensorList weights, int64_t, double, double, double, int64_t) {
    TORCH_CHECK_VALUE(positions.dim() == 3 && weights.size() > num_embedding, name,
                      ": expected positions of shape (B, A, 3) and weights, got ", positions.dim(),
                      " dimensions and ", weights.size(), " weights");
    const c10::SymInt b = species.sym_size(0), a = species.sym_size(1);
    const c10::SymInt components = coefficients.sym_size(0);
    const auto make = [&](c10::SymIntArrayRef shape) {
        return positions.new_empty_symint(shape, described(positions));
    };
    return {make({b, a, components, weights[0].sym_size(1)}),
            make({b, a, 3}),
            make({b, a, 3}),
            make({b, a, a, invariant_scale.sym_size(0)}),
            make({b, a, a}),
            make({b, a, a, components})};
}

} // namespace
} // namespace diffmd::ops::on_cpu

TORCH_LIBRARY_IMPL(diffmd, CPU, m) { m.impl("equivariant_encoder", diffmd::ops::on_cpu::encoder); }

TORCH_LIBRARY_IMPL(diffmd, Meta, m) {
    m.impl("equivariant_encoder", diffmd::ops::on_cpu::encoder_outputs);
}

// An error where a gradient is asked for, never a zero.
TORCH_LIBRARY_IMPL(diffmd, Autograd, m) {
    m.impl("equivariant_encoder", torch::autograd::autogradNotImplementedFallback());
}
