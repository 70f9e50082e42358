// Runs the block code of every CUDA kernel on the CPU and compares it with the CPU kernels.

#include "../ops/cpu/kernels.h"
#include "../ops/cuda/host_loop.h"
#include "../ops/cuda/operators.h"
#include "../ops/table_builder.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace diffmd::ops;
namespace cuda = diffmd::ops::cuda;

namespace {

constexpr double CUTOFF = 0.5, VELOCITY_CUTOFF = 6.0;
constexpr int NUM_NODES = 19;
int num_failures = 0;

void check(bool good, const std::string &what) {
    if (good)
        return;
    std::printf("FAILED: %s\n", what.c_str());
    num_failures++;
}

/** Numbers after `offset` others, so that 16-byte accesses are tried aligned and not. */
template <class T> class Array {
public:
    Array(size_t size, int offset) : numbers(size + 8, CANARY), offset(offset), size(size) {
        std::fill_n(data(), size, std::numeric_limits<T>::quiet_NaN());
    }
    T *data() { return numbers.data() + offset; }
    const T *data() const { return numbers.data() + offset; }
    T operator[](size_t i) const { return data()[i]; }
    size_t get_size() const { return size; }
    /** Whether nothing beside the array was written. */
    bool is_intact() const {
        bool intact = true;
        for (size_t i = 0; i < numbers.size(); i++)
            if (i < size_t(offset) || i >= offset + size)
                intact = intact && numbers[i] == CANARY;
        return intact;
    }

private:
    static constexpr T CANARY = T(-77.25);
    std::vector<T> numbers;
    int offset;
    size_t size;
};

/** Vectors of all lengths up to 1.3 cutoffs; the first is 0, the second exactly the cutoff. */
template <class T> Array<T> make_vectors(size_t count, double cutoff, int offset, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.0, 1.3);
    Array<T> out(3 * count, offset);
    for (size_t i = 0; i < count; i++) {
        double v[3] = {normal(generator), normal(generator), normal(generator)};
        const double length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
        const double wanted = i == 0 ? 0.0 : cutoff * uniform(generator);
        for (int k = 0; k < 3; k++)
            out.data()[3 * i + k] = i == 1 ? T(k == 0 ? cutoff : 0) : T(v[k] * wanted / length);
    }
    return out;
}

template <class T> Array<T> make_normal(size_t count, int offset, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    Array<T> out(count, offset);
    for (size_t i = 0; i < count; i++)
        out.data()[i] = T(normal(generator));
    return out;
}

/** Largest difference of two arrays; NaN if one of `found` is NaN, wherever it stands. */
template <class T> double worst_error(const Array<T> &found, const Array<T> &expected) {
    double worst = 0.0;
    for (size_t i = 0; i < found.get_size(); i++) {
        const double error = std::abs(double(found[i]) - expected[i]);
        if (!std::isnan(worst) && !(error <= worst))
            worst = error;
    }
    return worst;
}

/** A number that was not written is seen, also before others that were. */
void test_worst_error() {
    Array<double> found(3, 0), expected(3, 0);
    for (int i = 0; i < 3; i++)
        found.data()[i] = expected.data()[i] = i;
    found.data()[2] = 2.5;
    check(worst_error(found, expected) == 0.5, "the worst error is not that of the last number");
    found.data()[1] = std::numeric_limits<double>::quiet_NaN();
    check(std::isnan(worst_error(found, expected)), "a NaN is lost among numbers");
}

/**
 * Run with the threads in three orders: results must not depend on the order, lie within
 * `tolerance` eps of the largest expected number, and be written nowhere else.
 *
 * @param smallest_scale  taken where the largest expected number is smaller: where differences
 *                        give the rounding of 0
 */
template <class T, class Operator>
void compare(const std::string &what, const std::vector<const Array<T> *> &expected, int offset,
             double tolerance, Operator &&run_operator, double smallest_scale = 0.0) {
    std::vector<Array<T>> first;
    for (const auto order : {cuda::ThreadOrder::ascending, cuda::ThreadOrder::descending,
                             cuda::ThreadOrder::shuffled}) {
        std::vector<Array<T>> found;
        for (const Array<T> *array : expected)
            found.emplace_back(array->get_size(), offset);
        run_operator(found, [order](const auto &kernel, const cuda::Grid &grid) {
            cuda::run_on_host(kernel, grid, order);
        });
        for (size_t k = 0; k < found.size(); k++) {
            check(found[k].is_intact(), what + " writes beside its output");
            if (order != cuda::ThreadOrder::ascending) {
                check(std::memcmp(found[k].data(), first[k].data(),
                                  found[k].get_size() * sizeof(T)) == 0,
                      what + " depends on the order of the threads: a barrier is missing");
                continue;
            }
            double largest = smallest_scale;
            for (size_t i = 0; i < found[k].get_size(); i++)
                largest = std::max(largest, std::abs(double((*expected[k])[i])));
            const double worst = worst_error(found[k], *expected[k]);
            check(worst <= tolerance * std::numeric_limits<T>::epsilon() * largest,
                  what + " output " + std::to_string(k) + ": worst error " +
                      std::to_string(worst / largest / std::numeric_limits<T>::epsilon()) +
                      " eps of the largest number, expected at most " + std::to_string(tolerance));
        }
        if (order == cuda::ThreadOrder::ascending)
            first = std::move(found);
    }
}

/** Sums of n_max (2 l_max + 1) terms in another order, in eps. */
double tolerance_of(int l_max, int n_max) { return 8.0 + 2.0 * n_max + 4.0 * (2 * l_max + 1); }

template <class T> void test_features(int64_t num_edges, int l_max, int n_max, int offset) {
    const std::string what = "features" + std::string(sizeof(T) == 4 ? " float32" : " float64") +
                             " l_max " + std::to_string(l_max) + " n_max " + std::to_string(n_max) +
                             " edges " + std::to_string(num_edges);
    const CpuKernels<T> &cpu = cpu_kernels<T>();
    const size_t width = (l_max + 1) * (l_max + 1) * n_max;
    const Array<T> vectors = make_vectors<T>(num_edges, CUTOFF, offset, 1);
    const Array<T> grad = make_normal<T>(num_edges * width, offset, 2);
    const Features<T> in{vectors.data(), num_edges, CUTOFF, radial_table<T>(l_max, n_max)};
    Array<T> out(num_edges * width, 0), grad_out(num_edges * 3, 0);
    cpu.features_forward(in, 0, num_edges, false, out.data());
    cpu.features_backward(in, grad.data(), 0, num_edges, grad_out.data());
    const double tolerance = tolerance_of(l_max, n_max);
    compare<T>(what, {&out}, offset, tolerance, [&](auto &found, auto &&run) {
        cuda::run_features_forward(in, found[0].data(), run);
    });
    compare<T>(what + " backward", {&grad_out}, offset, tolerance, [&](auto &found, auto &&run) {
        cuda::run_features_backward(in, grad.data(), found[0].data(), run);
    });
}

template <class T> void test_invariants(int64_t num_edges, int l_max, int n_max, int offset) {
    const std::string what = "invariants" + std::string(sizeof(T) == 4 ? " float32" : " float64") +
                             " l_max " + std::to_string(l_max) + " n_max " + std::to_string(n_max) +
                             " edges " + std::to_string(num_edges);
    const CpuKernels<T> &cpu = cpu_kernels<T>();
    const auto &table = radial_table<T>(l_max, n_max);
    const size_t width = n_max * (1 + 2 * (l_max + 1));
    const size_t scratch_size = NUM_NODES * (l_max + 1) * table.n_padded;
    const Array<T> vectors = make_vectors<T>(num_edges, CUTOFF, offset, 3);
    const Array<T> velocities = make_vectors<T>(NUM_NODES, VELOCITY_CUTOFF, offset, 4);
    const Array<T> grad = make_normal<T>(num_edges * width, offset, 5);
    const Array<T> grad_envelope = make_normal<T>(num_edges, offset, 6);
    std::mt19937 generator(7);
    std::uniform_int_distribution<int64_t> node(0, NUM_NODES - 1);
    std::vector<int64_t> edge_index(2 * num_edges), order, starts{0};
    for (int64_t &index : edge_index)
        index = node(generator);
    for (int64_t n = 0; n < NUM_NODES; n++) {
        for (int64_t k = 0; k < 2 * num_edges; k++)
            if (edge_index[k % 2 * num_edges + k / 2] == n)
                order.push_back(k);
        starts.push_back(order.size());
    }
    const Invariants<T> in{{vectors.data(), num_edges, CUTOFF, table},
                           velocities.data(),
                           NUM_NODES,
                           VELOCITY_CUTOFF,
                           edge_index.data()};
    std::vector<T> scaled(4 * NUM_NODES), radial(scratch_size), derivative(scratch_size);
    Array<T> invariants(num_edges * width, 0), envelope(num_edges, 0);
    Array<T> grad_vectors(num_edges * 3, 0), ends(num_edges * 6, 0), nodes(3 * NUM_NODES, 0);
    cpu.velocity_radial(in, 0, NUM_NODES, scaled.data(), radial.data(), derivative.data());
    cpu.invariants_forward(in, scaled.data(), radial.data(), 0, num_edges, invariants.data(),
                           envelope.data());
    cpu.invariants_backward(in, scaled.data(), radial.data(), derivative.data(), grad.data(),
                            grad_envelope.data(), 0, num_edges, grad_vectors.data(), ends.data());
    std::fill_n(nodes.data(), nodes.get_size(), T(0));
    for (int64_t k = 0; k < 2 * num_edges; k++)
        for (int c = 0; c < 3; c++)
            nodes.data()[3 * edge_index[k % 2 * num_edges + k / 2] + c] += ends[3 * k + c];
    const double tolerance = 4.0 * tolerance_of(l_max, n_max);
    compare<T>(what, {&invariants, &envelope}, offset, tolerance, [&](auto &found, auto &&run) {
        std::vector<T> scratch(scratch_size);
        cuda::run_invariants_forward(in, scratch.data(), found[0].data(), found[1].data(), run);
    });
    compare<T>(what + " backward", {&grad_vectors, &ends, &nodes}, offset, tolerance,
               [&](auto &found, auto &&run) {
                   std::vector<T> scratch(2 * scratch_size);
                   cuda::run_invariants_backward(
                       in, grad.data(), grad_envelope.data(), scratch.data(), found[1].data(),
                       order.data(), starts.data(), found[0].data(), found[2].data(), run);
               });
}

/** A node that there is not gives NaN, to its edge only, and reads nothing it should not. */
void test_node_out_of_range() {
    constexpr int64_t num_edges = 3, num_nodes = 2;
    const auto &table = radial_table<float>(1, 4);
    const size_t width = 4 * 5, scratch_size = num_nodes * 2 * table.n_padded;
    const Array<float> vectors = make_vectors<float>(num_edges, CUTOFF, 0, 13);
    const Array<float> velocities = make_vectors<float>(num_nodes, VELOCITY_CUTOFF, 0, 14);
    const Array<float> grad = make_normal<float>(num_edges * width, 0, 15);
    const Array<float> grad_envelope = make_normal<float>(num_edges, 0, 16);
    const std::vector<int64_t> edge_index{0, 1000000, 1, 1, 0, -5}, order{0, 3, 1, 4};
    const std::vector<int64_t> starts{0, 2, 4};
    const Invariants<float> in{{vectors.data(), num_edges, CUTOFF, table},
                               velocities.data(),
                               num_nodes,
                               VELOCITY_CUTOFF,
                               edge_index.data()};
    const auto run = [](const auto &kernel, const cuda::Grid &grid) {
        cuda::run_on_host(kernel, grid);
    };
    std::vector<float> scratch(2 * scratch_size);
    Array<float> out(num_edges * width, 0), envelope(num_edges, 0), grad_vectors(3 * num_edges, 0);
    Array<float> ends(6 * num_edges, 0), nodes(3 * num_nodes, 0);
    cuda::run_invariants_forward(in, scratch.data(), out.data(), envelope.data(), run);
    cuda::run_invariants_backward(in, grad.data(), grad_envelope.data(), scratch.data(),
                                  ends.data(), order.data(), starts.data(), grad_vectors.data(),
                                  nodes.data(), run);
    for (size_t edge = 0; edge < num_edges; edge++)
        for (size_t i = 0; i < width; i++) {
            // Groups of four: the edge alone, then (l, side).
            const size_t group = i / 4, side = (group + 1) % 2;
            const bool missing =
                group > 0 && ((edge == 1 && side == 0) || (edge == 2 && side == 1));
            check(std::isnan(out[edge * width + i]) == missing,
                  "a node out of range gives NaN to its numbers only");
        }
    for (size_t edge = 0; edge < num_edges; edge++)
        check(std::isnan(grad_vectors[3 * edge]) == (edge != 0),
              "a node out of range gives NaN to its edge's gradient only");
}

template <class T> void test_harmonics(int64_t num_edges, int l_max, int offset) {
    const std::string what = "harmonics" + std::string(sizeof(T) == 4 ? " float32" : " float64") +
                             " l_max " + std::to_string(l_max);
    const CpuKernels<T> &cpu = cpu_kernels<T>();
    const size_t width = (l_max + 1) * (l_max + 1);
    const Array<T> vectors = make_normal<T>(3 * num_edges, offset, 8);
    const Array<T> grad = make_normal<T>(num_edges * width, offset, 9);
    Array<T> out(num_edges * width, 0), grad_out(num_edges * 3, 0);
    cpu.harmonics_forward(vectors.data(), l_max, 0, num_edges, out.data());
    cpu.harmonics_backward(vectors.data(), grad.data(), l_max, 0, num_edges, grad_out.data());
    const double tolerance = tolerance_of(l_max, 1);
    compare<T>(what, {&out}, offset, tolerance, [&](auto &found, auto &&run) {
        cuda::run_harmonics_forward(vectors.data(), num_edges, l_max, found[0].data(), run);
    });
    compare<T>(what + " backward", {&grad_out}, offset, tolerance, [&](auto &found, auto &&run) {
        cuda::run_harmonics_backward(vectors.data(), grad.data(), num_edges, l_max, found[0].data(),
                                     run);
    });
}

/**
 * f along x + h d by the central difference of order 4: with the steps used, truncation and
 * rounding stay below 1e-8 of the largest number; the tolerance leaves 10 times that.
 */
template <class Function>
Array<double> differentiate(const Array<double> &x, const Array<double> &d, double h, size_t size,
                            Function &&function) {
    Array<double> out(size, 0);
    std::fill_n(out.data(), size, 0.0);
    const double steps[4] = {-2, -1, 1, 2}, weights[4] = {1, -8, 8, -1};
    for (int k = 0; k < 4; k++) {
        Array<double> moved = x, value(size, 0);
        for (size_t i = 0; i < x.get_size(); i++)
            moved.data()[i] += steps[k] * h * d[i];
        function(moved, value);
        for (size_t i = 0; i < size; i++)
            out.data()[i] += weights[k] / (12 * h) * value[i];
    }
    return out;
}
constexpr double DIFFERENCE_TOLERANCE = 1e-7 / std::numeric_limits<double>::epsilon();

void test_double_backward(int64_t num_edges, int l_max, int n_max) {
    const std::string what =
        "double backward l_max " + std::to_string(l_max) + " n_max " + std::to_string(n_max);
    const CpuKernels<double> &cpu = cpu_kernels<double>();
    const size_t components = (l_max + 1) * (l_max + 1), width = components * n_max;
    const Array<double> vectors = make_vectors<double>(num_edges, CUTOFF, 0, 10);
    const Array<double> direction = make_normal<double>(3 * num_edges, 0, 11);
    const Array<double> grad = make_normal<double>(num_edges * width, 0, 12);
    const auto at = [&](const Array<double> &x) {
        return Features<double>{x.data(), num_edges, CUTOFF, radial_table<double>(l_max, n_max)};
    };
    const auto forward =
        differentiate(vectors, direction, 2e-5, num_edges * width, [&](auto &x, auto &out) {
            cpu.features_forward(at(x), 0, num_edges, false, out.data());
        });
    const auto backward =
        differentiate(vectors, direction, 2e-5, num_edges * 3, [&](auto &x, auto &out) {
            cpu.features_backward(at(x), grad.data(), 0, num_edges, out.data());
        });
    compare<double>(
        "features " + what, {&forward, &backward}, 0, DIFFERENCE_TOLERANCE,
        [&](auto &found, auto &&run) {
            cuda::run_features_double_backward(at(vectors), grad.data(), direction.data(),
                                               found[0].data(), found[1].data(), run);
        },
        1.0);
    if (n_max != 1)
        return;
    const auto harmonics =
        differentiate(vectors, direction, 2e-5, num_edges * components, [&](auto &x, auto &out) {
            cpu.harmonics_forward(x.data(), l_max, 0, num_edges, out.data());
        });
    const auto harmonics_backward =
        differentiate(vectors, direction, 2e-5, num_edges * 3, [&](auto &x, auto &out) {
            cpu.harmonics_backward(x.data(), grad.data(), l_max, 0, num_edges, out.data());
        });
    compare<double>(
        "harmonics " + what, {&harmonics, &harmonics_backward}, 0, DIFFERENCE_TOLERANCE,
        [&](auto &found, auto &&run) {
            cuda::run_harmonics_double_backward(vectors.data(), grad.data(), direction.data(),
                                                num_edges, l_max, found[0].data(), found[1].data(),
                                                run);
        },
        1.0);
}

template <class T> void test_all() {
    for (int l_max = 0; l_max <= diffmd::formulas::max_degree; l_max++) {
        for (const int n_max : {1, 3, 4, 6, 8, 16}) {
            test_features<T>(301, l_max, n_max, n_max % 2);
            test_invariants<T>(301, l_max, n_max, n_max % 2);
        }
        test_harmonics<T>(301, l_max, l_max % 2);
    }
    // No edge; one; fewer than a tile.
    for (const int64_t num_edges : {0, 1, 3}) {
        test_features<T>(num_edges, 3, 8, 0);
        test_invariants<T>(num_edges, 3, 8, 0);
        test_harmonics<T>(num_edges, 3, 0);
    }
}

} // namespace

int main() {
    test_worst_error();
    test_all<float>();
    test_all<double>();
    test_node_out_of_range();
    for (int l_max = 0; l_max <= diffmd::formulas::max_degree; l_max++)
        for (const int n_max : {1, 6, 16})
            test_double_backward(41, l_max, n_max);
    if (num_failures == 0)
        std::printf("block code of all kernels agrees with the CPU kernels\n");
    return num_failures == 0 ? 0 : 1;
}
