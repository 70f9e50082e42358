#include "device_graph.h"

#include <cstdlib>
#include <string_view>

#include <ATen/core/GraphImplInterface.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>

namespace diffmd {
namespace {

/** As torch's own examples warm up before a capture. */
constexpr int NUM_PLAIN_CALLS = 3;

bool has_graphs(const std::string &device) {
    const char *const choice = std::getenv("DIFFMD_GRAPHS");
    if (choice != nullptr && std::string_view(choice) == "none")
        return false;
    return at::has_graph_impl(at::Device(device).type());
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
        TORCH_WARN_ONCE("DiffusionIntegrator: found that a lag cannot be captured into a graph of ",
                        device, " (", error.what(),
                        "); it is launched kernel by kernel, which is slower");
        return false;
    }
}

} // namespace diffmd
