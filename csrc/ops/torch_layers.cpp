/*
 * Layers of the Transformer on CPU tensors, each as one operator without gradient: of a network
 * of small matrices torch's own operators take longer to be called than to run.
 */
#include "cpu/kernels.h"
#include "on_cpu.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace diffmd::ops::on_cpu {
namespace {

/** Multiplications below which another thread costs more than it saves. */
constexpr int64_t grain = 1'000'000;

/** Rows that are enough work for a thread. */
int64_t grain_of(int64_t multiplications_per_row) {
    return std::max<int64_t>(1, grain / std::max<int64_t>(1, multiplications_per_row));
}

/** What can be said of features whose sizes are symbols. */
void check_kind(const char *name, const Tensor &features) {
    TORCH_CHECK_VALUE(features.dim() == 4, name, ": expected features of shape (B, A, D, C), got ",
                      features.dim(), " dimensions");
    TORCH_CHECK_TYPE(features.scalar_type() == at::kFloat || features.scalar_type() == at::kDouble,
                     name, ": expected features of float32 or float64, got ",
                     features.scalar_type());
}

/** What the arguments of one call must be; says the rest of "NAME: expected ..., got ...". */
class Arguments {
public:
    Arguments(const char *name, const Tensor &features) : name(name), features(features) {
        check_kind(name, features);
        TORCH_CHECK_VALUE(features.size(3) > 0, name, ": expected at least one channel, got 0");
        l_max = degree_of(features.size(2));
        TORCH_CHECK_VALUE((l_max + 1) * (l_max + 1) == features.size(2) &&
                              l_max <= max_layer_degree,
                          name, ": expected 4, 9 or 16 components, got ", features.size(2));
    }
    const Tensor &check(const char *what, const Tensor &tensor, at::IntArrayRef shape) const {
        TORCH_CHECK_VALUE(tensor.sizes() == shape, name, ": expected ", what, " of shape ", shape,
                          ", got ", tensor.sizes());
        TORCH_CHECK_TYPE(tensor.scalar_type() == features.scalar_type(), name, ": expected ", what,
                         " of the features' dtype ", features.scalar_type(), ", got ",
                         tensor.scalar_type());
        TORCH_CHECK(tensor.device() == features.device(), name, ": expected ", what,
                    " on the features' device ", features.device(), ", got ", tensor.device());
        return tensor;
    }
    void check_count(at::TensorList weights, size_t count) const {
        TORCH_CHECK_VALUE(weights.size() == count, name, ": expected ", count, " weights, got ",
                          weights.size());
    }

    int64_t l_max;

private:
    const char *name;
    const Tensor &features;
};

/** Contiguous tensors, kept as long as the pointers to them. */
class Contiguous {
public:
    template <class T> const T *operator()(const Tensor &tensor) {
        return kept.emplace_back(tensor.expect_contiguous())->template const_data_ptr<T>();
    }

private:
    std::vector<c10::MaybeOwned<Tensor>> kept;
};

/** Sizes of equivariant_attention, checked. */
struct AttentionSizes {
    int64_t l_max, components, channels, edge_channels, invariants, paths;

    AttentionSizes(const Tensor &features, const Tensor &seen, const Tensor &envelope,
                   const Tensor &harmonics, const Tensor &coefficients, at::TensorList weights,
                   int64_t heads) {
        constexpr const char *name = "equivariant_attention";
        const Arguments arguments(name, features);
        arguments.check_count(weights, num_attention);
        l_max = arguments.l_max;
        const int64_t b = features.size(0), a = features.size(1), degrees = l_max + 1;
        components = degrees * degrees;
        channels = features.size(3);
        TORCH_CHECK_VALUE(seen.dim() == 4 && seen.size(3) > 0, name,
                          ": expected invariants of shape (B, A, A, I), I > 0, got ", seen.sizes());
        invariants = seen.size(3);
        arguments.check("invariants", seen, {b, a, a, invariants});
        arguments.check("envelope", envelope, {b, a, a});
        arguments.check("harmonics", harmonics, {b, a, a, components});
        paths = num_paths(int(l_max));
        arguments.check("coefficients", coefficients, {components, num_columns(int(l_max))});
        TORCH_CHECK_VALUE(weights[5].dim() == 1, name, ": expected an edge's bias of one ",
                          "dimension, got ", weights[5].sizes());
        edge_channels = weights[5].size(0);
        TORCH_CHECK_VALUE(heads > 0 && edge_channels > 0 && edge_channels % heads == 0, name,
                          ": expected a number of heads that divides ", edge_channels, ", got ",
                          heads);
        arguments.check("norm's weight", weights[0], {channels});
        arguments.check("norm's bias", weights[1], {channels});
        arguments.check("norm's weight of degrees", weights[2], {degrees, channels});
        arguments.check("matrix of ends", weights[3], {channels, 2 * edge_channels});
        arguments.check("matrix of edges", weights[4], {invariants, edge_channels});
        arguments.check("bias of edges", weights[5], {edge_channels});
        arguments.check("matrix of logits", weights[6], {edge_channels, heads});
        arguments.check("bias of logits", weights[7], {heads});
        arguments.check("matrix of filters", weights[8], {edge_channels, paths * channels});
        arguments.check("matrices of values", weights[9], {degrees, channels, channels});
        arguments.check("matrices of messages", weights[10], {degrees, channels, channels});
        arguments.check("bias of messages", weights[11], {channels});
    }
};

} // namespace

void check_tensor(const char *name, const char *what, const Tensor &tensor, at::IntArrayRef shape,
                  at::ScalarType dtype) {
    TORCH_CHECK_VALUE(tensor.sizes() == shape, name, ": expected ", what, " of shape ", shape,
                      ", got ", tensor.sizes());
    TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, name, ": expected ", what, " of dtype ", dtype,
                     ", got ", tensor.scalar_type());
}

Tensor attention(const Tensor &features, const Tensor &invariants, const Tensor &envelope,
                 const Tensor &harmonics, const Tensor &coefficients, at::TensorList weights,
                 int64_t heads) {
    const AttentionSizes sizes(features, invariants, envelope, harmonics, coefficients, weights,
                               heads);
    const Tensor out = at::empty(features.sizes(), features.options());
    const int64_t atoms = features.size(1), rows = features.size(0) * atoms;
    AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "equivariant_attention", [&] {
        using T = scalar_t;
        Contiguous pointer;
        const auto of = [&](const Tensor &tensor) { return pointer.operator()<T>(tensor); };
        const AttentionLayer<T> layer{int(sizes.l_max),
                                      int(sizes.channels),
                                      int(heads),
                                      int(sizes.edge_channels),
                                      int(sizes.invariants),
                                      {of(weights[0]), of(weights[1]), of(weights[2])},
                                      of(weights[3]),
                                      of(weights[4]),
                                      of(weights[5]),
                                      of(weights[6]),
                                      of(weights[7]),
                                      of(weights[8]),
                                      of(weights[9]),
                                      of(weights[10]),
                                      of(weights[11]),
                                      of(coefficients)};
        const LayerEdges<T> edges{int(atoms), of(invariants), of(envelope), of(harmonics)};
        const T *const from = of(features);
        const Tensor memory =
            at::empty({rows * (2 * sizes.edge_channels + sizes.components * sizes.channels)},
                      features.options());
        T *const ends = memory.mutable_data_ptr<T>();
        T *const values = ends + rows * 2 * sizes.edge_channels;
        T *const to = out.mutable_data_ptr<T>();
        const int64_t mixed = sizes.components * sizes.channels * sizes.channels;
        at::parallel_for(0, rows, grain_of(mixed + 2 * sizes.edge_channels * sizes.channels),
                         [&](int64_t begin, int64_t end) {
                             std::vector<T> scratch(attention_atoms_scratch(layer));
                             cpu_kernels<T>().attention_atoms(layer, from, begin, end, ends, values,
                                                              scratch.data());
                         });
        const int64_t edge =
            sizes.edge_channels * (sizes.invariants + heads + sizes.paths * sizes.channels);
        at::parallel_for(0, rows, grain_of(mixed + atoms * edge), [&](int64_t begin, int64_t end) {
            std::vector<T> scratch(attention_messages_scratch(layer, atoms));
            std::vector<const T *> neighbours(atoms);
            cpu_kernels<T>().attention_messages(layer, edges, ends, values, begin, end, to,
                                                scratch.data(), neighbours.data());
        });
    });
    return out;
}

namespace {

Tensor attention_output(const Tensor &features, const Tensor &, const Tensor &, const Tensor &,
                        const Tensor &, at::TensorList, int64_t) {
    check_kind("equivariant_attention", features);
    return at::empty_like(features, described(features), at::MemoryFormat::Contiguous);
}

/** Width of equivariant_feed_forward and its degree, checked. */
struct FeedForwardSizes {
    int64_t l_max, channels, width;

    FeedForwardSizes(const Tensor &features, at::TensorList weights) {
        const Arguments arguments("equivariant_feed_forward", features);
        arguments.check_count(weights, num_feed_forward);
        l_max = arguments.l_max;
        channels = features.size(3);
        const int64_t degrees = l_max + 1;
        TORCH_CHECK_VALUE(weights[6].dim() == 1,
                          "equivariant_feed_forward: expected a hidden bias of one dimension, got ",
                          weights[6].sizes());
        width = weights[6].size(0);
        arguments.check("norm's weight", weights[0], {channels});
        arguments.check("norm's bias", weights[1], {channels});
        arguments.check("norm's weight of degrees", weights[2], {degrees, channels});
        arguments.check("left matrices", weights[3], {degrees, channels, channels});
        arguments.check("right matrices", weights[4], {degrees, channels, channels});
        arguments.check("hidden matrix", weights[5], {degrees * channels, width});
        arguments.check("hidden bias", weights[6], {width});
        arguments.check("matrix of gates", weights[7], {width, degrees * channels});
        arguments.check("bias of gates", weights[8], {degrees * channels});
    }
};

} // namespace

Tensor feed_forward(const Tensor &features, at::TensorList weights) {
    const FeedForwardSizes sizes(features, weights);
    const Tensor out = at::empty(features.sizes(), features.options());
    const int64_t rows = features.size(0) * features.size(1);
    AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "equivariant_feed_forward", [&] {
        using T = scalar_t;
        Contiguous pointer;
        const auto of = [&](const Tensor &tensor) { return pointer.operator()<T>(tensor); };
        const FeedForwardLayer<T> layer{
            int(sizes.l_max), int(sizes.channels),
            int(sizes.width), {of(weights[0]), of(weights[1]), of(weights[2])},
            of(weights[3]),   of(weights[4]),
            of(weights[5]),   of(weights[6]),
            of(weights[7]),   of(weights[8])};
        const T *const from = of(features);
        T *const to = out.mutable_data_ptr<T>();
        const int64_t mixed = 2 * features.size(2) * sizes.channels * sizes.channels;
        const int64_t gated = 2 * sizes.width * (sizes.l_max + 1) * sizes.channels;
        at::parallel_for(0, rows, grain_of(mixed + gated), [&](int64_t begin, int64_t end) {
            std::vector<T> scratch(feed_forward_scratch(layer));
            cpu_kernels<T>().feed_forward(layer, from, begin, end, to, scratch.data());
        });
    });
    return out;
}

namespace {

Tensor feed_forward_output(const Tensor &features, at::TensorList) {
    check_kind("equivariant_feed_forward", features);
    return at::empty_like(features, described(features), at::MemoryFormat::Contiguous);
}

} // namespace
} // namespace diffmd::ops::on_cpu

TORCH_LIBRARY_IMPL(diffmd, CPU, m) {
    m.impl("equivariant_attention", diffmd::ops::on_cpu::attention);
    m.impl("equivariant_feed_forward", diffmd::ops::on_cpu::feed_forward);
}

TORCH_LIBRARY_IMPL(diffmd, Meta, m) {
    m.impl("equivariant_attention", diffmd::ops::on_cpu::attention_output);
    m.impl("equivariant_feed_forward", diffmd::ops::on_cpu::feed_forward_output);
}

// An error where a gradient is asked for, never a zero.
TORCH_LIBRARY_IMPL(diffmd, Autograd, m) {
    m.impl("equivariant_attention", torch::autograd::autogradNotImplementedFallback());
    m.impl("equivariant_feed_forward", torch::autograd::autogradNotImplementedFallback());
}
