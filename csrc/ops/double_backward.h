#pragma once

#include "launchers.h"

/*
 * The derivative of the backward, on the CPU and always in double: the forward and backward
 * formulas run on dual numbers. With w the direction, L = sum g (w . d/dr) Phi has
 * dL/dg = (w . d/dr) Phi and dL/dr = (w . d/dr) (gradient of sum g Phi).
 */
namespace diffmd::ops {

/**
 * @param in             with the table of double precision
 * @param grad           g (E,(L+1)^2,M)
 * @param direction      w (E,3)
 * @param grad_features  out: dL/dg (E,(L+1)^2,M)
 * @param grad_vectors   out: dL/dr (E,3)
 */
void features_double_backward(const Features<double> &in, const double *grad,
                              const double *direction, int64_t begin, int64_t end,
                              double *grad_features, double *grad_vectors);

/** The same for the harmonics: vectors (E,3), g and dL/dg (E,(l_max+1)^2). */
void harmonics_double_backward(const double *vectors, int l_max, const double *grad,
                               const double *direction, int64_t begin, int64_t end,
                               double *grad_harmonics, double *grad_vectors);

} // namespace diffmd::ops
