#pragma once

#include <memory>
#include <vector>

#include "tilegrad/nn/optimizer.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

/// An optimiser and its settings. Each kind reads those that have an effect on it.
struct OptimizerSettings {
  OptimizerKind kind = OptimizerKind::adamw;
  double weight_decay = 0.1;         ///< adamw, and sgd as a part of the gradient
  double beta1 = 0.9, beta2 = 0.99;  ///< adamw and adam
  double momentum = 0;               ///< sgd
  bool nesterov = false;             ///< sgd with momentum
  double clip = 1;                   ///< all
};

/// Whether a setting of this name ("beta2") changes what the optimiser does; true for names of other settings.
bool has_effect(std::string_view setting, const OptimizerSettings& settings);

/// Throws Error with one line on the first setting that makes no sense.
void validate(const OptimizerSettings& settings);

/// How many tensors as large as a parameter the optimiser keeps for it.
Index state_tensors(const OptimizerSettings& settings);

std::unique_ptr<nn::Optimizer> make_optimizer(const std::vector<nn::NamedParameter>& parameters,
                                              const OptimizerSettings& settings);

}  // namespace tilegrad::train
