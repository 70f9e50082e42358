// Launchers of fourier_bessel_invariants.

#include "launch.cuh"
#include "operators.h"

namespace diffmd::ops::cuda {

template <class T>
void invariants_forward(const Invariants<T> &in, T *scratch, T *invariants, T *envelope,
                        void *stream) {
    run_invariants_forward(in, scratch, invariants, envelope, on_stream(stream));
}

template <class T>
void invariants_backward(const Invariants<T> &in, const T *grad_invariants, const T *grad_envelope,
                         T *scratch, T *edge_gradients, const int64_t *order, const int64_t *starts,
                         T *grad_vectors, T *grad_velocities, void *stream) {
    run_invariants_backward(in, grad_invariants, grad_envelope, scratch, edge_gradients, order,
                            starts, grad_vectors, grad_velocities, on_stream(stream));
}

template void invariants_forward(const Invariants<float> &, float *, float *, float *, void *);
template void invariants_forward(const Invariants<double> &, double *, double *, double *, void *);
template void invariants_backward(const Invariants<float> &, const float *, const float *, float *,
                                  float *, const int64_t *, const int64_t *, float *, float *,
                                  void *);
template void invariants_backward(const Invariants<double> &, const double *, const double *,
                                  double *, double *, const int64_t *, const int64_t *, double *,
                                  double *, void *);

} // namespace diffmd::ops::cuda
