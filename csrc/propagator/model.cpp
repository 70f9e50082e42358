#include "batch_tensors.h"
#include "sha256.h"

#include <chrono>
#include <sstream>
#include <stdexcept>
#include <vector>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

namespace diffmd {

using c10::IValue;

Batch::Batch(int64_t num_molecules, int64_t num_atoms, const std::string &device)
    : num_molecules(num_molecules), num_atoms(num_atoms), tensors(std::make_unique<Tensors>()) {
    const c10::InferenceMode guard;
    Tensors &t = *tensors;
    const int64_t b = num_molecules, a = num_atoms;
    // Named: another library in the process may have changed torch's default type.
    const at::TensorOptions options = at::TensorOptions(at::kFloat).device(at::Device(device));
    t.positions = at::zeros({b, a, 3}, options);
    t.velocities = at::zeros({b, a, 3}, options);
    t.acceleration = at::zeros({b, a, 3}, options);
    t.has_acceleration = at::zeros({b}, options.dtype(at::kBool));
    t.species = at::full({b, a}, -1, options.dtype(at::kLong));
    t.masses = at::zeros({b, a}, options);
    t.level = at::zeros({b}, options);
    t.sigma = at::zeros({b}, options);
    t.residual = at::zeros({b, a, 2, 3}, options);
    positions = t.positions.data_ptr<float>();
    velocities = t.velocities.data_ptr<float>();
    acceleration = t.acceleration.data_ptr<float>();
    has_acceleration = t.has_acceleration.data_ptr<bool>();
    species = t.species.data_ptr<int64_t>();
    masses = t.masses.data_ptr<float>();
    level = t.level.data_ptr<float>();
    sigma = t.sigma.data_ptr<float>();
    residual = t.residual.data_ptr<float>();
}

Batch::~Batch() = default;

namespace {

// The message alone: torch appends a C++ backtrace of many lines, its interpreter prepends one of
// the network's.
std::string reason_of(const std::exception &error) {
    const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
    std::string reason = torch_error ? torch_error->what_without_backtrace() : error.what();
    const std::string raised = "RuntimeError: ";
    const size_t last = reason.rfind(raised);
    if (last != std::string::npos)
        reason.erase(0, last + raised.size());
    reason.erase(reason.find_last_not_of("\n") + 1);
    return reason;
}

} // namespace

struct Model::Script {
    std::string path;
    torch::jit::Module module;
    torch::jit::Function *encode, *denoise, *decode;

    torch::jit::Function *find(const std::string &name, const std::string &arguments) {
        const auto method = module.find_method(name);
        std::string found = "none";
        if (method) {
            found.clear();
            for (const auto &argument : method->function().getSchema().arguments())
                if (argument.name() != "self")
                    found += (found.empty() ? "" : ", ") + argument.type()->str();
        }
        // Checked once here, so that calls need not be checked one by one.
        if (found != arguments)
            throw std::runtime_error("found model file " + path + " with method " + name + "(" +
                                     found + "), expected " + name + "(" + arguments +
                                     "); export the model again");
        return &method->function();
    }

    /** Call a method; the time includes giving back what the call before has returned. */
    template <class... Arguments>
    double run(torch::jit::Function &function, torch::jit::Stack &stack, IValue &result,
               const Arguments &...arguments) {
        stack.clear();
        stack.emplace_back(module._ivalue());
        (stack.emplace_back(arguments), ...);
        const auto start = std::chrono::steady_clock::now();
        try {
            function.run(stack);
            result = std::move(stack.back());
        } catch (const std::exception &error) {
            throw std::runtime_error("model file " + path + ": method " + function.name() +
                                     " failed: " + reason_of(error));
        }
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

    const float *check_output(Batch &batch) {
        IValue &value = batch.get_tensors().output;
        const bool good = value.isTensor() &&
                          value.toTensor().device() == batch.get_tensors().residual.device() &&
                          value.toTensor().scalar_type() == at::kFloat &&
                          value.toTensor().sizes() ==
                              at::IntArrayRef({batch.num_molecules, batch.num_atoms, 2, 3});
        if (!good)
            throw std::runtime_error(
                "model file " + path +
                " returned something else than a float32 tensor of shape (molecules, atoms, 2, 3); "
                "export the model again");
        if (!value.toTensor().is_contiguous())
            value = value.toTensor().contiguous();
        return value.toTensor().const_data_ptr<float>();
    }
};

Model::Model(const std::string &path, const std::string &expected_sha256, const std::string &device)
    : script(std::make_unique<Script>()) {
    script->path = path;
    std::istringstream stream(read_model_file(path, expected_sha256));
    const c10::InferenceMode guard;
    try {
        script->module = torch::jit::load(stream, at::Device(device));
        script->module.eval();
    } catch (const std::exception &error) {
        throw std::runtime_error("found " + path + ", which is no readable TorchScript file (" +
                                 reason_of(error) + "); copy or export the model again");
    }
    script->encode =
        script->find("encode", "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor");
    script->denoise = script->find("denoise", "Tensor, Tensor, Dict(str, Tensor)");
    script->decode = script->find("decode", "Tensor, Dict(str, Tensor), bool");
}

Model::~Model() = default;

void Model::encode(Batch &batch) {
    Batch::Tensors &t = batch.get_tensors();
    seconds += script->run(*script->encode, t.stack, t.condition, t.positions, t.velocities,
                           t.acceleration, t.has_acceleration, t.species, t.masses, t.level);
}

const float *Model::denoise(Batch &batch) {
    Batch::Tensors &t = batch.get_tensors();
    num_evaluations++;
    seconds += script->run(*script->denoise, t.stack, t.output, t.residual, t.sigma, t.condition);
    return script->check_output(batch);
}

const float *Model::decode(Batch &batch, bool conserve_angular_momentum) {
    Batch::Tensors &t = batch.get_tensors();
    seconds += script->run(*script->decode, t.stack, t.output, t.residual, t.condition,
                           conserve_angular_momentum);
    return script->check_output(batch);
}

} // namespace diffmd
