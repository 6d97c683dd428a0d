#pragma once

#include <string>
#include <vector>

#include "tilegrad/autograd/gradcheck.h"

namespace tilegrad::train {

/// One function whose gradient is compared with finite differences.
struct CheckCase {
  std::string op;      ///< with the options that matter: "attention flash causal"
  std::string shapes;  ///< of the inputs: "(3, 4) (4)"
  Differentiable function;
  std::vector<Tensor> inputs;
};

/// Every op, every kind of attention, checkpoints, and a whole transformer block. The one list of them, which
/// `tilegrad check` and the tests go through.
std::vector<CheckCase> check_cases();

}  // namespace tilegrad::train
