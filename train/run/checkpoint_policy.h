#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "tilegrad/nn/transformer.h"

namespace tilegrad::train {

/// Checkpoint every block by itself, but for the last one, as even_segments() does.
struct EveryBlock {
  friend bool operator==(EveryBlock, EveryBlock) = default;
};
/// Checkpoint the blocks in that many parts of nearly equal length, but for the last one.
struct Segments {
  Index count = 0;
  friend bool operator==(Segments, Segments) = default;
};
/// Checkpoint the segments that recompute least while the peak of a step stays within this many bytes.
struct MemoryBudget {
  Index bytes = 0;
  friend bool operator==(MemoryBudget, MemoryBudget) = default;
};

/// What a training step recomputes in backward instead of keeping it: whole blocks, or a part of every block.
/// Spelled, on the command line and in config.json,
///   none                         Recompute::nothing: keep all activations
///   attention, mlp, elementwise  that part of every block
///   block                        EveryBlock
///   4                            Segments
///   budget:64MiB                 MemoryBudget
using CheckpointPolicy = std::variant<nn::Recompute, EveryBlock, Segments, MemoryBudget>;

/// Throws Error with one line if the text is none of these.
CheckpointPolicy parse_checkpoint_policy(const std::string& text);
/// The shortest text that is read back as this policy.
std::string to_string(const CheckpointPolicy& policy);

/// Which part of every block the policy recomputes.
nn::Recompute recompute_of(const CheckpointPolicy& policy);
/// Throws if there are more segments than layers.
void validate(const CheckpointPolicy& policy, Index layers);
/// Which blocks are checkpointed together in a model of that many layers; none under a budget, whose schedule
/// has to be planned from what the model costs. Throws as validate() does.
Schedule schedule_of(const CheckpointPolicy& policy, Index layers);

/// "65536", "64KiB", "1.5 MiB" or "2GiB" as bytes, at least 1. Throws, naming `what`, on anything else.
Index parse_bytes(std::string_view what, const std::string& text);

}  // namespace tilegrad::train
