#include "outputs.h"

#include "validation.h"

#include <ATen/EmptyTensor.h>
#include <torch/library.h>

namespace diffmd::ops::outputs {

namespace {

int64_t components(int64_t l_max) { return (l_max + 1) * (l_max + 1); }

/** An output on the vectors' device; on the CPU without two calls of the dispatcher. */
Tensor allocate(const Tensor &vectors, c10::SymIntArrayRef shape) {
    if (vectors.is_cpu())
        if (const auto sizes = c10::asIntArrayRefSlowOpt(shape))
            return at::detail::empty_cpu(*sizes, vectors.scalar_type());
    return vectors.new_empty_symint(shape);
}

} // namespace

Tensor features(const Tensor &vectors, double cutoff, int64_t l_max, int64_t n_max) {
    constexpr const char *name = "spherical_fourier_bessel";
    check_vectors(name, "vectors", vectors);
    check_basis(name, cutoff, l_max, n_max);
    return allocate(vectors, {vectors.sym_size(0), components(l_max), n_max});
}

Tensor features_backward(const Tensor &grad, const Tensor &vectors, double cutoff, int64_t l_max,
                         int64_t n_max) {
    constexpr const char *name = "spherical_fourier_bessel_backward";
    check_vectors(name, "vectors", vectors);
    check_basis(name, cutoff, l_max, n_max);
    check_like(name, "grad", grad, vectors, {vectors.sym_size(0), components(l_max), n_max});
    return allocate(vectors, vectors.sym_sizes());
}

Tensors features_double_backward(const Tensor &grad_grad, const Tensor &grad, const Tensor &vectors,
                                 double cutoff, int64_t l_max, int64_t n_max) {
    constexpr const char *name = "spherical_fourier_bessel_double_backward";
    check_vectors(name, "vectors", vectors);
    check_basis(name, cutoff, l_max, n_max);
    check_like(name, "grad_grad", grad_grad, vectors, vectors.sym_sizes());
    check_like(name, "grad", grad, vectors, {vectors.sym_size(0), components(l_max), n_max});
    return {allocate(vectors, grad.sym_sizes()), allocate(vectors, vectors.sym_sizes())};
}

Tensors invariants(const Tensor &vectors, const Tensor &velocities, const Tensor &edge_index,
                   double cutoff, double velocity_cutoff, int64_t l_max, int64_t n_max) {
    check_invariants("fourier_bessel_invariants", vectors, velocities, edge_index, cutoff,
                     velocity_cutoff, l_max, n_max);
    return {allocate(vectors, {vectors.sym_size(0), n_max * (2 * l_max + 3)}),
            allocate(vectors, {vectors.sym_size(0)})};
}

Tensors invariants_backward(const Tensor &grad_invariants, const Tensor &grad_envelope,
                            const Tensor &vectors, const Tensor &velocities,
                            const Tensor &edge_index, double cutoff, double velocity_cutoff,
                            int64_t l_max, int64_t n_max) {
    constexpr const char *name = "fourier_bessel_invariants_backward";
    check_invariants(name, vectors, velocities, edge_index, cutoff, velocity_cutoff, l_max, n_max);
    check_like(name, "grad_invariants", grad_invariants, vectors,
               {vectors.sym_size(0), n_max * (2 * l_max + 3)});
    check_like(name, "grad_envelope", grad_envelope, vectors, {vectors.sym_size(0)});
    return {allocate(vectors, vectors.sym_sizes()), allocate(vectors, velocities.sym_sizes())};
}

Tensor harmonics(const Tensor &vectors, int64_t l_max) {
    check_vectors("solid_harmonics", "vectors", vectors);
    check_degree("solid_harmonics", l_max);
    return allocate(vectors, {vectors.sym_size(0), components(l_max)});
}

Tensor harmonics_backward(const Tensor &grad, const Tensor &vectors, int64_t l_max) {
    constexpr const char *name = "solid_harmonics_backward";
    check_vectors(name, "vectors", vectors);
    check_degree(name, l_max);
    check_like(name, "grad", grad, vectors, {vectors.sym_size(0), components(l_max)});
    return allocate(vectors, vectors.sym_sizes());
}

Tensors harmonics_double_backward(const Tensor &grad_grad, const Tensor &grad,
                                  const Tensor &vectors, int64_t l_max) {
    constexpr const char *name = "solid_harmonics_double_backward";
    check_vectors(name, "vectors", vectors);
    check_degree(name, l_max);
    check_like(name, "grad_grad", grad_grad, vectors, vectors.sym_sizes());
    check_like(name, "grad", grad, vectors, {vectors.sym_size(0), components(l_max)});
    return {allocate(vectors, grad.sym_sizes()), allocate(vectors, vectors.sym_sizes())};
}

} // namespace diffmd::ops::outputs

using namespace diffmd::ops;

// For torch.export, torch.compile and fake tensors.
TORCH_LIBRARY_IMPL(diffmd, Meta, m) {
    m.impl("spherical_fourier_bessel", outputs::features);
    m.impl("spherical_fourier_bessel_backward", outputs::features_backward);
    m.impl("spherical_fourier_bessel_double_backward", outputs::features_double_backward);
    m.impl("fourier_bessel_invariants", outputs::invariants);
    m.impl("fourier_bessel_invariants_backward", outputs::invariants_backward);
    m.impl("solid_harmonics", outputs::harmonics);
    m.impl("solid_harmonics_backward", outputs::harmonics_backward);
    m.impl("solid_harmonics_double_backward", outputs::harmonics_double_backward);
}
