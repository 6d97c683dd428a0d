#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "tilegrad/autograd/gradcheck.h"

namespace tilegrad {

/// One function whose gradient is compared with finite differences.
struct GradcheckCase {
  /// Inputs are drawn from N(0, 1) in f64, the same on every run.
  GradcheckCase(std::string op, std::initializer_list<Shape> shapes, Differentiable function);

  std::string op;      ///< with the options that matter: "attention flash gqa causal"
  std::string shapes;  ///< of the inputs: "(3, 4) (4)"
  Differentiable function;
  std::vector<Tensor> inputs;
};

/// Every op, every kind of attention, and checkpoints: the one list that the tests and `tilegrad check` go
/// through.
std::vector<GradcheckCase> gradcheck_cases();

}  // namespace tilegrad
