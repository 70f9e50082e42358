/*
 * Gradients, in C++ so that TorchScript in a host without Python has them too. A backward goes
 * through the dispatcher, so it is an operator with a gradient of its own where there is one.
 */
#include "torch_ops.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace diffmd::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class Signature> auto find(const char *name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

/** Whether a call has to be recorded. */
template <class... Inputs> bool recorded(const Inputs &...inputs) {
    return (at::GradMode::is_enabled() && (inputs.requires_grad() || ...)) ||
           (torch::autograd::isFwGradDefined(inputs) || ...);
}

/** Keep what is no tensor: in one entry, for each costs as much as the kernel of 10 edges. */
template <class... Scalars> void save_scalars(AutogradContext *ctx, Scalars... scalars) {
    ctx->saved_data["scalars"] = c10::ivalue::Tuple::create(scalars...);
}
template <class... Scalars> std::tuple<Scalars...> saved_scalars(AutogradContext *ctx) {
    return ctx->saved_data["scalars"].to<std::tuple<Scalars...>>();
}

const auto &features_operator() {
    static const auto op = find<FeaturesSignature>("diffmd::spherical_fourier_bessel");
    return op;
}
const auto &features_backward_operator() {
    static const auto op =
        find<FeaturesBackwardSignature>("diffmd::spherical_fourier_bessel_backward");
    return op;
}
const auto &features_double_backward_operator() {
    static const auto op =
        find<FeaturesDoubleBackwardSignature>("diffmd::spherical_fourier_bessel_double_backward");
    return op;
}
const auto &invariants_operator() {
    static const auto op = find<InvariantsSignature>("diffmd::fourier_bessel_invariants");
    return op;
}
const auto &invariants_backward_operator() {
    static const auto op =
        find<InvariantsBackwardSignature>("diffmd::fourier_bessel_invariants_backward");
    return op;
}
const auto &harmonics_operator() {
    static const auto op = find<HarmonicsSignature>("diffmd::solid_harmonics");
    return op;
}
const auto &harmonics_backward_operator() {
    static const auto op = find<HarmonicsBackwardSignature>("diffmd::solid_harmonics_backward");
    return op;
}
const auto &harmonics_double_backward_operator() {
    static const auto op =
        find<HarmonicsDoubleBackwardSignature>("diffmd::solid_harmonics_double_backward");
    return op;
}

struct FeaturesFunction : torch::autograd::Function<FeaturesFunction> {
    static Tensor forward(AutogradContext *ctx, const Tensor &vectors, double cutoff, int64_t l_max,
                          int64_t n_max) {
        const at::AutoDispatchBelowADInplaceOrView below;
        ctx->save_for_backward({vectors});
        save_scalars(ctx, cutoff, l_max, n_max);
        return features_operator().call(vectors, cutoff, l_max, n_max);
    }
    static variable_list backward(AutogradContext *ctx, const variable_list &grads) {
        const auto [cutoff, l_max, n_max] = saved_scalars<double, int64_t, int64_t>(ctx);
        return {features_backward_operator().call(grads[0], ctx->get_saved_variables()[0], cutoff,
                                                  l_max, n_max),
                Tensor(), Tensor(), Tensor()};
    }
};

struct FeaturesBackwardFunction : torch::autograd::Function<FeaturesBackwardFunction> {
    static Tensor forward(AutogradContext *ctx, const Tensor &grad, const Tensor &vectors,
                          double cutoff, int64_t l_max, int64_t n_max) {
        const at::AutoDispatchBelowADInplaceOrView below;
        ctx->save_for_backward({grad, vectors});
        save_scalars(ctx, cutoff, l_max, n_max);
        return features_backward_operator().call(grad, vectors, cutoff, l_max, n_max);
    }
    static variable_list backward(AutogradContext *ctx, const variable_list &grads) {
        const auto [cutoff, l_max, n_max] = saved_scalars<double, int64_t, int64_t>(ctx);
        const variable_list saved = ctx->get_saved_variables();
        auto [grad, vectors] = features_double_backward_operator().call(
            grads[0], saved[0], saved[1], cutoff, l_max, n_max);
        return {grad, vectors, Tensor(), Tensor(), Tensor()};
    }
};

struct InvariantsFunction : torch::autograd::Function<InvariantsFunction> {
    static variable_list forward(AutogradContext *ctx, const Tensor &vectors,
                                 const Tensor &velocities, const Tensor &edge_index, double cutoff,
                                 double velocity_cutoff, int64_t l_max, int64_t n_max) {
        const at::AutoDispatchBelowADInplaceOrView below;
        ctx->save_for_backward({vectors, velocities, edge_index});
        save_scalars(ctx, cutoff, velocity_cutoff, l_max, n_max);
        auto [invariants, envelope] = invariants_operator().call(
            vectors, velocities, edge_index, cutoff, velocity_cutoff, l_max, n_max);
        return {invariants, envelope};
    }
    static variable_list backward(AutogradContext *ctx, const variable_list &grads) {
        const auto [cutoff, velocity_cutoff, l_max, n_max] =
            saved_scalars<double, double, int64_t, int64_t>(ctx);
        const variable_list saved = ctx->get_saved_variables();
        auto [vectors, velocities] =
            invariants_backward_operator().call(grads[0], grads[1], saved[0], saved[1], saved[2],
                                                cutoff, velocity_cutoff, l_max, n_max);
        return {vectors, velocities, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

struct HarmonicsFunction : torch::autograd::Function<HarmonicsFunction> {
    static Tensor forward(AutogradContext *ctx, const Tensor &vectors, int64_t l_max) {
        const at::AutoDispatchBelowADInplaceOrView below;
        ctx->save_for_backward({vectors});
        save_scalars(ctx, l_max);
        return harmonics_operator().call(vectors, l_max);
    }
    static variable_list backward(AutogradContext *ctx, const variable_list &grads) {
        return {harmonics_backward_operator().call(grads[0], ctx->get_saved_variables()[0],
                                                   std::get<0>(saved_scalars<int64_t>(ctx))),
                Tensor()};
    }
};

struct HarmonicsBackwardFunction : torch::autograd::Function<HarmonicsBackwardFunction> {
    static Tensor forward(AutogradContext *ctx, const Tensor &grad, const Tensor &vectors,
                          int64_t l_max) {
        const at::AutoDispatchBelowADInplaceOrView below;
        ctx->save_for_backward({grad, vectors});
        save_scalars(ctx, l_max);
        return harmonics_backward_operator().call(grad, vectors, l_max);
    }
    static variable_list backward(AutogradContext *ctx, const variable_list &grads) {
        const variable_list saved = ctx->get_saved_variables();
        auto [grad, vectors] = harmonics_double_backward_operator().call(
            grads[0], saved[0], saved[1], std::get<0>(saved_scalars<int64_t>(ctx)));
        return {grad, vectors, Tensor()};
    }
};

Tensor features(c10::DispatchKeySet keys, const Tensor &vectors, double cutoff, int64_t l_max,
                int64_t n_max) {
    if (!recorded(vectors))
        return features_operator().redispatch(keys & c10::after_autograd_keyset, vectors, cutoff,
                                              l_max, n_max);
    return FeaturesFunction::apply(vectors, cutoff, l_max, n_max);
}

Tensor features_backward(c10::DispatchKeySet keys, const Tensor &grad, const Tensor &vectors,
                         double cutoff, int64_t l_max, int64_t n_max) {
    if (!recorded(grad, vectors))
        return features_backward_operator().redispatch(keys & c10::after_autograd_keyset, grad,
                                                       vectors, cutoff, l_max, n_max);
    return FeaturesBackwardFunction::apply(grad, vectors, cutoff, l_max, n_max);
}

Tensors invariants(c10::DispatchKeySet keys, const Tensor &vectors, const Tensor &velocities,
                   const Tensor &edge_index, double cutoff, double velocity_cutoff, int64_t l_max,
                   int64_t n_max) {
    if (!recorded(vectors, velocities))
        return invariants_operator().redispatch(keys & c10::after_autograd_keyset, vectors,
                                                velocities, edge_index, cutoff, velocity_cutoff,
                                                l_max, n_max);
    const variable_list out = InvariantsFunction::apply(vectors, velocities, edge_index, cutoff,
                                                        velocity_cutoff, l_max, n_max);
    return {out[0], out[1]};
}

Tensor harmonics(c10::DispatchKeySet keys, const Tensor &vectors, int64_t l_max) {
    if (!recorded(vectors))
        return harmonics_operator().redispatch(keys & c10::after_autograd_keyset, vectors, l_max);
    return HarmonicsFunction::apply(vectors, l_max);
}

Tensor harmonics_backward(c10::DispatchKeySet keys, const Tensor &grad, const Tensor &vectors,
                          int64_t l_max) {
    if (!recorded(grad, vectors))
        return harmonics_backward_operator().redispatch(keys & c10::after_autograd_keyset, grad,
                                                        vectors, l_max);
    return HarmonicsBackwardFunction::apply(grad, vectors, l_max);
}

} // namespace
} // namespace diffmd::ops

TORCH_LIBRARY_IMPL(diffmd, Autograd, m) {
    m.impl("spherical_fourier_bessel", diffmd::ops::features);
    m.impl("spherical_fourier_bessel_backward", diffmd::ops::features_backward);
    m.impl("fourier_bessel_invariants", diffmd::ops::invariants);
    m.impl("solid_harmonics", diffmd::ops::harmonics);
    m.impl("solid_harmonics_backward", diffmd::ops::harmonics_backward);
    // One order more throws: "derivative for ... is not implemented".
    m.impl("spherical_fourier_bessel_double_backward",
           torch::autograd::autogradNotImplementedFallback());
    m.impl("fourier_bessel_invariants_backward", torch::autograd::autogradNotImplementedFallback());
    m.impl("solid_harmonics_double_backward", torch::autograd::autogradNotImplementedFallback());
}
