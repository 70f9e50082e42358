/*
 * Conservation of momentum and angular momentum on CPU tensors, as one operator without gradient:
 * some hundred numbers a molecule, for which torch makes some eighty calls.
 */
#include "on_cpu.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <array>

namespace diffmd::ops::on_cpu {
namespace {

constexpr const char *name = "conserve_momenta";

/** Atoms below which another thread costs more than it saves. */
constexpr int64_t grain_atoms = 4096;

using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

Vector cross(const Vector &a, const Vector &b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double dot(const Vector &a, const Vector &b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

/** The pseudo-inverse of moments of inertia, as `invert_inertia` of `models/projection.py`. */
Matrix inverse(const Matrix &inertia) {
    const Matrix cofactors = {cross(inertia[1], inertia[2]), cross(inertia[2], inertia[0]),
                              cross(inertia[0], inertia[1])};
    const double determinant = dot(inertia[0], cofactors[0]);
    const double trace = inertia[0][0] + inertia[1][1] + inertia[2][2];
    const double minors = cofactors[0][0] + cofactors[1][1] + cofactors[2][2];
    const bool line = determinant <= 1e-5 * (0.5 * trace) * minors;
    Matrix out{};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            if (!line)
                out[i][k] = cofactors[i][k] / determinant;
            else if (trace > 0.0)
                out[i][k] =
                    2.0 / trace * ((i == k) - (minors > 0.0 ? cofactors[i][k] / minors : 0.0));
    return out;
}

/** One molecule; arrays (A,2,3), (A,3), (A,3), (A), and (A,2,3). */
template <class T>
void conserve(const T *change, const T *positions, const T *velocities, const T *masses,
              int64_t atoms, bool angular, T *to) {
    double mass = 0.0, mean[6] = {};
    for (int64_t i = 0; i < atoms; i++) {
        mass += double(masses[i]);
        for (int k = 0; k < 6; k++)
            mean[k] += double(masses[i]) * double(change[6 * i + k]);
    }
    // Places of padding have no mass, and no change.
    for (int64_t i = 0; i < atoms; i++)
        for (int k = 0; k < 6; k++)
            to[6 * i + k] = masses[i] > T(0) ? T(double(change[6 * i + k]) - mean[k] / mass) : T(0);
    if (!angular)
        return;
    const auto vector = [](const T *from) {
        return Vector{double(from[0]), double(from[1]), double(from[2])};
    };
    const auto moved = [&](int64_t i) {
        Vector x = vector(positions + 3 * i);
        for (int k = 0; k < 3; k++)
            x[k] += double(to[6 * i + k]);
        return x;
    };
    Vector missing{};
    Matrix inertia{};
    for (int64_t i = 0; i < atoms; i++) {
        const double m = double(masses[i]);
        const Vector before = cross(vector(positions + 3 * i), vector(velocities + 3 * i));
        const Vector x = moved(i);
        Vector v = vector(velocities + 3 * i);
        for (int k = 0; k < 3; k++)
            v[k] += double(to[6 * i + 3 + k]);
        const Vector after = cross(x, v);
        for (int k = 0; k < 3; k++) {
            missing[k] += m * (before[k] - after[k]);
            inertia[k][k] += m * dot(x, x);
            for (int n = 0; n < 3; n++)
                inertia[k][n] -= m * x[k] * x[n];
        }
    }
    const Matrix over = inverse(inertia);
    const Vector omega = {dot(over[0], missing), dot(over[1], missing), dot(over[2], missing)};
    for (int64_t i = 0; i < atoms; i++) {
        const Vector turn = cross(omega, moved(i));
        for (int k = 0; k < 3; k++)
            if (masses[i] > T(0))
                to[6 * i + 3 + k] = T(double(to[6 * i + 3 + k]) + turn[k]);
    }
}

Tensor momenta(const Tensor &change, const Tensor &positions, const Tensor &velocities,
               const Tensor &masses, bool angular) {
    TORCH_CHECK_VALUE(masses.dim() == 2, name, ": expected masses of shape (B, A), got ",
                      masses.sizes());
    const int64_t b = masses.size(0), a = masses.size(1);
    check_tensor(name, "change", change, {b, a, 2, 3}, change.scalar_type());
    check_tensor(name, "positions", positions, {b, a, 3}, change.scalar_type());
    check_tensor(name, "velocities", velocities, {b, a, 3}, change.scalar_type());
    check_tensor(name, "masses", masses, {b, a}, change.scalar_type());
    const Tensor out = at::empty({b, a, 2, 3}, change.options());
    const auto of_change = change.expect_contiguous(), of_masses = masses.expect_contiguous();
    const auto x = positions.expect_contiguous(), v = velocities.expect_contiguous();
    AT_DISPATCH_FLOATING_TYPES(change.scalar_type(), name, [&] {
        at::parallel_for(0, b, std::max<int64_t>(1, grain_atoms / std::max<int64_t>(1, a)),
                         [&](int64_t begin, int64_t end) {
                             for (int64_t i = begin; i < end; i++)
                                 conserve(of_change->const_data_ptr<scalar_t>() + 6 * a * i,
                                          x->const_data_ptr<scalar_t>() + 3 * a * i,
                                          v->const_data_ptr<scalar_t>() + 3 * a * i,
                                          of_masses->const_data_ptr<scalar_t>() + a * i, a, angular,
                                          out.mutable_data_ptr<scalar_t>() + 6 * a * i);
                         });
    });
    return out;
}

Tensor momenta_output(const Tensor &change, const Tensor &, const Tensor &, const Tensor &, bool) {
    return change.new_empty_symint(change.sym_sizes(), described(change));
}

} // namespace
} // namespace diffmd::ops::on_cpu

TORCH_LIBRARY_IMPL(diffmd, CPU, m) { m.impl("conserve_momenta", diffmd::ops::on_cpu::momenta); }

TORCH_LIBRARY_IMPL(diffmd, Meta, m) {
    m.impl("conserve_momenta", diffmd::ops::on_cpu::momenta_output);
}

// An error where a gradient is asked for, never a zero.
TORCH_LIBRARY_IMPL(diffmd, Autograd, m) {
    m.impl("conserve_momenta", torch::autograd::autogradNotImplementedFallback());
}
