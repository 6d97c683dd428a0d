#pragma once

#include <functional>
#include <span>

#include "tilegrad/autograd/var.h"

namespace tilegrad {

/// fn(xs), keeping only xs: everything that fn computes on the way is discarded, and computed again when
/// backward arrives (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). Loss and gradients
/// are those of the plain fn(xs), to the last bit, provided that fn computes the same from the same inputs
/// when it is called a second time; random numbers must come from a key that fn holds.
///
/// Parameters, and values of the surrounding tape, that fn captures receive their gradients in their own
/// cells, so nobody passes them in. Checkpoints nest. Inputs whose storage is modified before backward are an
/// Error.
using CheckpointFunction = std::function<Var(std::span<const Var> xs)>;
Var checkpoint(CheckpointFunction fn, std::span<const Var> xs);

/// The usual case of one input.
Var checkpoint(std::function<Var(const Var& x)> fn, const Var& x);

/// fn(xs), recorded like any other op; but an op that would save the result for its backward saves xs, and
/// computes fn(xs) again when it needs it. So fn is meant to be cheap beside the ops behind it, as norms and
/// activations are beside products. It runs once more for all ops that take this result. Loss and gradients
/// keep every bit; fn depends on xs and parameters alone.
Var recomputed(CheckpointFunction fn, std::span<const Var> xs);

/// The usual case of one input.
Var recomputed(std::function<Var(const Var& x)> fn, const Var& x);

}  // namespace tilegrad
