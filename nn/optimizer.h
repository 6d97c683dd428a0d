#pragma once

#include <string>
#include <vector>

#include "tilegrad/nn/module.h"

namespace tilegrad::nn {

/// What the optimizers have in common: steps, and a state that is saved and put back bit for bit. The learning rate is
/// given at each step, so that a schedule needs no state here.
class Optimizer {
 public:
  Optimizer() = default;
  virtual ~Optimizer() = default;

  /// Updates all parameters that have a gradient. Returns the global norm of the gradient before clipping, and throws
  /// if it is not finite, leaving the parameters as they were.
  virtual double step(double lr) = 0;

  /// A tensor of the state, named "<parameter>.<what>"; it shares memory with the optimizer, to save it and to load it.
  struct NamedState {
    std::string name;
    Tensor* tensor;
  };
  /// All of them. With them and the number of steps an optimizer goes on where another one of the same settings stood.
  virtual std::vector<NamedState> state() = 0;

  Index steps() const { return steps_; }
  void set_steps(Index steps) { steps_ = steps; }

 protected:
  Optimizer(const Optimizer&) = default;
  Optimizer(Optimizer&&) = default;
  Optimizer& operator=(const Optimizer&) = default;
  Optimizer& operator=(Optimizer&&) = default;

  Index steps_ = 0;
};

}  // namespace tilegrad::nn
