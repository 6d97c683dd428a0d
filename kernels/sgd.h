#pragma once

#include <span>

#include "tilegrad/base/index.h"

namespace tilegrad::kernels {

struct SgdStep {
  double lr;
  double momentum;
  bool nesterov;
  double grad_scale;  ///< multiplies the gradient first (clipping)
};

/// A parameter with its velocity and its gradient, all of one size; v is empty if momentum is 0.
template <class T>
struct SgdTensor {
  std::span<T> w, v;
  std::span<const T> grad;
  double weight_decay;
};

/// One step of gradient descent, in one pass over all parameters. With g = grad_scale · grad + weight_decay · w:
///   v = momentum · v + g
///   w −= lr v, or with Nesterov's momentum lr (g + momentum · v).
/// If v is empty, w −= lr g.
template <class T>
void sgd(std::span<const SgdTensor<T>> tensors, const SgdStep& step);

}  // namespace tilegrad::kernels
