#pragma once

#include <span>
#include <vector>

#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/saved.h"

namespace tilegrad {

/// A value that backward computes again from what it was made of. All ops that saved it share one of these:
/// the first that goes backward computes the value, the last one frees it.
class Recomputation {
 public:
  Recomputation(CheckpointFunction fn, std::span<const Var> xs);

  /// The value. Throws, naming the op that asks, if what it is made of was modified after the forward pass.
  const Tensor& value(std::string_view op);

 private:
  CheckpointFunction fn_;
  std::vector<Saved> xs_;
  Tensor value_;  // undefined until somebody asks
};

}  // namespace tilegrad
