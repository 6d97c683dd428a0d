#pragma once

#include <vector>

#include "tilegrad/nn/optimizer.h"

namespace tilegrad::nn {

/// Stochastic gradient descent, plain, with momentum, or with Nesterov's (Sutskever et al., 2013).
class Sgd final : public Optimizer {
 public:
  struct Config {
    double momentum = 0;
    bool nesterov = false;
    double weight_decay = 0;  ///< adds weight_decay · w to the gradient of matrices (rank ≥ 2)
    double clip = 0;          ///< largest global norm of the gradient; 0: no clipping
  };

  /// The parameters may be moved afterwards, as they are with their model, or destroyed.
  Sgd(const std::vector<NamedParameter>& parameters, const Config& config);

  double step(double lr) override;

  /// "<parameter>.velocity" of every parameter; nothing without momentum.
  std::vector<NamedState> state() override;

 private:
  struct Velocity {
    std::string name;
    Tensor v;
  };

  std::vector<Parameter> parameters_;  // shared with the model
  std::vector<Velocity> velocities_;   // none without momentum
  Config config_;
};

}  // namespace tilegrad::nn
