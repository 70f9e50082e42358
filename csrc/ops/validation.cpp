#include "validation.h"

#include "formulas/macros.h"

#include <cmath>

namespace diffmd::ops {

using formulas::max_degree;
using formulas::max_radial;

namespace {

void check_cutoff(const char *name, const char *what, double cutoff) {
    TORCH_CHECK(std::isfinite(cutoff) && cutoff > 0, name, ": expected a positive ", what, ", got ",
                cutoff);
}

} // namespace

void check_vectors(const char *name, const char *what, const at::Tensor &vectors) {
    TORCH_CHECK_VALUE(vectors.dim() == 2 && vectors.sym_size(1) == 3, name, ": expected ", what,
                      " of shape (*, 3), got ", vectors.sym_sizes());
    TORCH_CHECK_TYPE(vectors.scalar_type() == at::kFloat || vectors.scalar_type() == at::kDouble,
                     name, ": expected ", what, " of float32 or float64, got ",
                     vectors.scalar_type());
    TORCH_CHECK_VALUE(vectors.layout() == at::kStrided, name, ": expected dense ", what, ", got ",
                      vectors.layout());
}

void check_like(const char *name, const char *what, const at::Tensor &tensor,
                const at::Tensor &vectors, c10::SymIntArrayRef shape) {
    TORCH_CHECK_VALUE(tensor.sym_sizes() == shape, name, ": expected ", what, " of shape ", shape,
                      ", got ", tensor.sym_sizes());
    TORCH_CHECK_TYPE(tensor.scalar_type() == vectors.scalar_type(), name, ": expected ", what,
                     " of the vectors' dtype ", vectors.scalar_type(), ", got ",
                     tensor.scalar_type());
    TORCH_CHECK(tensor.device() == vectors.device(), name, ": expected ", what,
                " on the vectors' device ", vectors.device(), ", got ", tensor.device());
}

void check_degree(const char *name, int64_t l_max) {
    TORCH_CHECK_VALUE(0 <= l_max && l_max <= max_degree, name, ": expected l_max from 0 to ",
                      max_degree, ", got ", l_max);
}

void check_basis(const char *name, double cutoff, int64_t l_max, int64_t n_max) {
    check_cutoff(name, "cutoff", cutoff);
    check_degree(name, l_max);
    TORCH_CHECK_VALUE(1 <= n_max && n_max <= max_radial, name, ": expected n_max from 1 to ",
                      max_radial, ", got ", n_max);
}

void check_invariants(const char *name, const at::Tensor &vectors, const at::Tensor &velocities,
                      const at::Tensor &edge_index, double cutoff, double velocity_cutoff,
                      int64_t l_max, int64_t n_max) {
    check_vectors(name, "vectors", vectors);
    check_vectors(name, "velocities", velocities);
    check_like(name, "velocities", velocities, vectors, velocities.sym_sizes());
    TORCH_CHECK_VALUE(edge_index.dim() == 2 && edge_index.sym_size(0) == 2 &&
                          edge_index.sym_size(1) == vectors.sym_size(0),
                      name, ": expected edge_index of shape (2, ", vectors.sym_size(0), "), got ",
                      edge_index.sym_sizes());
    TORCH_CHECK_TYPE(edge_index.scalar_type() == at::kLong, name,
                     ": expected edge_index of int64, got ", edge_index.scalar_type());
    TORCH_CHECK(edge_index.device() == vectors.device(), name,
                ": expected edge_index on the vectors' device ", vectors.device(), ", got ",
                edge_index.device());
    check_basis(name, cutoff, l_max, n_max);
    check_cutoff(name, "velocity_cutoff", velocity_cutoff);
}

void check_edge_range(const char *name, const int64_t *edge_index, int64_t num_edges,
                      int64_t num_nodes) {
    // The sign bit is set where an index, or what is left above it, is negative.
    uint64_t outside = 0;
    for (int64_t k = 0; k < 2 * num_edges; k++)
        outside |= uint64_t(edge_index[k]) | (uint64_t(num_nodes) - 1 - uint64_t(edge_index[k]));
    if (int64_t(outside) >= 0)
        return;
    for (int64_t k = 0; k < 2 * num_edges; k++)
        TORCH_CHECK_INDEX(0 <= edge_index[k] && edge_index[k] < num_nodes, name,
                          ": expected edge_index from 0 to ", num_nodes - 1, ", got ",
                          edge_index[k], " at edge ", k % num_edges);
}

} // namespace diffmd::ops
