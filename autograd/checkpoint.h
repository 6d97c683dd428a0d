#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "tilegrad/autograd/saved.h"

namespace tilegrad {

/// fn(xs), keeping only xs: everything that fn computes on the way is discarded, and computed again when
/// backward arrives (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). Loss and gradients
/// are those of the plain fn(xs), to the last bit, provided that fn computes the same from the same inputs
/// when it is called a second time; random numbers must come from a key that fn holds.
///
/// Parameters, and values of the surrounding tape, that fn captures receive their gradients in their own
/// cells, so they need not be passed in. Checkpoints nest. The second run leaves out what no rule reads: see
/// Deferral. Inputs whose storage is modified before backward are an Error.
using CheckpointFunction = std::function<Var(std::span<const Var> xs)>;
Var checkpoint(CheckpointFunction fn, std::span<const Var> xs);

/// The usual case of one input.
Var checkpoint(std::function<Var(const Var& x)> fn, const Var& x);

/// fn(xs), recorded like any other op; but an op that would save the result for its backward saves xs
/// instead, and computes fn(xs) again when it needs it. So fn should be cheap compared with the ops that take
/// its result, as norms and activations are next to matrix products. It runs only once more, for all of these
/// ops together. Loss and gradients keep every bit; fn depends on xs and parameters alone.
Var recomputed(CheckpointFunction fn, std::span<const Var> xs);

/// The usual case of one input.
Var recomputed(std::function<Var(const Var& x)> fn, const Var& x);

/// What recomputed() attaches to its result: how backward computes the value again. All ops that saved the
/// value share one of these; the first that goes backward computes it, the last one frees it.
class Recomputation {
 public:
  Recomputation(CheckpointFunction fn, std::span<const Var> xs);
  ~Recomputation();

  /// The value. Throws, naming the op that asks, if what it is made of was modified after the forward pass.
  const Tensor& value(std::string_view op);

 private:
  void compute(std::string_view op);

  CheckpointFunction fn_;
  std::vector<Saved> xs_;
  Tensor value_;  // undefined until somebody asks
};

}  // namespace tilegrad
