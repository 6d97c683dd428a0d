#pragma once

#include <string>
#include <string_view>

#include "tilegrad/nn/transformer.h"

namespace tilegrad::train {

/// What --checkpoint says, taken apart:
///   none              keep all activations
///   block             recompute every block
///   a number          that many segments of blocks
///   budget:64MiB      the segments that recompute least while the step's peak stays within the budget
///   attention, mlp, elementwise  that part of every block
struct CheckpointSetting {
  Index segments = 0;
  nn::Recompute recompute = nn::Recompute::nothing;
  Index budget = 0;  ///< bytes; 0: none
};

/// Throws if the setting is none of these.
CheckpointSetting parse_checkpoint(const std::string& text, Index layers);

/// "65536", "64KiB", "1.5 MiB" or "2GiB" as bytes, at least 1. Throws, naming `what`, on anything else.
Index parse_bytes(std::string_view what, const std::string& text);

}  // namespace tilegrad::train
