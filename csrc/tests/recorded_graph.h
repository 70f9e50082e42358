#pragma once

#include <ATen/core/GraphImplInterface.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <stdexcept>
#include <vector>

/**
 * A graph of the CPU, which torch has none of, that does what a CUDA graph does: each call of an
 * operator is recorded with its tensors and numbers; a replay makes the same calls on the same
 * memory. What the recorded code reads from main memory, or does besides calling operators, is
 * not in it.
 */
class RecordedGraph : public at::GraphImplInterface {
public:
    inline static int num_captures = 0, num_replays = 0;
    /** Whether the next captures fail at their end, as that of a call which waits for a device. */
    inline static bool fails = false;

    explicit RecordedGraph(const at::GraphImplArgs &) {}
    ~RecordedGraph() override { capturing = capturing == this ? nullptr : capturing; }

    void capture_begin(at::MempoolId_t, at::GraphCaptureMode) override {
        capturing = this;
        c10::impl::tls_set_dispatch_key_included(KEY, true);
    }
    void capture_end() override {
        c10::impl::tls_set_dispatch_key_included(KEY, false);
        capturing = nullptr;
        if (fails)
            throw std::runtime_error("a call waits for the device");
        num_captures++;
    }
    void replay() override {
        num_replays++;
        for (const Call &call : calls) {
            torch::jit::Stack stack = call.arguments;
            call.op.callBoxed(&stack);
            for (size_t i = 0; i < stack.size(); i++)
                if (stack[i].isTensor() &&
                    !stack[i].toTensor().is_alias_of(call.results[i].toTensor()))
                    call.results[i].toTensor().copy_(stack[i].toTensor());
        }
    }
    void instantiate() override {}
    void reset() override { calls.clear(); }
    at::MempoolId_t pool() const override { return {0, 0}; }
    void enable_debug_mode() override {}
    void debug_dump(const std::string &) override {}

    static void record(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
        const c10::impl::ExcludeDispatchKeyGuard once(KEY);
        const auto arguments = torch::jit::last(*stack, op.schema().arguments().size()).vec();
        op.callBoxed(stack);
        capturing->calls.push_back(
            {op, arguments, torch::jit::last(*stack, op.schema().returns().size()).vec()});
    }

private:
    struct Call {
        c10::OperatorHandle op;
        torch::jit::Stack arguments, results;
    };
    static constexpr c10::DispatchKey KEY = c10::DispatchKey::TESTING_ONLY_GenericMode;
    inline static thread_local RecordedGraph *capturing = nullptr;
    std::vector<Call> calls;
};

namespace at {
REGISTER_GRAPH_IMPL(CPU, RecordedGraph)
}

TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, library) {
    library.fallback(torch::CppFunction::makeFromBoxedFunction<&RecordedGraph::record>());
}
