#pragma once

#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

namespace diffmd {

/**
 * How a Propagator calls torch, on this thread until it goes out of scope: without gradients, in
 * the precision of the model (an autocast of the caller's would change it), and TorchScript
 * without specialisation to what its first calls saw (later calls are no slower, and the first,
 * or those of another batch size after a redraw, do not wait for a compiler).
 *
 * Entered once for all calls of a batch's lag: after each of them this code is no longer in the
 * processor's first caches, and entering again costs more than the few instructions it is.
 */
class Inference {
    c10::InferenceMode without_gradients;
    c10::impl::ExcludeDispatchKeyGuard without_autocast{c10::autocast_dispatch_keyset};
    torch::jit::GraphOptimizerEnabledGuard without_compiling{false};
};

} // namespace diffmd
