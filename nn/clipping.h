#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "tilegrad/nn/module.h"

/// What optimisers have in common: the parameters they update, and what they do with all gradients together
/// before that.
namespace tilegrad::nn {

/// Handles to the same parameters, which stay valid when their model is moved or destroyed.
std::vector<Parameter> share(const std::vector<NamedParameter>& parameters);

/// The numbers of the parameters that have a gradient, in order and in runs of one element type: what one call of a kernel
/// updates, in one job for the threads.
std::vector<std::vector<std::size_t>> runs_with_gradient(std::span<const Parameter> parameters);

/// √ Σ g² over the gradients of all parameters, summed in double. Throws in the name of `optimizer` if it is
/// not finite.
double gradient_norm(std::string_view optimizer, std::span<const Parameter> parameters);

/// The factor that brings a gradient of that norm down to `largest`; 1 if it is no larger, or `largest` is 0.
inline double clip_factor(double norm, double largest) {
  return largest > 0 && norm > largest ? largest / norm : 1.0;
}

}  // namespace tilegrad::nn
