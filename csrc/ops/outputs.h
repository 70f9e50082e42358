#pragma once

#include "torch_ops.h"

/*
 * What every backend's kernel does first: check the arguments (the same words on all of them)
 * and allocate the outputs, as tensors on the vectors' device. These are the whole of the Meta
 * kernels, so sizes may be symbolic.
 */
namespace diffmd::ops::outputs {

FeaturesSignature features;
FeaturesBackwardSignature features_backward;
FeaturesDoubleBackwardSignature features_double_backward;
InvariantsSignature invariants;
InvariantsBackwardSignature invariants_backward;
HarmonicsSignature harmonics;
HarmonicsBackwardSignature harmonics_backward;
HarmonicsDoubleBackwardSignature harmonics_double_backward;

} // namespace diffmd::ops::outputs
