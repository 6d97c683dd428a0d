#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tilegrad/autograd/var.h"

namespace tilegrad {

/// A function from leaves to one value, built from ops.
using Differentiable = std::function<Var(std::span<const Var> inputs)>;

struct GradcheckOptions {
  RandomKey key{20};       ///< draws the cotangent
  double step = 1e-3;      ///< h, times max(1, |x|)
  double absolute = 1e-8;  ///< a coordinate passes if |numeric − analytic| ≤ absolute + relative |numeric|
  double relative = 1e-7;
};

struct GradcheckResult {
  bool passed = true;
  Index inputs_checked = 0;  ///< coordinates compared
  double worst_error = 0;    ///< largest |numeric − analytic| / max(1, |numeric|)
  std::string worst;         ///< where that was: "input 1 at 7: numeric 0.5, analytic 0.4"
};

/// Compares the gradient of L = ⟨r, f(inputs)⟩, r a random cotangent, with the fourth-order central
/// difference
///   L'(x) ≈ (8 (L(x+h) − L(x−h)) − (L(x+2h) − L(x−2h))) / 12h
/// at every coordinate of every input. Inputs are f64, and should lie away from kinks. An input that received
/// no gradient is compared as 0, so a missing gradient fails.
GradcheckResult gradcheck(const Differentiable& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options = {});

}  // namespace tilegrad
