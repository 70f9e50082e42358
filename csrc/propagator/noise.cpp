#include "noise.h"

#include <istream>
#include <ostream>
#include <stdexcept>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/normal_cpu_dispatch.h>
#include <c10/core/InferenceMode.h>

namespace diffmd {

struct NoiseStreams::Streams {
    std::vector<std::optional<at::Generator>> generators;
    std::vector<at::Tensor> values;
};

NoiseStreams::NoiseStreams(uint64_t seed, const std::vector<int> &num_atoms, int num_rows)
    : streams(std::make_unique<Streams>()) {
    const c10::InferenceMode guard;
    for (size_t molecule = 0; molecule < num_atoms.size(); molecule++) {
        streams->generators.emplace_back(at::detail::createCPUGenerator(seed + molecule));
        streams->values.push_back(at::empty({num_rows, num_atoms[molecule], 3}, at::kFloat));
    }
}

NoiseStreams::~NoiseStreams() = default;

const float *NoiseStreams::draw(int molecule) {
    at::Tensor &values = streams->values[molecule];
    // As values.normal_(), without the search for the kernel.
    at::cpu::normal_(values, 0.0, 1.0, streams->generators[molecule]);
    return values.const_data_ptr<float>();
}

void NoiseStreams::save(std::ostream &stream) const {
    for (const auto &generator : streams->generators) {
        const at::Tensor state = generator->get_state();
        stream.write(static_cast<const char *>(state.const_data_ptr()), state.numel());
    }
}

void NoiseStreams::load(std::istream &stream) {
    // New generators first, so that a state that is none leaves the old ones alone.
    std::vector<std::optional<at::Generator>> loaded;
    for (const auto &generator : streams->generators) {
        at::Tensor state = generator->get_state();
        stream.read(static_cast<char *>(state.data_ptr()), state.numel());
        if (!stream)
            throw std::runtime_error("found the end of the checkpoint among the random number "
                                     "generators; use an undamaged checkpoint");
        try {
            loaded.emplace_back(at::detail::createCPUGenerator());
            loaded.back()->set_state(state);
        } catch (const c10::Error &error) {
            throw std::runtime_error(
                std::string("found no state of a random number generator in the checkpoint (") +
                error.what_without_backtrace() + "); use an undamaged checkpoint");
        }
    }
    streams->generators = std::move(loaded);
}

} // namespace diffmd
