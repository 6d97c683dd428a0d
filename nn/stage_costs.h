#pragma once

#include "nn/checkpoint_plan.h"
#include "nn/transformer.h"

namespace tilegrad::nn {

/// What each stage of the model costs, measured: embedding, every block, and head with loss run forward and
/// backward alone, on this batch. tokens and targets i32 (B, T). Schedule and gradients of the model are left
/// undefined, and what lives now counts as held.
///
/// Tracked bytes do not depend on the machine or the number of threads to speak of, times do.
ChainCost measure_stages(Transformer& model, const Tensor& tokens, const Tensor& targets, const Mode& mode);

}  // namespace tilegrad::nn
