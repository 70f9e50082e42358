#pragma once

#include "../formulas/macros.h"
#include "../layers.h"
#include "matrix.h"

namespace diffmd::ops {
inline namespace DIFFMD_ISA {

/** The sum of products of n numbers. */
template <class T> DIFFMD_HD T dot(const T *a, const T *b, int n) {
    Eight<T> sums{};
    int at = 0;
    for (; at + 8 <= n; at += 8)
        sums = sums + load<Eight<T>>(a + at) * load<Eight<T>>(b + at);
    T sum =
        ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; at < n; at++)
        sum += a[at] * b[at];
    return sum;
}

/** @param from, to  (D, C) of one atom */
template <class T>
void normalise(const EquivariantNorm<T> &norm, int l_max, int channels, const T *from, T *to) {
    T mean = 0;
    for (int c = 0; c < channels; c++)
        mean += from[c];
    mean /= T(channels);
    for (int c = 0; c < channels; c++)
        to[c] = from[c] - mean;
    const T variance = dot(to, to, channels) / T(channels);
    const T over = T(1) / __builtin_sqrt(variance + T(1e-5));
    for (int c = 0; c < channels; c++)
        to[c] = to[c] * over * norm.weight[c] + norm.bias[c];
    for (int l = 1; l <= l_max; l++) {
        const int first = l * l * channels, size = (2 * l + 1) * channels;
        const T *const weight = norm.degree_weight + l * channels;
        const T square = dot(from + first, from + first, size) / T(size);
        const T scale = T(1) / __builtin_sqrt(square + T(1e-3));
        for (int m = 0; m < 2 * l + 1; m++)
            for (int c = 0; c < channels; c++)
                to[first + m * channels + c] = from[first + m * channels + c] * scale * weight[c];
    }
}

/**
 * What the atoms begin..end-1 give to their edges.
 *
 * @param features  (R, D, C)
 * @param ends      (R, 2 E)
 * @param values    (R, D, C)
 */
template <class T>
void attention_atoms(const AttentionLayer<T> &layer, const T *features, int64_t begin, int64_t end,
                     T *ends, T *values, T *scratch) {
    const int channels = layer.channels, components = (layer.l_max + 1) * (layer.l_max + 1);
    const int64_t size = components * channels;
    const int both = 2 * layer.edge_channels;
    for (int64_t first = begin; first < end; first += atoms_at_once) {
        const int count = int(end - first < atoms_at_once ? end - first : atoms_at_once);
        for (int a = 0; a < count; a++)
            normalise(layer.norm, layer.l_max, channels, features + (first + a) * size,
                      scratch + a * size);
        multiply<T>(scratch, size, count, channels, layer.ends, both, nullptr, ends + first * both,
                    both);
        for (int l = 0; l <= layer.l_max; l++)
            for (int i = l * l; i < (l + 1) * (l + 1); i++)
                multiply<T>(scratch + i * channels, size, count, channels,
                            layer.values + l * channels * channels, channels, nullptr,
                            values + first * size + i * channels, size);
    }
}

/** A path's number, and where its matrix begins. */
struct Place {
    int path, column;
};

template <int L> constexpr Place place_of(int l_in, int l_edge, int l_out) {
    Place at{}, found{};
    visit_paths(L, [&](int in, int edge, int out) {
        if (in == l_in && edge == l_edge && out == l_out)
            found = at;
        at.path++;
        at.column += (2 * in + 1) * (2 * out + 1);
    });
    return found;
}

/** body(l_in, l_edge, l_out) for all paths, as constants. */
template <int L, class Body> DIFFMD_HD void for_each_path(Body &&body) {
    using formulas::static_for;
    static_for<0, L + 1>([&](auto in) DIFFMD_INLINE {
        static_for<0, L + 1>([&](auto out) DIFFMD_INLINE {
            static_for<0, L + 1>([&](auto edge) DIFFMD_INLINE {
                constexpr int i = decltype(in)::value, o = decltype(out)::value;
                constexpr int e = decltype(edge)::value;
                if constexpr (is_path(i, e, o))
                    body(in, edge, out);
            });
        });
    });
}

/**
 * The messages to one atom, for as many channels as V has numbers, summed in registers.
 *
 * @param filters    (count, paths C)
 * @param couplings  (count, columns)
 * @param from       count pointers to an atom's values (D, C)
 * @param channel    the first one
 * @param message    (D, C)
 */
template <class T, class V, int L>
DIFFMD_HD void sum_messages(int count, int channels, const T *filters, const T *couplings,
                            const T *const *from, int channel, T *message) {
    constexpr int components = (L + 1) * (L + 1), columns = num_columns(L);
    V sum[components] = {};
    for (int e = 0; e < count; e++) {
        const T *const filter = filters + int64_t(e) * num_paths(L) * channels + channel;
        const T *const coupling = couplings + int64_t(e) * columns;
        V value[components];
        for (int i = 0; i < components; i++)
            value[i] = load<V>(from[e] + i * channels + channel);
        for_each_path<L>([&](auto in, auto edge, auto out) DIFFMD_INLINE {
            constexpr int l_in = decltype(in)::value, l_edge = decltype(edge)::value;
            constexpr int l_out = decltype(out)::value;
            constexpr Place place = place_of<L>(l_in, l_edge, l_out);
            const V f = load<V>(filter + place.path * channels);
            if constexpr (l_edge == 0) {
                // The coupling is the identity.
                for (int m = 0; m < 2 * l_in + 1; m++)
                    sum[l_in * l_in + m] = sum[l_in * l_in + m] + f * value[l_in * l_in + m];
            } else {
                for (int m = 0; m < 2 * l_out + 1; m++) {
                    const T *const row = coupling + place.column + m * (2 * l_in + 1);
                    V coupled = value[l_in * l_in] * row[0];
                    for (int k = 1; k < 2 * l_in + 1; k++)
                        coupled = coupled + value[l_in * l_in + k] * row[k];
                    sum[l_out * l_out + m] = sum[l_out * l_out + m] + f * coupled;
                }
            }
        });
    }
    for (int i = 0; i < components; i++)
        store(message + i * channels + channel, sum[i]);
}

/**
 * Messages to the atoms begin..end-1, mixed.
 *
 * @param ends, values  from attention_atoms, of all atoms
 * @param from          room for the addresses of an atom's neighbours
 * @param to            (R, D, C)
 */
template <class T, int L>
void attention_messages(const AttentionLayer<T> &layer, const LayerEdges<T> &edges, const T *ends,
                        const T *values, int64_t begin, int64_t end, T *to, T *scratch,
                        const T **from) {
    constexpr int components = (L + 1) * (L + 1), paths = num_paths(L);
    constexpr int columns = num_columns(L);
    const int atoms = edges.atoms, channels = layer.channels, hidden_size = layer.edge_channels;
    const int heads = layer.heads, share = hidden_size / heads, invariants = layer.invariants;
    T *const seen = scratch;
    T *const hidden = seen + atoms * invariants;
    T *const weights = hidden + atoms * hidden_size;
    T *const filters = weights + atoms * heads;
    T *const couplings = filters + atoms * paths * channels;
    T *const message = couplings + atoms * columns;
    T *const totals = message + components * channels;
    for (int64_t i = begin; i < end; i++) {
        const int64_t molecule = i / atoms * atoms;
        int count = 0;
        // An edge without envelope has no weight.
        for (int j = 0; j < atoms; j++)
            if (edges.envelope[i * atoms + j] != T(0)) {
                const int64_t at = i * atoms + j;
                std::memcpy(seen + count * invariants, edges.invariants + at * invariants,
                            invariants * sizeof(T));
                from[count] = values + (molecule + j) * components * channels;
                const T *const y = edges.harmonics + at * components;
                T *const coupling = couplings + count * columns;
                for (int column = 0; column < columns; column++)
                    coupling[column] = 0;
                for (int k = 0; k < components; k++)
                    for (int column = 0; column < columns; column++)
                        coupling[column] += y[k] * layer.coefficients[k * columns + column];
                count++;
            }
        multiply<T>(seen, invariants, count, invariants, layer.edge, hidden_size, layer.edge_bias,
                    hidden, hidden_size);
        const T *const to_i = ends + i * 2 * hidden_size;
        for (int j = 0, e = 0; j < atoms; j++)
            if (edges.envelope[i * atoms + j] != T(0)) {
                const T *const from_j = ends + (molecule + j) * 2 * hidden_size + hidden_size;
                for (int k = 0; k < hidden_size; k++)
                    hidden[e * hidden_size + k] += to_i[k] + from_j[k];
                e++;
            }
        silu(hidden, count * hidden_size);
        multiply<T>(hidden, hidden_size, count, hidden_size, layer.logits, heads, layer.logits_bias,
                    weights, heads);
        // Softmax with the envelope, and a place of logit 0 that sends nothing.
        for (int h = 0; h < heads; h++) {
            T largest = 0;
            for (int e = 0; e < count; e++)
                largest = weights[e * heads + h] > largest ? weights[e * heads + h] : largest;
            for (int e = 0; e < count; e++)
                weights[e * heads + h] -= largest;
            totals[h] = -largest;
        }
        const auto exponential_of = [](Eight<T> v) { return exponential(v); };
        transform(weights, count * heads, exponential_of);
        transform(totals, heads, exponential_of);
        for (int j = 0, e = 0; j < atoms; j++)
            if (const T envelope = edges.envelope[i * atoms + j]; envelope != T(0)) {
                for (int h = 0; h < heads; h++) {
                    weights[e * heads + h] *= envelope;
                    totals[h] += weights[e * heads + h];
                }
                e++;
            }
        for (int e = 0; e < count; e++)
            for (int h = 0; h < heads; h++) {
                const T weight = weights[e * heads + h] / totals[h];
                for (int k = 0; k < share; k++)
                    hidden[e * hidden_size + h * share + k] *= weight;
            }
        multiply<T>(hidden, hidden_size, count, hidden_size, layer.filters, paths * channels,
                    nullptr, filters, paths * channels);
        int c = 0;
        for (; c + columns_at_once<T> <= channels; c += columns_at_once<T>)
            sum_messages<T, Columns<T>, L>(count, channels, filters, couplings, from, c, message);
        for (; c < channels; c++)
            sum_messages<T, T, L>(count, channels, filters, couplings, from, c, message);
        T *const out = to + i * components * channels;
        for (int l = 0; l <= L; l++)
            multiply<T>(message + l * l * channels, channels, 2 * l + 1, channels,
                        layer.out + l * channels * channels, channels, l ? nullptr : layer.out_bias,
                        out + l * l * channels, channels);
    }
}

/** @param features, to  (R, D, C) */
template <class T>
void feed_forward(const FeedForwardLayer<T> &layer, const T *features, int64_t begin, int64_t end,
                  T *to, T *scratch) {
    const int channels = layer.channels, degrees = layer.l_max + 1, width = layer.width;
    const int64_t size = degrees * degrees * channels;
    const int all = degrees * channels;
    T *const normed = scratch;
    T *const right = normed + atoms_at_once * size;
    T *const left = right + atoms_at_once * size;
    T *const invariants = left + atoms_at_once * channels;
    T *const hidden = invariants + atoms_at_once * all;
    T *const gates = hidden + atoms_at_once * width;
    for (int64_t first = begin; first < end; first += atoms_at_once) {
        const int count = int(end - first < atoms_at_once ? end - first : atoms_at_once);
        for (int a = 0; a < count; a++) {
            normalise(layer.norm, layer.l_max, channels, features + (first + a) * size,
                      normed + a * size);
            std::memcpy(invariants + a * all, normed + a * size, channels * sizeof(T));
        }
        for (int l = 1; l < degrees; l++)
            for (int i = l * l; i < (l + 1) * (l + 1); i++) {
                multiply<T>(normed + i * channels, size, count, channels,
                            layer.left + l * channels * channels, channels, nullptr, left,
                            channels);
                multiply<T>(normed + i * channels, size, count, channels,
                            layer.right + l * channels * channels, channels, nullptr,
                            right + i * channels, size);
                const T over = T(1) / T(2 * l + 1);
                for (int a = 0; a < count; a++) {
                    T *const sum = invariants + a * all + l * channels;
                    const T *const other = right + a * size + i * channels;
                    const T *const mine = left + a * channels;
                    for (int c = 0; c < channels; c++)
                        sum[c] = (i == l * l ? T(0) : sum[c]) + over * (mine[c] * other[c]);
                }
            }
        multiply<T>(invariants, all, count, all, layer.hidden, width, layer.hidden_bias, hidden,
                    width);
        silu(hidden, count * width);
        multiply<T>(hidden, width, count, width, layer.gates, all, layer.gates_bias, gates, all);
        for (int a = 0; a < count; a++) {
            T *const out = to + (first + a) * size;
            const T *const gate = gates + a * all;
            std::memcpy(out, gate, channels * sizeof(T));
            for (int l = 1; l < degrees; l++)
                for (int i = l * l; i < (l + 1) * (l + 1); i++)
                    for (int c = 0; c < channels; c++)
                        out[i * channels + c] =
                            gate[l * channels + c] * right[a * size + i * channels + c];
        }
    }
}

/**
 * Kick the velocities, then drift the positions by the mean of old and new ones and a correction.
 *
 * @param features               (R, D, C)
 * @param positions, velocities  (R, 3)
 */
template <class T>
void kick_and_drift(const KickLayer<T> &layer, const T *features, int64_t begin, int64_t end,
                    T *positions, T *velocities) {
    const int channels = layer.channels;
    for (int64_t i = begin; i < end; i++)
        for (int k = 0; k < 3; k++) {
            const T *const vector = features + (i * layer.components + 1 + k) * channels;
            const T correction = dot(vector, layer.kick, channels);
            const T change = dot(vector, layer.kick + channels, channels);
            T &x = positions[3 * i + k], &v = velocities[3 * i + k];
            const T kicked = v + layer.velocity_scale[i] * change;
            x += T(0.5) * (v + kicked) * layer.time + layer.position_scale[i] * correction;
            v = kicked;
        }
}

} // namespace DIFFMD_ISA
} // namespace diffmd::ops
