#pragma once

#include "formulas/radial_table.h"

#include <cstdint>

/*
 * The kernels, as functions of raw pointers: neither torch nor CUDA is seen here. Arrays are
 * contiguous; T is float or double; E edges, N nodes, L = l_max, M = n_max of the table, whose
 * coefficients are where the other arrays are. Arguments were validated above.
 */
namespace diffmd::ops {

using formulas::RadialTable;

/** Phi_lmn(r) = u Q_ln S_lm of spherical_fourier_bessel. */
template <class T> struct Features {
    /** (E,3), length unit of the cutoff. */
    const T *vectors;
    int64_t num_edges;
    double cutoff;
    RadialTable<T> table;
};

/** What fourier_bessel_invariants takes. */
template <class T> struct Invariants {
    Features<T> edges;
    /** (N,3), and their cutoff. */
    const T *velocities;
    int64_t num_nodes;
    double velocity_cutoff;
    /** (2,E): i, then j. */
    const int64_t *edge_index;
};

/*
 * On the GPU: whole operators, enqueued on a CUDA stream. Defined in cuda/, for float and
 * double. They throw std::runtime_error with CUDA's message where a launch fails.
 */
namespace cuda {

/** @param out  (E,(L+1)^2,M) */
template <class T> void features_forward(const Features<T> &in, T *out, void *stream);

/**
 * @param grad      (E,(L+1)^2,M) gradient of the features
 * @param grad_out  (E,3) gradient of the vectors
 */
template <class T>
void features_backward(const Features<T> &in, const T *grad, T *grad_out, void *stream);

/**
 * Derivatives along a direction, in double precision only.
 *
 * @param grad, direction  (E,(L+1)^2,M), (E,3)
 * @param grad_features    (E,(L+1)^2,M) derivative of the features
 * @param grad_vectors     (E,3) derivative of what the backward gives
 */
void features_double_backward(const Features<double> &in, const double *grad,
                              const double *direction, double *grad_features, double *grad_vectors,
                              void *stream);

/**
 * @param scratch     (N,L+1,n_padded): the velocities' radial functions with their envelope
 * @param invariants  (E, M (1+2(L+1)))
 * @param envelope    (E)
 */
template <class T>
void invariants_forward(const Invariants<T> &in, T *scratch, T *invariants, T *envelope,
                        void *stream);

/**
 * @param grad_invariants, grad_envelope  gradients of the outputs
 * @param scratch          (2,N,L+1,n_padded): as above, then their derivatives
 * @param edge_gradients   (E,2,3): each edge's part of its two velocities' gradients
 * @param order, starts    (2E), (N+1): positions 2e (i) and 2e+1 (j) of edge_gradients sorted by
 *                         node, stably, and where each node's begin: the sum over a node's edges
 *                         has the same order in every run
 * @param grad_vectors, grad_velocities  (E,3), (N,3)
 */
template <class T>
void invariants_backward(const Invariants<T> &in, const T *grad_invariants, const T *grad_envelope,
                         T *scratch, T *edge_gradients, const int64_t *order, const int64_t *starts,
                         T *grad_vectors, T *grad_velocities, void *stream);

/** @param out  (E,(L+1)^2) */
template <class T>
void harmonics_forward(const T *vectors, int64_t num_edges, int l_max, T *out, void *stream);

/** @param grad  (E,(L+1)^2), @param grad_out  (E,3) */
template <class T>
void harmonics_backward(const T *vectors, const T *grad, int64_t num_edges, int l_max, T *grad_out,
                        void *stream);

/** As features_double_backward; @param grad, grad_harmonics  (E,(L+1)^2) */
void harmonics_double_backward(const double *vectors, const double *grad, const double *direction,
                               int64_t num_edges, int l_max, double *grad_harmonics,
                               double *grad_vectors, void *stream);

} // namespace cuda
} // namespace diffmd::ops
