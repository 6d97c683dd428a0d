#pragma once

#include <span>

#include "tilegrad/base/index.h"

namespace tilegrad::kernels {

struct AdamWStep {
  double lr;
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  Index step;         ///< counts from 1, for the bias correction
  double grad_scale;  ///< multiplies the gradient first (clipping)
};

/// One step of Adam with decoupled weight decay (Loshchilov and Hutter, 2019), in one pass.
/// With g = grad_scale · grad:
///   m = β1 m + (1 − β1) g
///   v = β2 v + (1 − β2) g²
///   w −= lr (m/(1 − β1ᵗ) / (√(v/(1 − β2ᵗ)) + eps) + weight_decay · w).
template <class T>
void adamw(std::span<T> w, std::span<T> m, std::span<T> v, std::span<const T> grad, const AdamWStep& step);

}  // namespace tilegrad::kernels
