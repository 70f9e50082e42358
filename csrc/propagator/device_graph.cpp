#include "device_graph.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include <ATen/core/GraphImplInterface.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>

namespace diffmd {
namespace {

/** As torch's own examples warm up before a capture. */
constexpr int NUM_PLAIN_CALLS = 3;

std::string_view chosen() {
    const char *const choice = std::getenv("DIFFMD_GRAPHS");
    if (choice == nullptr)
        return "";
    const std::string_view word = choice;
    if (!word.empty() && word != "none" && word != "required")
        throw std::runtime_error("found DIFFMD_GRAPHS=" + std::string(word) +
                                 ", expected none or required, or that it is not set");
    return word;
}

[[noreturn]] void refuse(const std::string &device, const std::string &reason) {
    throw std::runtime_error("found that a lag cannot be captured into a graph of " + device +
                             " (" + reason +
                             "), expected one, as DIFFMD_GRAPHS=required says; unset it");
}

bool has_graphs(const std::string &device) {
    if (chosen() == "none")
        return false;
    const bool found = at::has_graph_impl(at::Device(device).type());
    if (!found && chosen() == "required")
        refuse(device, "torch has none for this device");
    return found;
}

} // namespace

GraphedCall::GraphedCall(const std::string &device) : wanted(has_graphs(device)), device(device) {}
GraphedCall::~GraphedCall() = default;

bool GraphedCall::run(const std::function<void()> &work) {
    if (graph) {
        graph->replay();
        return false;
    }
    if (wanted && num_plain_calls >= NUM_PLAIN_CALLS && capture(work)) {
        graph->replay();
        return true;
    }
    work();
    num_plain_calls++;
    return true;
}

bool GraphedCall::capture(const std::function<void()> &work) {
    wanted = false;
    graph = at::create_graph_impl(at::Device(device).type());
    try {
        // Other threads may allocate memory meanwhile.
        graph->capture_begin({0, 0}, at::GraphCaptureMode::ThreadLocal);
        try {
            work();
        } catch (...) {
            try {
                graph->capture_end();
            } catch (const std::exception &) {
                // What broke the capture is the error to tell.
            }
            throw;
        }
        graph->capture_end();
        return true;
    } catch (const std::exception &error) {
        graph.reset();
        if (chosen() == "required")
            refuse(device, error.what());
        TORCH_WARN_ONCE("DiffusionIntegrator: found that a lag cannot be captured into a graph of ",
                        device, " (", error.what(),
                        "); it is launched kernel by kernel, which is slower");
        return false;
    }
}

} // namespace diffmd
