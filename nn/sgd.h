#pragma once

#include <vector>

#include "tilegrad/nn/module.h"

namespace tilegrad::nn {

/// Stochastic gradient descent, plain, with momentum, or with Nesterov's (Sutskever et al., 2013). The learning
/// rate is given at each step, so that a schedule needs no state here.
class Sgd {
 public:
  struct Config {
    double momentum = 0;
    bool nesterov = false;
    double weight_decay = 0;  ///< adds weight_decay · w to the gradient of matrices (rank ≥ 2)
    double clip = 0;          ///< largest global norm of the gradient; 0: no clipping
  };

  /// The parameters may be moved afterwards, as they are with their model, or destroyed.
  Sgd(const std::vector<NamedParameter>& parameters, const Config& config);

  /// Updates all parameters that have a gradient. Returns the global norm of the gradient before clipping,
  /// and throws if it is not finite, leaving the parameters as they were.
  double step(double lr);

 private:
  std::vector<Parameter> parameters_;  // shared with the model
  std::vector<Tensor> velocities_;     // none without momentum
  Config config_;
};

}  // namespace tilegrad::nn
