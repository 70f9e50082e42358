// Launchers of spherical_fourier_bessel.

#include "launch.cuh"
#include "operators.h"

namespace diffmd::ops::cuda {

template <class T> void features_forward(const Features<T> &in, T *out, void *stream) {
    run_features_forward(in, out, on_stream(stream));
}

template <class T>
void features_backward(const Features<T> &in, const T *grad, T *grad_out, void *stream) {
    run_features_backward(in, grad, grad_out, on_stream(stream));
}

void features_double_backward(const Features<double> &in, const double *grad,
                              const double *direction, double *grad_features, double *grad_vectors,
                              void *stream) {
    run_features_double_backward(in, grad, direction, grad_features, grad_vectors,
                                 on_stream(stream));
}

template void features_forward(const Features<float> &, float *, void *);
template void features_forward(const Features<double> &, double *, void *);
template void features_backward(const Features<float> &, const float *, float *, void *);
template void features_backward(const Features<double> &, const double *, double *, void *);

} // namespace diffmd::ops::cuda
