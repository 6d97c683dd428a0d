#pragma once

#include <span>

#include "tilegrad/base/index.h"

namespace tilegrad::kernels {

struct AdamWStep {
  double lr;
  double beta1;
  double beta2;
  double eps;
  Index step;         ///< counts from 1, for the bias correction
  double grad_scale;  ///< multiplies the gradient first (clipping)
};

/// A parameter with its moments and its gradient, all of one size.
template <class T>
struct AdamWTensor {
  std::span<T> w, m, v;
  std::span<const T> grad;
  double weight_decay;
};

/// One step of Adam with decoupled weight decay (Loshchilov and Hutter, 2019), in one pass over all parameters.
/// With g = grad_scale · grad:
///   m = β1 m + (1 − β1) g
///   v = β2 v + (1 − β2) g²
///   w −= lr (m/(1 − β1ᵗ) / (√(v/(1 − β2ᵗ)) + eps) + weight_decay · w).
template <class T>
void adamw(std::span<const AdamWTensor<T>> tensors, const AdamWStep& step);

}  // namespace tilegrad::kernels
