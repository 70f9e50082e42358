/*
 * The CPU kernels of one instruction set: compiled once for each, with its flags and
 * DIFFMD_ISA = baseline, avx2, avx512. Only templates of our own and builtins here: an inline
 * function of the standard library could be shared with code for plain machines.
 */
#include "kernels.h"

#include "features_kernel.h"
#include "harmonics_kernel.h"
#include "invariants_kernel.h"
#include "layers_kernel.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

/** table.n_padded as a compile-time constant. */
template <class T, class Body> DIFFMD_HD void with_padding(const RadialTable<T> &table, Body body) {
    switch (table.n_padded) {
    case 4:
        return body(formulas::Int<4>{});
    case 8:
        return body(formulas::Int<8>{});
    default:
        return body(formulas::Int<16>{});
    }
}

/**
 * And table.l_max too where registers are so wide that what remains of a row is the loops around
 * it; elsewhere -1. (Compilation takes seven times as long.)
 */
template <class T, class Body> DIFFMD_HD void with_size(const RadialTable<T> &table, Body body) {
    with_padding(table, [&](auto n) {
        if constexpr (register_bytes == 64)
            formulas::static_for<0, formulas::max_degree + 1>([&](auto degree) {
                if (table.l_max == decltype(degree)::value)
                    body(n, degree);
            });
        else
            body(n, formulas::Int<-1>{});
    });
}

template <class T> struct All {
    static void forward(const Features<T> &in, int64_t begin, int64_t end, bool stream, T *out) {
        with_size(in.table, [&](auto n, auto l) {
            features_forward<T, decltype(n)::value, decltype(l)::value>(in, begin, end, stream,
                                                                        out);
        });
    }
    static void backward(const Features<T> &in, const T *grad, int64_t begin, int64_t end,
                         T *grad_out) {
        with_size(in.table, [&](auto n, auto l) {
            features_backward<T, decltype(n)::value, decltype(l)::value>(in, grad, begin, end,
                                                                         grad_out);
        });
    }
    static void velocities(const Invariants<T> &in, int64_t begin, int64_t end, T *scaled,
                           T *radial, T *derivative) {
        with_padding(in.edges.table, [&](auto n) {
            velocity_radial<T, decltype(n)::value>(in, begin, end, scaled, radial, derivative);
        });
    }
    static void invariants(const Invariants<T> &in, const T *scaled, const T *radial, int64_t begin,
                           int64_t end, T *invariants, T *envelope) {
        with_padding(in.edges.table, [&](auto n) {
            invariants_forward<T, decltype(n)::value>(in, scaled, radial, begin, end, invariants,
                                                      envelope);
        });
    }
    static void invariants_grad(const Invariants<T> &in, const T *scaled, const T *radial,
                                const T *derivative, const T *grad_invariants,
                                const T *grad_envelope, int64_t begin, int64_t end, T *grad_vectors,
                                T *edge_gradients) {
        with_padding(in.edges.table, [&](auto n) {
            invariants_backward<T, decltype(n)::value>(in, scaled, radial, derivative,
                                                       grad_invariants, grad_envelope, begin, end,
                                                       grad_vectors, edge_gradients);
        });
    }
    static void messages(const AttentionLayer<T> &layer, const LayerEdges<T> &edges, const T *ends,
                         const T *values, int64_t begin, int64_t end, T *to, T *scratch,
                         const T **from) {
        formulas::static_for<1, max_layer_degree + 1>([&](auto degree) {
            if (layer.l_max == decltype(degree)::value)
                attention_messages<T, decltype(degree)::value>(layer, edges, ends, values, begin,
                                                               end, to, scratch, from);
        });
    }
    static constexpr CpuKernels<T> kernels = {
        forward,
        backward,
        velocities,
        invariants,
        invariants_grad,
        harmonics_forward<T>,
        harmonics_backward<T>,
        attention_atoms<T>,
        messages,
        feed_forward<T>,
        kick_and_drift<T>,
    };
};

const CpuKernels<float> &kernels_float() { return All<float>::kernels; }
const CpuKernels<double> &kernels_double() { return All<double>::kernels; }

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
