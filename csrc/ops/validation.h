#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

/*
 * What an operator refuses: shapes, dtypes, devices and ranges. Every backend's kernel calls
 * these first, so that all of them refuse the same with the same words ("expected ..., got ...").
 */
namespace diffmd::ops {

/** Vectors (E,3) of float32 or float64; `name` is the operator's, `what` the argument's. */
void check_vectors(const char *name, const char *what, const at::Tensor &vectors);

/** A tensor that goes with the vectors: same dtype and device, and this shape. */
void check_like(const char *name, const char *what, const at::Tensor &tensor,
                const at::Tensor &vectors, c10::SymIntArrayRef shape);

/** l_max. */
void check_degree(const char *name, int64_t l_max);

/** cutoff, l_max, n_max. */
void check_basis(const char *name, double cutoff, int64_t l_max, int64_t n_max);

/** Arguments of fourier_bessel_invariants; not the values in edge_index. */
void check_invariants(const char *name, const at::Tensor &vectors, const at::Tensor &velocities,
                      const at::Tensor &edge_index, double cutoff, double velocity_cutoff,
                      int64_t l_max, int64_t n_max);

/** The values of an edge_index (2,E) in main memory: node numbers, 0..num_nodes-1. */
void check_edge_range(const char *name, const int64_t *edge_index, int64_t num_edges,
                      int64_t num_nodes);

} // namespace diffmd::ops
