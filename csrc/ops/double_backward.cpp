#include "double_backward.h"

#include "formulas/harmonics.h"
#include "formulas/radial.h"

namespace diffmd::ops {

using formulas::component;
using formulas::Dual;
using formulas::max_degree;
using formulas::static_for;
using formulas::Vector;

namespace {

using Number = Dual<double>;
constexpr int max_components = (max_degree + 1) * (max_degree + 1);

/** Harmonics of degrees up to 6 and their gradients; those above l_max cost little. */
struct Harmonics {
    Number value[max_components];
    Vector<Number> gradient[max_components];

    explicit Harmonics(const Vector<Number> &r) {
        formulas::solid_harmonics<max_degree, double>(r.x, r.y, r.z, value);
        static_for<0, max_degree + 1>([&](auto degree) {
            constexpr int l = decltype(degree)::value;
            static_for<-l, l + 1>([&](auto order) {
                constexpr int m = decltype(order)::value;
                gradient[component(l, m)] =
                    formulas::harmonic_gradient<l, m, double, Number>(value);
            });
        });
    }
};

/** r + eps w, both scaled. */
Vector<Number> along(const double *r, const double *w, double scale) {
    return {
        {r[0] * scale, w[0] * scale}, {r[1] * scale, w[1] * scale}, {r[2] * scale, w[2] * scale}};
}

} // namespace

void features_double_backward(const Features<double> &in, const double *grad,
                              const double *direction, int64_t begin, int64_t end,
                              double *grad_features, double *grad_vectors) {
    constexpr int degree = formulas::TablePrecision<double>::degree;
    const RadialTable<double> &table = in.table;
    const int n_max = table.n_max;
    const int64_t size = (table.l_max + 1) * (table.l_max + 1) * n_max;
    const double over = 1.0 / in.cutoff;
    for (int64_t edge = begin; edge < end; edge++) {
        const double *g = grad + edge * size;
        double *out = grad_features + edge * size, *const to = grad_vectors + 3 * edge;
        const Vector<Number> r = along(in.vectors + 3 * edge, direction + 3 * edge, over);
        const Number y = r.x * r.x + r.y * r.y + r.z * r.z;
        if (y.value >= 1.0) {
            for (int64_t k = 0; k < size; k++)
                out[k] = 0.0;
            to[0] = to[1] = to[2] = 0.0;
            continue;
        }
        const auto place = formulas::locate(y, table.num_intervals);
        const double *const c =
            table.coefficients + int64_t(place.interval) * formulas::stride(table);
        const Harmonics h(r);
        Vector<Number> sum{};
        Number radial{};
        for (int l = 0; l <= table.l_max; l++)
            for (int m = -l; m <= l; m++)
                for (int n = 0; n < n_max; n++) {
                    Number q, dq;
                    formulas::polynomial<degree>(c + l * table.n_padded + n, formulas::layer(table),
                                                 place.t, q, dq);
                    dq = place.envelope_derivative * q + place.envelope * dq * place.dt_dy;
                    q = place.envelope * q;
                    const Number s = h.value[component(l, m)];
                    const auto &ds = h.gradient[component(l, m)];
                    *out++ = (q * s).tangent;
                    const Number weighted = *g * q;
                    radial = radial + *g++ * (dq * s);
                    sum = {sum.x + weighted * ds.x, sum.y + weighted * ds.y,
                           sum.z + weighted * ds.z};
                }
        radial = radial * 2.0;
        to[0] = (sum.x + radial * r.x).tangent * over;
        to[1] = (sum.y + radial * r.y).tangent * over;
        to[2] = (sum.z + radial * r.z).tangent * over;
    }
}

void harmonics_double_backward(const double *vectors, int l_max, const double *grad,
                               const double *direction, int64_t begin, int64_t end,
                               double *grad_harmonics, double *grad_vectors) {
    const int components = (l_max + 1) * (l_max + 1);
    for (int64_t edge = begin; edge < end; edge++) {
        const Harmonics h(along(vectors + 3 * edge, direction + 3 * edge, 1.0));
        double *const to = grad_vectors + 3 * edge;
        to[0] = to[1] = to[2] = 0.0;
        for (int i = 0; i < components; i++) {
            const double g = grad[edge * components + i];
            grad_harmonics[edge * components + i] = h.value[i].tangent;
            to[0] += g * h.gradient[i].x.tangent;
            to[1] += g * h.gradient[i].y.tangent;
            to[2] += g * h.gradient[i].z.tangent;
        }
    }
}

} // namespace diffmd::ops
