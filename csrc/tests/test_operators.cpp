// A program without Python: it is linked with the library of operators, loads a TorchScript model
// that calls them, runs it and differentiates it, and finds what Python found. Without the
// library the model does not load; without the gradients in C++ it would have none.

#include <torch/script.h>

#include <string>

#include "check.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const std::string folder = argv[1];
    torch::jit::Module model = torch::jit::load(folder + "/operators.pt");
    const torch::jit::Module expected = torch::jit::load(folder + "/operators_expected.pt");
    const auto tensor = [&](const char *name) { return expected.attr(name).toTensor(); };

    const at::Tensor vectors = tensor("vectors").clone().requires_grad_();
    const at::Tensor velocities = tensor("velocities").clone().requires_grad_();
    const at::Tensor energy = model.forward({vectors, velocities, tensor("edges")}).toTensor();
    CHECK(at::allclose(energy, tensor("energy"), 1e-12, 0.0));
    energy.backward();
    // The edge and the velocity of length zero are among them.
    CHECK(at::isfinite(vectors.grad()).all().item<bool>());
    CHECK(vectors.grad().abs().max().item<double>() > 1.0);
    CHECK(at::allclose(vectors.grad(), tensor("of_vectors"), 1e-12, 1e-12));
    CHECK(at::allclose(velocities.grad(), tensor("of_velocities"), 1e-12, 1e-12));
    return 0;
}
