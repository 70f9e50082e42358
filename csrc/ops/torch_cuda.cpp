/*
 * The operators on CUDA tensors: allocation and launches. No header of CUDA or of torch's CUDA
 * part is needed, so that one library serves torch with and without CUDA.
 */
#include "launchers.h"
#include "outputs.h"
#include "table_builder.h"
#include "validation.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <dlfcn.h>
#include <map>
#include <mutex>
#include <tuple>

namespace diffmd::ops::on_cuda {
namespace {

/** The stream that torch enqueues on now, on a device. */
void *current_stream(const at::Device &device) {
    using Getter = int32_t(int32_t device_index, void **stream);
    // A plain C function of the library that holds torch's CUDA part; loaded, as there are tensors.
    static Getter *const getter = [] {
        void *const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
        TORCH_CHECK(library != nullptr, "diffmd: found CUDA tensors but no libtorch_cuda.so in "
                                        "this process, expected torch's own");
        void *const symbol = dlsym(library, "aoti_torch_get_current_cuda_stream");
        TORCH_CHECK(symbol != nullptr, "diffmd: found no aoti_torch_get_current_cuda_stream in "
                                       "libtorch_cuda.so, expected torch 2.2 or later");
        return reinterpret_cast<Getter *>(symbol);
    }();
    void *stream = nullptr;
    TORCH_CHECK(getter(device.index(), &stream) == 0, "diffmd: torch gave no CUDA stream");
    return stream;
}

/** The table with its coefficients on a device; kept for the life of the process. */
template <class T>
formulas::RadialTable<T> device_table(int l_max, int n_max, const at::Device &device) {
    // Never destroyed: at exit the driver may be gone before this library.
    static auto &tables = *new std::map<std::tuple<int, int, int>, Tensor>();
    static auto &mutex = *new std::mutex();
    formulas::RadialTable<T> table = radial_table<T>(l_max, n_max);
    const std::lock_guard lock(mutex);
    Tensor &coefficients = tables[{l_max, n_max, device.index()}];
    if (!coefficients.defined())
        coefficients =
            at::from_blob(const_cast<T *>(table.coefficients), {int64_t(num_coefficients(table))},
                          at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value))
                .to(device);
    table.coefficients = coefficients.const_data_ptr<T>();
    return table;
}

template <class T>
Features<T> arguments(const Tensor &vectors, double cutoff, int64_t l_max, int64_t n_max) {
    return {vectors.const_data_ptr<T>(), vectors.size(0), cutoff,
            device_table<T>(int(l_max), int(n_max), vectors.device())};
}

template <class T>
Invariants<T> arguments(const Tensor &vectors, const Tensor &velocities, const Tensor &edge_index,
                        double cutoff, double velocity_cutoff, int64_t l_max, int64_t n_max) {
    TORCH_CHECK(velocities.size(0) > 0 || vectors.size(0) == 0,
                "fourier_bessel_invariants: expected velocities of at least one node, got none");
    return {arguments<T>(vectors, cutoff, l_max, n_max), velocities.const_data_ptr<T>(),
            velocities.size(0), velocity_cutoff, edge_index.const_data_ptr<int64_t>()};
}

Tensor features(const Tensor &any_vectors, double cutoff, int64_t l_max, int64_t n_max) {
    const Tensor out = outputs::features(any_vectors, cutoff, l_max, n_max);
    const c10::DeviceGuard guard(out.device());
    const auto vectors = any_vectors.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "spherical_fourier_bessel", [&] {
        cuda::features_forward(arguments<scalar_t>(*vectors, cutoff, l_max, n_max),
                               out.mutable_data_ptr<scalar_t>(), current_stream(out.device()));
    });
    return out;
}

Tensor features_backward(const Tensor &any_grad, const Tensor &any_vectors, double cutoff,
                         int64_t l_max, int64_t n_max) {
    const Tensor out = outputs::features_backward(any_grad, any_vectors, cutoff, l_max, n_max);
    const c10::DeviceGuard guard(out.device());
    const auto vectors = any_vectors.expect_contiguous(), grad = any_grad.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "spherical_fourier_bessel_backward", [&] {
        cuda::features_backward(arguments<scalar_t>(*vectors, cutoff, l_max, n_max),
                                grad->const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(),
                                current_stream(out.device()));
    });
    return out;
}

/** The three tensors of a double backward in double, and outputs for its two. */
struct DoubleBackward {
    Tensor vectors, grad, direction, grad_values, grad_vectors;

    DoubleBackward(const Tensor &any_grad_grad, const Tensor &any_grad, const Tensor &any_vectors)
        : vectors(any_vectors.to(at::kDouble).contiguous()),
          grad(any_grad.to(at::kDouble).contiguous()),
          direction(any_grad_grad.to(at::kDouble).contiguous()),
          grad_values(at::empty(grad.sizes(), grad.options())),
          grad_vectors(at::empty(vectors.sizes(), vectors.options())) {}
    Tensors results(at::ScalarType dtype) const {
        return {grad_values.to(dtype), grad_vectors.to(dtype)};
    }
};

Tensors features_double_backward(const Tensor &grad_grad, const Tensor &grad, const Tensor &vectors,
                                 double cutoff, int64_t l_max, int64_t n_max) {
    outputs::features_double_backward(grad_grad, grad, vectors, cutoff, l_max, n_max);
    const c10::DeviceGuard guard(vectors.device());
    const DoubleBackward all(grad_grad, grad, vectors);
    cuda::features_double_backward(
        arguments<double>(all.vectors, cutoff, l_max, n_max), all.grad.const_data_ptr<double>(),
        all.direction.const_data_ptr<double>(), all.grad_values.mutable_data_ptr<double>(),
        all.grad_vectors.mutable_data_ptr<double>(), current_stream(vectors.device()));
    return all.results(vectors.scalar_type());
}

Tensor harmonics(const Tensor &any_vectors, int64_t l_max) {
    const Tensor out = outputs::harmonics(any_vectors, l_max);
    const c10::DeviceGuard guard(out.device());
    const auto vectors = any_vectors.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "solid_harmonics", [&] {
        cuda::harmonics_forward(vectors->const_data_ptr<scalar_t>(), out.size(0), int(l_max),
                                out.mutable_data_ptr<scalar_t>(), current_stream(out.device()));
    });
    return out;
}

Tensor harmonics_backward(const Tensor &any_grad, const Tensor &any_vectors, int64_t l_max) {
    const Tensor out = outputs::harmonics_backward(any_grad, any_vectors, l_max);
    const c10::DeviceGuard guard(out.device());
    const auto vectors = any_vectors.expect_contiguous(), grad = any_grad.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "solid_harmonics_backward", [&] {
        cuda::harmonics_backward(vectors->const_data_ptr<scalar_t>(),
                                 grad->const_data_ptr<scalar_t>(), out.size(0), int(l_max),
                                 out.mutable_data_ptr<scalar_t>(), current_stream(out.device()));
    });
    return out;
}

Tensors harmonics_double_backward(const Tensor &grad_grad, const Tensor &grad,
                                  const Tensor &vectors, int64_t l_max) {
    outputs::harmonics_double_backward(grad_grad, grad, vectors, l_max);
    const c10::DeviceGuard guard(vectors.device());
    const DoubleBackward all(grad_grad, grad, vectors);
    cuda::harmonics_double_backward(
        all.vectors.const_data_ptr<double>(), all.grad.const_data_ptr<double>(),
        all.direction.const_data_ptr<double>(), vectors.size(0), int(l_max),
        all.grad_values.mutable_data_ptr<double>(), all.grad_vectors.mutable_data_ptr<double>(),
        current_stream(vectors.device()));
    return all.results(vectors.scalar_type());
}

/** Memory for the velocities' radial functions, and their derivatives. */
template <class T> Tensor make_scratch(const Invariants<T> &in, int count, const Tensor &like) {
    const auto &table = in.edges.table;
    return at::empty({count, in.num_nodes, table.l_max + 1, table.n_padded}, like.options());
}

/**
 * Node numbers are not checked here, which would wait for the GPU: those out of range give NaN.
 */
Tensors invariants(const Tensor &any_vectors, const Tensor &any_velocities,
                   const Tensor &any_edge_index, double cutoff, double velocity_cutoff,
                   int64_t l_max, int64_t n_max) {
    const auto [out, envelope] = outputs::invariants(any_vectors, any_velocities, any_edge_index,
                                                     cutoff, velocity_cutoff, l_max, n_max);
    const c10::DeviceGuard guard(out.device());
    const auto vectors = any_vectors.expect_contiguous();
    const auto velocities = any_velocities.expect_contiguous();
    const auto edge_index = any_edge_index.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "fourier_bessel_invariants", [&] {
        const auto in = arguments<scalar_t>(*vectors, *velocities, *edge_index, cutoff,
                                            velocity_cutoff, l_max, n_max);
        const Tensor scratch = make_scratch(in, 1, out);
        cuda::invariants_forward(
            in, scratch.mutable_data_ptr<scalar_t>(), out.template mutable_data_ptr<scalar_t>(),
            envelope.template mutable_data_ptr<scalar_t>(), current_stream(out.device()));
    });
    return {out, envelope};
}

Tensors invariants_backward(const Tensor &any_grad_invariants, const Tensor &any_grad_envelope,
                            const Tensor &any_vectors, const Tensor &any_velocities,
                            const Tensor &any_edge_index, double cutoff, double velocity_cutoff,
                            int64_t l_max, int64_t n_max) {
    const auto [grad_vectors, grad_velocities] = outputs::invariants_backward(
        any_grad_invariants, any_grad_envelope, any_vectors, any_velocities, any_edge_index, cutoff,
        velocity_cutoff, l_max, n_max);
    const c10::DeviceGuard guard(any_vectors.device());
    const auto grad_invariants = any_grad_invariants.expect_contiguous();
    const auto grad_envelope = any_grad_envelope.expect_contiguous();
    const auto vectors = any_vectors.expect_contiguous();
    const auto velocities = any_velocities.expect_contiguous();
    const auto edge_index = any_edge_index.expect_contiguous();
    // Both ends of all edges by node: the same order of each node's sum in every run.
    const auto [nodes, order] =
        at::sort(edge_index->t().reshape({-1}), /*stable=*/true, /*dim=*/0, /*descending=*/false);
    const Tensor starts =
        at::searchsorted(nodes, at::arange(velocities->size(0) + 1, nodes.options()));
    AT_DISPATCH_FLOATING_TYPES(vectors->scalar_type(), "fourier_bessel_invariants_backward", [&] {
        const auto in = arguments<scalar_t>(*vectors, *velocities, *edge_index, cutoff,
                                            velocity_cutoff, l_max, n_max);
        const Tensor scratch = make_scratch(in, 2, *vectors);
        const Tensor edge_gradients = at::empty({in.edges.num_edges, 2, 3}, vectors->options());
        cuda::invariants_backward(
            in, grad_invariants->const_data_ptr<scalar_t>(),
            grad_envelope->const_data_ptr<scalar_t>(), scratch.mutable_data_ptr<scalar_t>(),
            edge_gradients.mutable_data_ptr<scalar_t>(), order.template const_data_ptr<int64_t>(),
            starts.const_data_ptr<int64_t>(), grad_vectors.template mutable_data_ptr<scalar_t>(),
            grad_velocities.template mutable_data_ptr<scalar_t>(),
            current_stream(vectors->device()));
    });
    return {grad_vectors, grad_velocities};
}

} // namespace
} // namespace diffmd::ops::on_cuda

TORCH_LIBRARY_IMPL(diffmd, CUDA, m) {
    m.impl("spherical_fourier_bessel", diffmd::ops::on_cuda::features);
    m.impl("spherical_fourier_bessel_backward", diffmd::ops::on_cuda::features_backward);
    m.impl("spherical_fourier_bessel_double_backward",
           diffmd::ops::on_cuda::features_double_backward);
    m.impl("fourier_bessel_invariants", diffmd::ops::on_cuda::invariants);
    m.impl("fourier_bessel_invariants_backward", diffmd::ops::on_cuda::invariants_backward);
    m.impl("solid_harmonics", diffmd::ops::on_cuda::harmonics);
    m.impl("solid_harmonics_backward", diffmd::ops::on_cuda::harmonics_backward);
    m.impl("solid_harmonics_double_backward", diffmd::ops::on_cuda::harmonics_double_backward);
}
