// Launchers of solid_harmonics.

#include "launch.cuh"
#include "operators.h"

namespace diffmd::ops::cuda {

template <class T>
void harmonics_forward(const T *vectors, int64_t num_edges, int l_max, T *out, void *stream) {
    run_harmonics_forward(vectors, num_edges, l_max, out, on_stream(stream));
}

template <class T>
void harmonics_backward(const T *vectors, const T *grad, int64_t num_edges, int l_max, T *grad_out,
                        void *stream) {
    run_harmonics_backward(vectors, grad, num_edges, l_max, grad_out, on_stream(stream));
}

void harmonics_double_backward(const double *vectors, const double *grad, const double *direction,
                               int64_t num_edges, int l_max, double *grad_harmonics,
                               double *grad_vectors, void *stream) {
    run_harmonics_double_backward(vectors, grad, direction, num_edges, l_max, grad_harmonics,
                                  grad_vectors, on_stream(stream));
}

template void harmonics_forward(const float *, int64_t, int, float *, void *);
template void harmonics_forward(const double *, int64_t, int, double *, void *);
template void harmonics_backward(const float *, const float *, int64_t, int, float *, void *);
template void harmonics_backward(const double *, const double *, int64_t, int, double *, void *);

} // namespace diffmd::ops::cuda
