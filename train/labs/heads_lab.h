#pragma once

#include <cstdint>

#include "tilegrad/base/index.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/report/console.h"

namespace tilegrad::train {

/// MHA, GQA and MQA: one transformer with as many key/value heads as heads, `kv_heads` of them, and one.
struct HeadsLab {
  Index seq = 1024, head_size = 64, heads = 8, kv_heads = 4, layers = 2;
  Index tokens = 64;     ///< to decode
  Index steps = 1200;    ///< of training on recall, the same for all
  Index seeds = 5;       ///< trainings of each kind, with seeds from `seed` on
  bool convert = false;  ///< also turn a trained MHA into the others
  Index repeats = 3;
  std::uint64_t seed = 1;
};

/// Measures size, time and memory of training and decoding, and what each kind learns of recall in the same few steps;
/// the finding says which kinds differ by more than chance over the seeds. Returns kFailure if sharing heads changes an
/// output that it must not. Throws if kv_heads does not divide the heads.
int run_heads_lab(const HeadsLab& lab, const LabOptions& options, const Console& console);

}  // namespace tilegrad::train
