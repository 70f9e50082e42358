#pragma once

#include "formulas/macros.h"

#include <cstdint>

/*
 * What the kernels of a Transformer's layers take, as raw pointers to contiguous arrays. Sizes:
 * R atoms of all molecules, A atoms a molecule, D = (l_max+1)^2 components, C channels. Matrices
 * stand transposed, (in, out): rows are multiplied by them from the left.
 */
namespace diffmd::ops {

/** Highest degree of the layers' features. */
constexpr int max_layer_degree = 3;

/** Whether harmonics of degree `edge` take features of degree `in` to `out` with natural parity. */
DIFFMD_HD constexpr bool is_path(int in, int edge, int out) {
    const int apart = in < out ? out - in : in - out;
    return edge >= apart && edge <= in + out && (in + edge + out) % 2 == 0;
}

/** visit(l_in, l_edge, l_out) for the paths up to a degree. */
template <class Visit> DIFFMD_HD constexpr void visit_paths(int l_max, Visit visit) {
    for (int in = 0; in <= l_max; in++)
        for (int out = 0; out <= l_max; out++)
            for (int edge = 0; edge <= l_max; edge++)
                if (is_path(in, edge, out))
                    visit(in, edge, out);
}

DIFFMD_HD constexpr int num_paths(int l_max) {
    int paths = 0;
    visit_paths(l_max, [&](int, int, int) { paths++; });
    return paths;
}

/** Entries of all paths' matrices, each (2 l_out + 1, 2 l_in + 1). */
DIFFMD_HD constexpr int num_columns(int l_max) {
    int columns = 0;
    visit_paths(l_max, [&](int in, int, int out) { columns += (2 * in + 1) * (2 * out + 1); });
    return columns;
}

/** Layer normalisation of scalars; higher degrees by their root mean square. */
template <class T> struct EquivariantNorm {
    /** (C): of the scalars. */
    const T *weight, *bias;
    /** (l_max+1, C); that of degree 0 is not used. */
    const T *degree_weight;
};

/** Attention over the other atoms of a molecule. */
template <class T> struct AttentionLayer {
    int l_max, channels, heads, edge_channels, invariants;
    EquivariantNorm<T> norm;
    /** (C, 2 E): what the ends i and j give to the hidden features of an edge. */
    const T *ends;
    /** (invariants, E), (E). */
    const T *edge, *edge_bias;
    /** (E, heads), (heads). */
    const T *logits, *logits_bias;
    /** (E, paths C). */
    const T *filters;
    /** (l_max+1, C, C) each, (C). */
    const T *values, *out, *out_bias;
    /** (D, columns): harmonics to the matrices of all paths. */
    const T *coefficients;
};

/** A molecule's edges; edge i <- j at (i, j). */
template <class T> struct LayerEdges {
    int atoms;
    /** (R, A, invariants), (R, A), (R, A, D). */
    const T *invariants, *envelope, *harmonics;
};

/** Gated update of each atom's features. */
template <class T> struct FeedForwardLayer {
    int l_max, channels, width;
    EquivariantNorm<T> norm;
    /** (l_max+1, C, C) each; those of degree 0 are not used. */
    const T *left, *right;
    /** ((l_max+1) C, width), (width). */
    const T *hidden, *hidden_bias;
    /** (width, (l_max+1) C), ((l_max+1) C). */
    const T *gates, *gates_bias;
};

/** How the vectors of a layer's features move the atoms. */
template <class T> struct KickLayer {
    int components, channels;
    /** (2, C): features to the correction of the position and to the change of the velocity. */
    const T *kick;
    /** (R): units of both. */
    const T *position_scale, *velocity_scale;
    /** The layer's share of the lag. */
    T time;
};

/** Atoms that go through a matrix together. */
constexpr int atoms_at_once = 8;

/** Numbers of scratch that attention_atoms needs. */
template <class T> DIFFMD_HD int64_t attention_atoms_scratch(const AttentionLayer<T> &layer) {
    return int64_t(atoms_at_once) * (layer.l_max + 1) * (layer.l_max + 1) * layer.channels;
}

/** Numbers of scratch that attention_messages needs. */
template <class T>
DIFFMD_HD int64_t attention_messages_scratch(const AttentionLayer<T> &layer, int64_t atoms) {
    const int64_t edge = layer.invariants + layer.edge_channels + layer.heads +
                         int64_t(num_paths(layer.l_max)) * layer.channels +
                         num_columns(layer.l_max);
    const int64_t components = (layer.l_max + 1) * (layer.l_max + 1);
    return atoms * edge + components * layer.channels + layer.heads;
}

/** Numbers of scratch that feed_forward needs. */
template <class T> DIFFMD_HD int64_t feed_forward_scratch(const FeedForwardLayer<T> &layer) {
    const int64_t degrees = layer.l_max + 1, channels = layer.channels;
    return atoms_at_once *
           (2 * degrees * degrees * channels + channels + 2 * degrees * channels + layer.width);
}

} // namespace diffmd::ops
