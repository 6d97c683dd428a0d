#pragma once

#include <cstdint>

#include "tilegrad/base/index.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/report/console.h"

namespace tilegrad::train {

/// A transformer on random tokens, and the ways of checkpointing it: none, every block, √L segments, the best
/// schedule under a budget, and the policies that recompute a part of every block.
struct CheckpointLab {
  Index layers = 6, seq = 512, width = 128, heads = 4, batch = 4;
  Index budget = 0;  ///< bytes; 0: halfway between the least possible and what no checkpointing needs
  Index repeats = 3;
  std::uint64_t seed = 1;
};

/// Measures every variant, predicts its peak, and compares loss and gradients with those of `none`, which
/// must agree to the last bit: returns kFailure if they do not. Throws if the budget is below the least
/// possible, and names that.
int run_checkpoint_lab(const CheckpointLab& lab, const LabOptions& options, const Console& console);

}  // namespace tilegrad::train
