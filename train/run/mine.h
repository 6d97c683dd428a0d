#pragma once

#include <filesystem>

#include "tilegrad/nn/transformer.h"

/// Attention and checkpoints that the learner of a course (learn/) has written, in place of the library's. What they
/// compute in is double: f32 and f64 are converted on the way in and out. They run on one thread.
namespace tilegrad::train {

/// Exercises 5 and 7 of the course in this folder, and 6 if heads share keys and values: plain causal attention.
/// Compiles what has changed (`learn build` in the folder). Throws if there is no course or it does not compile.
nn::AttentionFunction mine_attention(const std::filesystem::path& folder);

/// Exercise 8.
nn::CheckpointOp mine_checkpoint(const std::filesystem::path& folder);

/// Puts both into a model's settings; an empty folder leaves the library's. Throws if the model's attention has an
/// option that plain causal attention lacks.
void use_mine(nn::TransformerConfig& config, const std::filesystem::path& attention,
              const std::filesystem::path& checkpoint);

}  // namespace tilegrad::train
