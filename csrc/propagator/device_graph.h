#pragma once

#include <functional>
#include <memory>
#include <string>

namespace at {
struct GraphImplInterface;
}

namespace diffmd {

/**
 * Work on a device that is the same every time. After some plain calls, in which libraries set
 * themselves up, it is captured into a graph of the device (a CUDA graph), which is replayed from
 * then on: one launch instead of hundreds. Calls stay plain where the device has no graphs (a
 * CPU), and where a capture fails, which is said once. DIFFMD_GRAPHS=none in the environment
 * leaves all calls plain; with DIFFMD_GRAPHS=required both cases are errors.
 */
class GraphedCall {
public:
    /**
     * @param device  as torch names it
     * @throws std::runtime_error if graphs are required and the device has none
     */
    explicit GraphedCall(const std::string &device);
    ~GraphedCall();
    GraphedCall(const GraphedCall &) = delete;
    GraphedCall &operator=(const GraphedCall &) = delete;

    /**
     * Do the work, on torch's current stream, which must not be the default one.
     *
     * @param work  the same each time; its tensors stay where they are, what it reads from main
     *              memory stays as it is, and it does not wait for the device
     * @return whether the work was called; a replay does not call it
     * @throws std::runtime_error if graphs are required and a capture fails
     */
    bool run(const std::function<void()> &work);

private:
    bool capture(const std::function<void()> &work);

    bool wanted;
    int num_plain_calls = 0;
    std::string device;
    std::unique_ptr<at::GraphImplInterface> graph;
};

} // namespace diffmd
