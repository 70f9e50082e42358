#pragma once

#include "../launchers.h"
#include "../layers.h"

namespace diffmd::ops {

/**
 * The CPU kernels of one instruction set. Each does a range of edges (or nodes), so that the
 * caller can share the work among threads; ranges may run at the same time.
 */
template <class T> struct CpuKernels {
    /** @param stream  whether to write past the caches; @param out  (E,(L+1)^2,M) */
    void (*features_forward)(const Features<T> &in, int64_t begin, int64_t end, bool stream,
                             T *out);
    /** @param grad  (E,(L+1)^2,M), @param grad_out  (E,3) */
    void (*features_backward)(const Features<T> &in, const T *grad, int64_t begin, int64_t end,
                              T *grad_out);
    /**
     * What each node's velocity gives to its edges.
     *
     * @param scaled      (N,4): the velocity over its cutoff, and the square of that
     * @param radial      (N,L+1,n_padded): radial functions with their envelope
     * @param derivative  (N,L+1,n_padded): their derivatives with respect to the square; may be
     *                    null
     */
    void (*velocity_radial)(const Invariants<T> &in, int64_t begin, int64_t end, T *scaled,
                            T *radial, T *derivative);
    /** @param invariants  (E,M (1+2(L+1))), @param envelope  (E) */
    void (*invariants_forward)(const Invariants<T> &in, const T *scaled, const T *radial,
                               int64_t begin, int64_t end, T *invariants, T *envelope);
    /**
     * @param grad_vectors    (E,3)
     * @param edge_gradients  (E,2,3): each edge's part of its two velocities' gradients
     */
    void (*invariants_backward)(const Invariants<T> &in, const T *scaled, const T *radial,
                                const T *derivative, const T *grad_invariants,
                                const T *grad_envelope, int64_t begin, int64_t end, T *grad_vectors,
                                T *edge_gradients);
    /** @param out  (E,(l_max+1)^2) */
    void (*harmonics_forward)(const T *vectors, int l_max, int64_t begin, int64_t end, T *out);
    /** @param grad  (E,(l_max+1)^2), @param grad_out  (E,3) */
    void (*harmonics_backward)(const T *vectors, const T *grad, int l_max, int64_t begin,
                               int64_t end, T *grad_out);
    /** What atoms give to their edges. @param features, values  (R,D,C), @param ends  (R,2E) */
    void (*attention_atoms)(const AttentionLayer<T> &layer, const T *features, int64_t begin,
                            int64_t end, T *ends, T *values, T *scratch);
    /** Messages to atoms, mixed. @param from  room for A addresses, @param to  (R,D,C) */
    void (*attention_messages)(const AttentionLayer<T> &layer, const LayerEdges<T> &edges,
                               const T *ends, const T *values, int64_t begin, int64_t end, T *to,
                               T *scratch, const T **from);
    /** @param features, to  (R,D,C) */
    void (*feed_forward)(const FeedForwardLayer<T> &layer, const T *features, int64_t begin,
                         int64_t end, T *to, T *scratch);
    /** @param features  (R,D,C), @param positions, velocities  (R,3): moved */
    void (*kick_and_drift)(const KickLayer<T> &layer, const T *features, int64_t begin, int64_t end,
                           T *positions, T *velocities);
};

/** The best set that this machine's CPU runs. */
template <class T> const CpuKernels<T> &cpu_kernels();

} // namespace diffmd::ops
