#pragma once

#include <string_view>
#include <vector>

#include "tilegrad/nn/module.h"

/// What optimisers do with all gradients together before they step.
namespace tilegrad::nn {

/// √ Σ g² over the gradients of all parameters, summed in double. Throws in the name of `optimizer` if it is
/// not finite.
double gradient_norm(std::string_view optimizer, const std::vector<NamedParameter>& parameters);

/// The factor that brings a gradient of that norm down to `largest`; 1 if it is no larger, or `largest` is 0.
inline double clip_factor(double norm, double largest) {
  return largest > 0 && norm > largest ? largest / norm : 1.0;
}

}  // namespace tilegrad::nn
