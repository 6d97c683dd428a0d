#pragma once

#include <cstdint>
#include <vector>

#include "tilegrad/base/index.h"

namespace tilegrad::data {

/// Target of a position that does not count.
inline constexpr std::int32_t kIgnored = -1;

/// B sequences of T tokens, row by row. targets[i] is the token that should follow token i.
struct Batch {
  Index batch = 0;                    // B
  Index time = 0;                     // T
  std::vector<std::int32_t> tokens;   // B T
  std::vector<std::int32_t> targets;  // B T, kIgnored where nothing is asked
};

/// Where a model's batches come from. What it returns depends on its arguments and on the seed alone, never
/// on what was asked before, so a run can be resumed at any step.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual Index vocabulary() const = 0;  // V: tokens lie in [0, V)

  /// The batch of one training step.
  virtual Batch train(Index step, Index batch) const = 0;

  /// A held-out set of fixed batches, numbered from 0: never trained on, the same in every run of this seed.
  virtual Index validation_batches(Index batch) const = 0;
  virtual Batch validation(Index index, Index batch) const = 0;
};

}  // namespace tilegrad::data
