#pragma once

#include <vector>

#include "tilegrad/nn/module.h"

namespace tilegrad::nn {

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019); without decay it is Adam (Kingma and Ba,
/// 2015). Decay applies to matrices alone (rank ≥ 2).
/// The learning rate is given at each step, so that a schedule needs no state here.
class AdamW {
 public:
  struct Config {
    double beta1 = 0.9;
    double beta2 = 0.99;
    double eps = 1e-8;
    double weight_decay = 0.1;
    double clip = 1.0;  ///< largest global norm of the gradient; 0: no clipping
  };

  /// The parameters may be moved afterwards, as they are with their model, or destroyed.
  AdamW(const std::vector<NamedParameter>& parameters, const Config& config);

  /// Updates all parameters that have a gradient. Returns the global norm of the gradient before clipping,
  /// and throws if it is not finite, leaving the parameters as they were.
  double step(double lr);

  Index steps() const { return steps_; }

  /// The state as named tensors, "<parameter>.m" and "<parameter>.v", sharing memory, to save it and to load it.
  struct NamedState {
    std::string name;
    Tensor* tensor;
  };
  std::vector<NamedState> state();
  void set_steps(Index steps) { steps_ = steps; }

 private:
  struct Moments {
    std::string name;
    Tensor m, v;
  };

  std::vector<Parameter> parameters_;  // shared with the model
  std::vector<Moments> moments_;
  Config config_;
  Index steps_ = 0;
};

}  // namespace tilegrad::nn
