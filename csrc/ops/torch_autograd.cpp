/*
 * Gradients, in C++ so that TorchScript in a host without Python has them too. A backward goes
 * through the dispatcher, so it is an operator with a gradient of its own where there is one.
 *
 * The nodes of the graph are ours, as torch's own operators have theirs: with
 * torch::autograd::Function a call takes 1 us more, as long as the kernel of 50 edges, and
 * torch.func refuses it.
 */
#include "torch_ops.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/library.h>

#include <algorithm>

namespace diffmd::ops {
namespace {

namespace compiled = torch::dynamo::autograd;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

/*
 * What can be differentiated: an operator, and the one that is its gradient. That takes gradients
 * of the outputs and then the operator's own arguments, and gives gradients of the first of them.
 */
struct FeaturesGradient {
    static constexpr const char *name = "diffmd::spherical_fourier_bessel";
    static constexpr const char *gradient = "diffmd::spherical_fourier_bessel_backward";
    using Signature = FeaturesSignature;
    using GradientSignature = FeaturesBackwardSignature;
};
struct FeaturesSecondGradient {
    static constexpr const char *name = "diffmd::spherical_fourier_bessel_backward";
    static constexpr const char *gradient = "diffmd::spherical_fourier_bessel_double_backward";
    using Signature = FeaturesBackwardSignature;
    using GradientSignature = FeaturesDoubleBackwardSignature;
};
struct InvariantsGradient {
    static constexpr const char *name = "diffmd::fourier_bessel_invariants";
    static constexpr const char *gradient = "diffmd::fourier_bessel_invariants_backward";
    using Signature = InvariantsSignature;
    using GradientSignature = InvariantsBackwardSignature;
};
struct HarmonicsGradient {
    static constexpr const char *name = "diffmd::solid_harmonics";
    static constexpr const char *gradient = "diffmd::solid_harmonics_backward";
    using Signature = HarmonicsSignature;
    using GradientSignature = HarmonicsBackwardSignature;
};
struct HarmonicsSecondGradient {
    static constexpr const char *name = "diffmd::solid_harmonics_backward";
    static constexpr const char *gradient = "diffmd::solid_harmonics_double_backward";
    using Signature = HarmonicsBackwardSignature;
    using GradientSignature = HarmonicsDoubleBackwardSignature;
};

template <class Signature> auto find(const char *name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

/* Arguments are tensors, or numbers for which there is nothing to do. */
bool requires_grad(const Tensor &tensor) { return tensor.requires_grad(); }
template <class Number> bool requires_grad(Number) { return false; }

bool has_tangent(const Tensor &tensor) { return torch::autograd::isFwGradDefined(tensor); }
template <class Number> bool has_tangent(Number) { return false; }

SavedVariable save(const Tensor &tensor) { return {tensor, /*is_output=*/false}; }
template <class Number> Number save(Number number) { return number; }

Tensor saved(const SavedVariable &variable) { return variable.unpack(); }
template <class Number> Number saved(Number number) { return number; }

void release(SavedVariable &variable) { variable.reset_data(); }
template <class Number> void release(Number &) {}

void collect(compiled::CompiledNodeArgs &args, const SavedVariable &variable) {
    args.collect(variable, /*is_output=*/false);
}
template <class Number> void collect(compiled::CompiledNodeArgs &args, Number number) {
    args.collect(number);
}

/* Outputs are a tensor, or a tuple of tensors. */
template <class Use> void for_each_tensor(const Tensor &tensor, Use use) { use(tensor); }
template <class Use> void for_each_tensor(const Tensors &tensors, Use use) {
    std::apply([&](const auto &...one) { (use(one), ...); }, tensors);
}

template <class Definition> const auto &forward_operator() {
    static const auto op = find<typename Definition::Signature>(Definition::name);
    return op;
}
template <class Definition> const auto &gradient_operator() {
    static const auto op = find<typename Definition::GradientSignature>(Definition::gradient);
    return op;
}

/** A node of the graph: keeps a call's arguments until its gradient is asked for. */
template <class Definition, class Output, class... Arguments>
class GradientNode final : public torch::autograd::Node {
public:
    explicit GradientNode(const Arguments &...arguments) : kept(save(arguments)...) {
        const auto add_edge = [this](const auto &argument) {
            if constexpr (std::is_same_v<decltype(argument), const Tensor &>)
                if (num_outputs() < num_gradients)
                    add_next_edge(torch::autograd::impl::gradient_edge(argument));
        };
        (add_edge(arguments), ...);
    }
    std::string name() const override { return Definition::gradient; }
    void release_variables() override {
        const std::lock_guard lock(mutex_);
        std::apply([](auto &...one) { (release(one), ...); }, kept);
    }

    // For compiled autograd, which puts the gradient into its graph as a function of its own.
    void compiled_args(compiled::CompiledNodeArgs &args) const override {
        std::apply([&](const auto &...one) { (collect(args, one), ...); }, kept);
    }
    variable_list apply_with_saved(const variable_list &grads,
                                   compiled::SwapSavedVariables &traced) override {
        std::apply([&](auto &...one) { (traced.before(one), ...); }, kept);
        compiled::PackedArgs packed;
        std::apply([&](const auto &...one) { (packed.pack(one), ...); }, arguments());
        std::vector<at::TypePtr> types;
        for (const c10::IValue &value : packed.vec())
            types.push_back(value.isTensor() ? at::TensorType::get() : value.type());
        const auto &python = compiled::getPyCompilerInterface();
        const std::string function =
            python->bind_function(traced.get_py_compiler(), name(), from_values, types,
                                  /*is_custom_function=*/true, /*is_traceable=*/false);
        variable_list out = python->call_function(
            traced.get_py_compiler(), "apply_functional", function, grads, packed.vec(),
            compiled::IValuePacker<std::vector<std::optional<torch::autograd::InputMetadata>>>::
                pack(compiled::get_input_metadata(next_edges())));
        std::apply([&](auto &...one) { (traced.after(one), ...); }, kept);
        return out;
    }

protected:
    variable_list apply(variable_list &&grads) override {
        const std::lock_guard lock(mutex_);
        // Where an output was not used.
        for (std::size_t i = 0; i < grads.size(); i++)
            if (!grads[i].defined())
                grads[i] = input_metadata(i).zeros_like();
        return gradients(grads, arguments());
    }

private:
    using Plain = std::tuple<std::decay_t<Arguments>...>;

    Plain arguments() const {
        return std::apply([](const auto &...one) { return Plain{saved(one)...}; }, kept);
    }

    static variable_list gradients(const variable_list &grads, const Plain &arguments) {
        const auto values = std::apply(
            [&](const auto &...one) {
                const auto &op = gradient_operator<Definition>();
                if constexpr (std::is_same_v<Output, Tensor>)
                    return op.call(grads[0], one...);
                else
                    return op.call(grads[0], grads[1], one...);
            },
            arguments);
        variable_list out;
        out.reserve(num_gradients);
        for_each_tensor(values, [&](const Tensor &value) { out.push_back(value); });
        return out;
    }

    static variable_list from_values(const variable_list &some_grads,
                                     const std::vector<c10::IValue> &values) {
        compiled::PackedArgs packed(values);
        const Plain arguments{packed.unpack<std::decay_t<Arguments>>()...};
        if (std::all_of(some_grads.begin(), some_grads.end(),
                        [](const Tensor &grad) { return grad.defined(); }))
            return gradients(some_grads, arguments);
        // The shape of an output that was not used: from the operator.
        variable_list grads;
        for_each_tensor(
            std::apply(
                [](const auto &...one) { return forward_operator<Definition>().call(one...); },
                arguments),
            [&](const Tensor &output) {
                const Tensor &grad = some_grads[grads.size()];
                grads.push_back(grad.defined() ? grad : at::zeros_like(output));
            });
        return gradients(grads, arguments);
    }

    using Gradients =
        typename c10::guts::function_traits<typename Definition::GradientSignature>::return_type;
    static constexpr std::size_t num_gradients = std::is_same_v<Gradients, Tensor> ? 1 : 2;
    std::tuple<decltype(save(std::declval<Arguments>()))...> kept;
};

/** The operator's kernel for the key Autograd. */
template <class Definition, class Signature = typename Definition::Signature> struct Differentiable;
template <class Definition, class Output, class... Arguments>
struct Differentiable<Definition, Output(Arguments...)> {
    static Output call(c10::DispatchKeySet keys, Arguments... arguments) {
        TORCH_CHECK_NOT_IMPLEMENTED(!(has_tangent(arguments) || ...), Definition::name,
                                    ": jvp is not implemented, use the backward mode");
        c10::intrusive_ptr<torch::autograd::Node> node;
        if (at::GradMode::is_enabled() && (requires_grad(arguments) || ...))
            node =
                c10::make_intrusive<GradientNode<Definition, Output, Arguments...>>(arguments...);
        const auto out = [&] {
            const at::AutoDispatchBelowADInplaceOrView below;
            return forward_operator<Definition>().redispatch(
                keys & c10::after_ADInplaceOrView_keyset, arguments...);
        }();
        if (node)
            for_each_tensor(
                out, [&](const Tensor &tensor) { torch::autograd::set_history(tensor, node); });
        return out;
    }
};

} // namespace
} // namespace diffmd::ops

TORCH_LIBRARY_IMPL(diffmd, Autograd, m) {
    using namespace diffmd::ops;
    m.impl("spherical_fourier_bessel", Differentiable<FeaturesGradient>::call);
    m.impl("spherical_fourier_bessel_backward", Differentiable<FeaturesSecondGradient>::call);
    m.impl("fourier_bessel_invariants", Differentiable<InvariantsGradient>::call);
    m.impl("solid_harmonics", Differentiable<HarmonicsGradient>::call);
    m.impl("solid_harmonics_backward", Differentiable<HarmonicsSecondGradient>::call);
    // One order more throws: "derivative for ... is not implemented".
    m.impl("spherical_fourier_bessel_double_backward",
           torch::autograd::autogradNotImplementedFallback());
    m.impl("fourier_bessel_invariants_backward", torch::autograd::autogradNotImplementedFallback());
    m.impl("solid_harmonics_double_backward", torch::autograd::autogradNotImplementedFallback());
}
