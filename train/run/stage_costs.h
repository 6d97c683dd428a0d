#pragma once

#include "tilegrad/autograd/checkpoint_plan.h"
#include "tilegrad/nn/transformer.h"

namespace tilegrad::train {

/// What each stage of the model costs, measured: embedding, every block, and head with loss run forward and
/// backward alone, on this batch. tokens and targets i32 (B, T). Schedule and gradients of the model are left
/// undefined, and what lives now counts as held.
///
/// Tracked bytes hardly depend on the machine or the number of threads; times do.
ChainCost measure_stages(nn::Transformer& model, const Tensor& tokens, const Tensor& targets,
                         const nn::ForwardOptions& forward);

}  // namespace tilegrad::train
