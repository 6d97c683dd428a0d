#include "tilegrad/train/run/optimizer.h"

#include <cmath>

#include "tilegrad/nn/adamw.h"
#include "tilegrad/nn/sgd.h"

namespace tilegrad::train {

bool has_effect(std::string_view setting, const OptimizerSettings& settings) {
  const bool sgd = settings.kind == OptimizerKind::sgd;
  if (setting == "beta1" || setting == "beta2") return !sgd;
  if (setting == "weight-decay") return settings.kind != OptimizerKind::adam;
  if (setting == "momentum" || setting == "nesterov") return sgd;
  return true;
}

void validate(const OptimizerSettings& s) {
  check(s.beta1 >= 0 && s.beta1 < 1, "beta1: is {}, not in [0, 1)", s.beta1);
  check(s.beta2 >= 0 && s.beta2 < 1, "beta2: is {}, not in [0, 1)", s.beta2);
  check(s.momentum >= 0 && s.momentum < 1, "momentum: is {}, not in [0, 1)", s.momentum);
  check(s.momentum > 0 || !s.nesterov, "nesterov: has no effect without momentum");
  check(std::isfinite(s.weight_decay) && s.weight_decay >= 0, "weight-decay: is {}, must not be negative",
        s.weight_decay);
  check(s.clip >= 0, "clip: is {}, must not be negative", s.clip);
}

Index state_tensors(const OptimizerSettings& settings) {
  if (settings.kind != OptimizerKind::sgd) return 2;
  return settings.momentum > 0 ? 1 : 0;
}

std::unique_ptr<nn::Optimizer> make_optimizer(const std::vector<nn::NamedParameter>& parameters,
                                              const OptimizerSettings& s) {
  if (s.kind == OptimizerKind::sgd) {
    return std::make_unique<nn::Sgd>(
        parameters,
        nn::Sgd::Config{
            .momentum = s.momentum, .nesterov = s.nesterov, .weight_decay = s.weight_decay, .clip = s.clip});
  }
  const bool decays = s.kind == OptimizerKind::adamw;
  return std::make_unique<nn::AdamW>(
      parameters,
      nn::AdamW::Config{
          .beta1 = s.beta1, .beta2 = s.beta2, .weight_decay = decays ? s.weight_decay : 0.0, .clip = s.clip});
}

}  // namespace tilegrad::train
