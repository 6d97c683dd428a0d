#pragma once

#include "tilegrad/train/labs/lab.h"

namespace tilegrad::train {

/// MHA, GQA and MQA: one transformer with as many key/value heads as heads, `groups` of them, and one.
struct HeadsLab {
  Index seq = 1024, d = 64, heads = 8, groups = 4, layers = 2;
  Index tokens = 64;     ///< to decode
  Index steps = 100;     ///< of training on the toy task, the same for all
  bool convert = false;  ///< also turn a trained MHA into the others
  Index repeats = 3;
  std::uint64_t seed = 1;
};

/// Measures size, time and memory of training and decoding, and what each kind learns of sorting in the same
/// few steps. Returns kFailure if sharing heads changes an output that it must not. Throws if the groups do
/// not divide the heads.
int run_heads_lab(const HeadsLab& lab, const LabOptions& options, const Console& console);

}  // namespace tilegrad::train
