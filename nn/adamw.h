#pragma once

#include <vector>

#include "tilegrad/nn/optimizer.h"

namespace tilegrad::nn {

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019); without decay it is Adam (Kingma and Ba,
/// 2015). Decay applies to matrices alone (rank ≥ 2).
class AdamW final : public Optimizer {
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

  double step(double lr) override;

  /// "<parameter>.m" and "<parameter>.v" of every parameter.
  std::vector<NamedState> state() override;

 private:
  struct Moments {
    std::string name;
    Tensor m, v;
  };

  std::vector<Parameter> parameters_;  // shared with the model
  std::vector<Moments> moments_;
  Config config_;
};

}  // namespace tilegrad::nn
