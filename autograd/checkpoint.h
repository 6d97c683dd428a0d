#pragma once

#include <functional>
#include <span>

#include "autograd/var.h"

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

/// linear(fn(xs), weight, bias), bias may be undefined, keeping xs and the weight but not fn(xs): backward
/// computes fn again, which is meant to be cheap, and not the product, which is dear. The bits are those of
/// linear(fn(xs), weight, bias). fn depends on xs alone.
Var linear_recomputing(CheckpointFunction fn, std::span<const Var> xs, const Var& weight, const Var& bias);

}  // namespace tilegrad
