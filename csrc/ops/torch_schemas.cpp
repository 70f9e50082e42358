#include "torch_ops.h"

#include <torch/library.h>

using namespace diffmd::ops;

TORCH_LIBRARY(diffmd, m) {
    for (const char *schema :
         {features_schema, features_backward_schema, features_double_backward_schema,
          invariants_schema, invariants_backward_schema, harmonics_schema,
          harmonics_backward_schema, harmonics_double_backward_schema, attention_schema,
          feed_forward_schema, encoder_schema, denoiser_schema, momenta_schema})
        m.def(schema, {at::Tag::pt2_compliant_tag});
}
