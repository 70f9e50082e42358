// A program without Python: it is linked with the library of operators, loads a TorchScript model
// that calls them, runs it and differentiates it, and finds what Python found. Without the
// library the model does not load; without the gradients in C++ it would have none.

#include <torch/script.h>

#include <cstdlib>
#include <iostream>
#include <string>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::cerr << __FILE__ << ":" << __LINE__ << ": " #condition " is false\n";             \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (false)

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    const std::string folder = argv[1];
    torch::jit::Module model = torch::jit::load(folder + "/operators.pt");
    const torch::jit::Module expected = torch::jit::load(folder + "/operators_expected.pt");
    const auto tensor = [&](const char *name) { return expected.attr(name).toTensor(); };

    const at::Tensor vectors = tensor("vectors").clone().requires_grad_();
    const at::Tensor velocities = tensor("velocities").clone().requires_grad_();
    const at::Tensor energy = model.forward({vectors, velocities, tensor("edges")}).toTensor();
    REQUIRE(at::allclose(energy, tensor("energy"), 1e-12, 0.0));
    energy.backward();
    // The edge and the velocity of length zero are among them.
    REQUIRE(at::isfinite(vectors.grad()).all().item<bool>());
    REQUIRE(vectors.grad().abs().max().item<double>() > 1.0);
    REQUIRE(at::allclose(vectors.grad(), tensor("of_vectors"), 1e-12, 1e-12));
    REQUIRE(at::allclose(velocities.grad(), tensor("of_velocities"), 1e-12, 1e-12));
    return 0;
}
