#pragma once

#include "features.h"
#include "harmonics.h"
#include "invariants.h"

/*
 * Each operator as its kernels, one after the other. `run(kernel, grid)` is launch() on the GPU
 * and run_on_host() in the tests.
 */
namespace diffmd::ops::cuda {

/** body(Int<l_max>{}): the kernels that are unrolled over the components know l_max. */
template <int LMax = 0, class Body> void with_degree(int l_max, Body &&body) {
    if (l_max == LMax)
        body(formulas::Int<LMax>{});
    else if constexpr (LMax < formulas::max_degree)
        with_degree<LMax + 1>(l_max, body);
}

template <class Kernel, class Run> void run_tiled(Kernel kernel, int64_t num_rows, Run &&run) {
    const Grid grid = fit_tile(kernel, num_rows);
    run(kernel, grid);
}

template <class T, class Run> void run_features_forward(const Features<T> &in, T *out, Run &&run) {
    with_degree(in.table.l_max, [&](auto degree) {
        run_tiled(FeaturesForward<T, decltype(degree)::value>{in, out, 0}, in.num_edges, run);
    });
}

template <class T, class Run>
void run_features_backward(const Features<T> &in, const T *grad, T *grad_out, Run &&run) {
    with_degree(in.table.l_max, [&](auto degree) {
        run_tiled(FeaturesBackward<T, decltype(degree)::value>{in, grad, grad_out, 0}, in.num_edges,
                  run);
    });
}

template <class Run>
void run_features_double_backward(const Features<double> &in, const double *grad,
                                  const double *direction, double *grad_features,
                                  double *grad_vectors, Run &&run) {
    with_degree(in.table.l_max, [&](auto degree) {
        run_tiled(FeaturesDoubleBackward<decltype(degree)::value>{in, grad, direction,
                                                                  grad_features, grad_vectors, 0},
                  in.num_edges, run);
    });
}

template <class T, class Run>
void run_invariants_forward(const Invariants<T> &in, T *scratch, T *invariants, T *envelope,
                            Run &&run) {
    run_tiled(NodesRadial<T>{in.velocities, in.num_nodes, in.velocity_cutoff, in.edges.table,
                             scratch, nullptr, 0},
              in.num_nodes, run);
    run_tiled(InvariantsForward<T>{in, scratch, invariants, envelope, 0}, in.edges.num_edges, run);
}

template <class T, class Run>
void run_invariants_backward(const Invariants<T> &in, const T *grad_invariants,
                             const T *grad_envelope, T *scratch, T *edge_gradients,
                             const int64_t *order, const int64_t *starts, T *grad_vectors,
                             T *grad_velocities, Run &&run) {
    T *const derivatives = scratch + in.num_nodes * formulas::layer(in.edges.table);
    run_tiled(NodesRadial<T>{in.velocities, in.num_nodes, in.velocity_cutoff, in.edges.table,
                             scratch, derivatives, 0},
              in.num_nodes, run);
    run_tiled(InvariantsBackward<T>{in, scratch, derivatives, grad_invariants, grad_envelope,
                                    grad_vectors, edge_gradients, 0},
              in.edges.num_edges, run);
    const NodesSum<T> sum{edge_gradients, order, starts, in.num_nodes, grad_velocities};
    run(sum, Grid{(in.num_nodes + sum.tile - 1) / sum.tile, 0});
}

template <class T, class Run>
void run_harmonics_forward(const T *vectors, int64_t num_edges, int l_max, T *out, Run &&run) {
    with_degree(l_max, [&](auto degree) {
        run_tiled(HarmonicsForward<T, decltype(degree)::value>{vectors, num_edges, out, 0},
                  num_edges, run);
    });
}

template <class T, class Run>
void run_harmonics_backward(const T *vectors, const T *grad, int64_t num_edges, int l_max,
                            T *grad_out, Run &&run) {
    with_degree(l_max, [&](auto degree) {
        run_tiled(HarmonicsBackward<T, T, decltype(degree)::value>{vectors, grad, num_edges,
                                                                   grad_out, nullptr, nullptr, 0},
                  num_edges, run);
    });
}

template <class Run>
void run_harmonics_double_backward(const double *vectors, const double *grad,
                                   const double *direction, int64_t num_edges, int l_max,
                                   double *grad_harmonics, double *grad_vectors, Run &&run) {
    with_degree(l_max, [&](auto degree) {
        using Kernel = HarmonicsBackward<formulas::Dual<double>, double, decltype(degree)::value>;
        run_tiled(Kernel{vectors, grad, num_edges, grad_vectors, direction, grad_harmonics, 0},
                  num_edges, run);
    });
}

} // namespace diffmd::ops::cuda
