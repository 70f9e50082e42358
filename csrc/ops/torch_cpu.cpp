/* The operators on CPU tensors: allocation, threads, and the kernels' ranges. */
#include "cpu/kernels.h"
#include "double_backward.h"
#include "on_cpu.h"
#include "outputs.h"
#include "table_builder.h"
#include "validation.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <sys/mman.h>
#include <unistd.h>

namespace diffmd::ops::on_cpu {
namespace {

/** Edges below which another thread costs more than it saves. */
constexpr int64_t grain = 2048;

/**
 * Whether an output is so large that writing it past the caches is better: above half of the last
 * level, of which no more is counted than eight second levels, for others may be using it too (a
 * virtual machine sees the whole of it).
 */
bool past_caches(const Tensor &out) {
    static const int64_t ours = [] {
        const auto known = [](long size, int64_t otherwise) {
            return size > 0 ? int64_t(size) : otherwise;
        };
        return std::min(known(sysconf(_SC_LEVEL3_CACHE_SIZE), int64_t(16) << 20) / 2,
                        known(sysconf(_SC_LEVEL2_CACHE_SIZE), int64_t(1) << 20) * 8);
    }();
    return int64_t(out.nbytes()) > ours;
}

/**
 * Ask for large pages under a large output, which malloc has just mapped for it: the first touch
 * of small ones takes several times as long as the kernel.
 */
void ask_for_large_pages([[maybe_unused]] void *start, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_HUGEPAGE
    constexpr std::size_t page = 2 << 20;
    // glibc serves requests of at least this size by a mapping of their own.
    constexpr std::size_t always_mapped = 32 << 20;
    if (bytes < always_mapped)
        return;
    const auto address = reinterpret_cast<std::uintptr_t>(start);
    const std::uintptr_t begin = (address + page - 1) / page * page;
    const std::uintptr_t end = (address + bytes) / page * page;
    // Advice: nothing is lost where it is not taken.
    (void)madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

template <class T>
Features<T> arguments(const Tensor &vectors, double cutoff, int64_t l_max, int64_t n_max) {
    return {vectors.const_data_ptr<T>(), vectors.size(0), cutoff,
            radial_table<T>(int(l_max), int(n_max))};
}

} // namespace

Tensor features(const Tensor &any_vectors, double cutoff, int64_t l_max, int64_t n_max) {
    const Tensor out = outputs::features(any_vectors, cutoff, l_max, n_max);
    const auto vectors = any_vectors.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "spherical_fourier_bessel", [&] {
        const auto in = arguments<scalar_t>(*vectors, cutoff, l_max, n_max);
        const bool stream = past_caches(out);
        scalar_t *const to = out.mutable_data_ptr<scalar_t>();
        ask_for_large_pages(to, out.nbytes());
        at::parallel_for(0, in.num_edges, grain, [&](int64_t begin, int64_t end) {
            cpu_kernels<scalar_t>().features_forward(in, begin, end, stream, to);
        });
    });
    return out;
}

namespace {

Tensor features_backward(const Tensor &any_grad, const Tensor &any_vectors, double cutoff,
                         int64_t l_max, int64_t n_max) {
    const Tensor out = outputs::features_backward(any_grad, any_vectors, cutoff, l_max, n_max);
    const auto vectors = any_vectors.expect_contiguous(), grad = any_grad.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "spherical_fourier_bessel_backward", [&] {
        const auto in = arguments<scalar_t>(*vectors, cutoff, l_max, n_max);
        const scalar_t *const from = grad->const_data_ptr<scalar_t>();
        scalar_t *const to = out.mutable_data_ptr<scalar_t>();
        at::parallel_for(0, in.num_edges, grain, [&](int64_t begin, int64_t end) {
            cpu_kernels<scalar_t>().features_backward(in, from, begin, end, to);
        });
    });
    return out;
}

Tensors features_double_backward(const Tensor &any_grad_grad, const Tensor &any_grad,
                                 const Tensor &any_vectors, double cutoff, int64_t l_max,
                                 int64_t n_max) {
    const auto [grad_features, grad_vectors] = outputs::features_double_backward(
        any_grad_grad, any_grad, any_vectors, cutoff, l_max, n_max);
    const Tensor vectors = any_vectors.to(at::kDouble).contiguous();
    const Tensor grad = any_grad.to(at::kDouble).contiguous();
    const Tensor direction = any_grad_grad.to(at::kDouble).contiguous();
    const Tensor out_features = at::empty(grad.sizes(), grad.options());
    const Tensor out_vectors = at::empty(vectors.sizes(), vectors.options());
    const auto in = arguments<double>(vectors, cutoff, l_max, n_max);
    at::parallel_for(0, in.num_edges, grain / 16, [&](int64_t begin, int64_t end) {
        ops::features_double_backward(
            in, grad.const_data_ptr<double>(), direction.const_data_ptr<double>(), begin, end,
            out_features.mutable_data_ptr<double>(), out_vectors.mutable_data_ptr<double>());
    });
    return {out_features.to(grad_features.scalar_type()),
            out_vectors.to(grad_vectors.scalar_type())};
}

} // namespace

Tensor harmonics(const Tensor &any_vectors, int64_t l_max) {
    const Tensor out = outputs::harmonics(any_vectors, l_max);
    const auto vectors = any_vectors.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "solid_harmonics", [&] {
        const scalar_t *const from = vectors->const_data_ptr<scalar_t>();
        scalar_t *const to = out.mutable_data_ptr<scalar_t>();
        at::parallel_for(0, out.size(0), grain, [&](int64_t begin, int64_t end) {
            cpu_kernels<scalar_t>().harmonics_forward(from, int(l_max), begin, end, to);
        });
    });
    return out;
}

namespace {

Tensor harmonics_backward(const Tensor &any_grad, const Tensor &any_vectors, int64_t l_max) {
    const Tensor out = outputs::harmonics_backward(any_grad, any_vectors, l_max);
    const auto vectors = any_vectors.expect_contiguous(), grad = any_grad.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "solid_harmonics_backward", [&] {
        const scalar_t *const from = vectors->const_data_ptr<scalar_t>();
        const scalar_t *const gradients = grad->const_data_ptr<scalar_t>();
        scalar_t *const to = out.mutable_data_ptr<scalar_t>();
        at::parallel_for(0, out.size(0), grain, [&](int64_t begin, int64_t end) {
            cpu_kernels<scalar_t>().harmonics_backward(from, gradients, int(l_max), begin, end, to);
        });
    });
    return out;
}

Tensors harmonics_double_backward(const Tensor &any_grad_grad, const Tensor &any_grad,
                                  const Tensor &any_vectors, int64_t l_max) {
    const auto [grad_harmonics, grad_vectors] =
        outputs::harmonics_double_backward(any_grad_grad, any_grad, any_vectors, l_max);
    const Tensor vectors = any_vectors.to(at::kDouble).contiguous();
    const Tensor grad = any_grad.to(at::kDouble).contiguous();
    const Tensor direction = any_grad_grad.to(at::kDouble).contiguous();
    const Tensor out_harmonics = at::empty(grad.sizes(), grad.options());
    const Tensor out_vectors = at::empty(vectors.sizes(), vectors.options());
    at::parallel_for(0, vectors.size(0), grain / 16, [&](int64_t begin, int64_t end) {
        ops::harmonics_double_backward(
            vectors.const_data_ptr<double>(), int(l_max), grad.const_data_ptr<double>(),
            direction.const_data_ptr<double>(), begin, end,
            out_harmonics.mutable_data_ptr<double>(), out_vectors.mutable_data_ptr<double>());
    });
    return {out_harmonics.to(grad_harmonics.scalar_type()),
            out_vectors.to(grad_vectors.scalar_type())};
}

/** What each node's velocity gives to its edges, in one allocation. */
template <class T> struct VelocityScratch {
    Tensor memory;
    T *scaled, *radial, *derivative = nullptr;

    VelocityScratch(const Invariants<T> &in, const Tensor &velocities, bool derivatives) {
        const int64_t nodes = in.num_nodes;
        const int64_t row = (in.edges.table.l_max + 1) * in.edges.table.n_padded;
        memory = at::empty({nodes * (4 + (derivatives ? 2 : 1) * row)}, velocities.options());
        scaled = memory.mutable_data_ptr<T>();
        radial = scaled + 4 * nodes;
        if (derivatives)
            derivative = radial + nodes * row;
        at::parallel_for(0, nodes, grain, [&](int64_t begin, int64_t end) {
            cpu_kernels<T>().velocity_radial(in, begin, end, scaled, radial, derivative);
        });
    }
};

} // namespace

Tensors invariants(const Tensor &any_vectors, const Tensor &any_velocities,
                   const Tensor &any_edge_index, double cutoff, double velocity_cutoff,
                   int64_t l_max, int64_t n_max) {
    const auto [out, envelope] = outputs::invariants(any_vectors, any_velocities, any_edge_index,
                                                     cutoff, velocity_cutoff, l_max, n_max);
    const auto vectors = any_vectors.expect_contiguous();
    const auto velocities = any_velocities.expect_contiguous();
    const auto edge_index = any_edge_index.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "fourier_bessel_invariants", [&] {
        const Invariants<scalar_t> in{arguments<scalar_t>(*vectors, cutoff, l_max, n_max),
                                      velocities->const_data_ptr<scalar_t>(), velocities->size(0),
                                      velocity_cutoff, edge_index->const_data_ptr<int64_t>()};
        check_edge_range("fourier_bessel_invariants", in.edge_index, in.edges.num_edges,
                         in.num_nodes);
        const VelocityScratch<scalar_t> nodes(in, *velocities, false);
        scalar_t *const to = out.template mutable_data_ptr<scalar_t>();
        scalar_t *const to_envelope = envelope.template mutable_data_ptr<scalar_t>();
        at::parallel_for(0, in.edges.num_edges, grain, [&](int64_t begin, int64_t end) {
            cpu_kernels<scalar_t>().invariants_forward(in, nodes.scaled, nodes.radial, begin, end,
                                                       to, to_envelope);
        });
    });
    return {out, envelope};
}

namespace {

/**
 * Sum the edges' gradients into those of their nodes. Each node's sum has the order of the edges
 * whatever the number of threads: a thread owns a range of nodes and reads all edges.
 */
template <class T>
void sum_over_edges(const T *edge_gradients, const int64_t *edge_index, int64_t num_edges,
                    int64_t num_nodes, T *out) {
    std::fill(out, out + 3 * num_nodes, T(0));
    const int64_t threads =
        num_edges < grain ? 1 : std::min<int64_t>(at::get_num_threads(), num_nodes);
    at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
        const int64_t begin = num_nodes * first / threads, end = num_nodes * last / threads;
        for (int64_t e = 0; e < num_edges; e++)
            for (int end_of_edge = 0; end_of_edge < 2; end_of_edge++) {
                const int64_t node = edge_index[end_of_edge * num_edges + e];
                if (node < begin || node >= end)
                    continue;
                const T *const from = edge_gradients + 6 * e + 3 * end_of_edge;
                for (int k = 0; k < 3; k++)
                    out[3 * node + k] += from[k];
            }
    });
}

Tensors invariants_backward(const Tensor &any_grad_invariants, const Tensor &any_grad_envelope,
                            const Tensor &any_vectors, const Tensor &any_velocities,
                            const Tensor &any_edge_index, double cutoff, double velocity_cutoff,
                            int64_t l_max, int64_t n_max) {
    const auto [grad_vectors, grad_velocities] = outputs::invariants_backward(
        any_grad_invariants, any_grad_envelope, any_vectors, any_velocities, any_edge_index, cutoff,
        velocity_cutoff, l_max, n_max);
    const auto grad_invariants = any_grad_invariants.expect_contiguous();
    const auto grad_envelope = any_grad_envelope.expect_contiguous();
    const auto vectors = any_vectors.expect_contiguous();
    const auto velocities = any_velocities.expect_contiguous();
    const auto edge_index = any_edge_index.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(vectors->scalar_type(), "fourier_bessel_invariants_backward", [&] {
        const Invariants<scalar_t> in{arguments<scalar_t>(*vectors, cutoff, l_max, n_max),
                                      velocities->const_data_ptr<scalar_t>(), velocities->size(0),
                                      velocity_cutoff, edge_index->const_data_ptr<int64_t>()};
        check_edge_range("fourier_bessel_invariants_backward", in.edge_index, in.edges.num_edges,
                         in.num_nodes);
        const VelocityScratch<scalar_t> nodes(in, *velocities, true);
        const Tensor edge_gradients = at::empty({in.edges.num_edges, 2, 3}, vectors->options());
        scalar_t *const to_edges = edge_gradients.mutable_data_ptr<scalar_t>();
        scalar_t *const to = grad_vectors.template mutable_data_ptr<scalar_t>();
        at::parallel_for(0, in.edges.num_edges, grain, [&](int64_t begin, int64_t end) {
            cpu_kernels<scalar_t>().invariants_backward(
                in, nodes.scaled, nodes.radial, nodes.derivative,
                grad_invariants->const_data_ptr<scalar_t>(),
                grad_envelope->const_data_ptr<scalar_t>(), begin, end, to, to_edges);
        });
        sum_over_edges<scalar_t>(to_edges, in.edge_index, in.edges.num_edges, in.num_nodes,
                                 grad_velocities.template mutable_data_ptr<scalar_t>());
    });
    return {grad_vectors, grad_velocities};
}

} // namespace
} // namespace diffmd::ops::on_cpu

TORCH_LIBRARY_IMPL(diffmd, CPU, m) {
    m.impl("spherical_fourier_bessel", diffmd::ops::on_cpu::features);
    m.impl("spherical_fourier_bessel_backward", diffmd::ops::on_cpu::features_backward);
    m.impl("spherical_fourier_bessel_double_backward",
           diffmd::ops::on_cpu::features_double_backward);
    m.impl("fourier_bessel_invariants", diffmd::ops::on_cpu::invariants);
    m.impl("fourier_bessel_invariants_backward", diffmd::ops::on_cpu::invariants_backward);
    m.impl("solid_harmonics", diffmd::ops::on_cpu::harmonics);
    m.impl("solid_harmonics_backward", diffmd::ops::on_cpu::harmonics_backward);
    m.impl("solid_harmonics_double_backward", diffmd::ops::on_cpu::harmonics_double_backward);
}
