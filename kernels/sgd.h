#pragma once

#include <span>

#include "tilegrad/base/index.h"

namespace tilegrad::kernels {

struct SgdStep {
  double lr;
  double momentum;
  bool nesterov;
  double weight_decay;
  double grad_scale;  ///< multiplies the gradient first (clipping)
};

/// One step of gradient descent, in one pass. With g = grad_scale · grad + weight_decay · w:
///   v = momentum · v + g
///   w −= lr v, or with Nesterov's momentum lr (g + momentum · v).
/// v is empty if momentum is 0, and then w −= lr g.
template <class T>
void sgd(std::span<T> w, std::span<T> v, std::span<const T> grad, const SgdStep& step);

}  // namespace tilegrad::kernels
